"""Occupied voxels of a finished field, kept so that words can be asked again and again.

Legend: K words, U occupied voxels, E text embedding, D language decoder's dimensions (E, or fewer
with a reducer).
"""
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voxelrender import VoxelGrid

from ..models.heads import LangOccHead
from ..models.voxel_field import VoxelField
from ..teachers import Reducer, TextEncoder
from .relevancy import Contrast

# Rows that are widened to float32 at a time where features are stored in half precision.
_CHUNK = 65536


@dataclass
class LanguageIndex:
    """Unit language features of one sample's occupied voxels: language is decoded once.

    A query is one matrix product. The index refers to neither the network nor the field, so both
    may go, and it can be pickled.

    >>> index = OccInferencer(config, checkpoint).index(0, dtype=torch.float16)
    >>> index.similarity(['car', 'person'])  # (U, 2); nothing is decoded

    Attributes:
        token: sample.
        grid: grid of the field.
        voxel_indices: (U, 3) x, y, z index of every occupied voxel.
        classes: (U,) uint8 class under the model's vocabulary.
        feats: (U, D) unit rows; None where the model has no language decoder.
        text_encoder: embeds words, (K, E); None where the config names none.
        reducer: E -> D; None where the decoder predicts in the text space itself.
        contrast: the vocabulary's words, against which :meth:`relevancy` holds a word; None
            without a vocabulary.
    """
    token: str
    grid: VoxelGrid
    voxel_indices: np.ndarray
    classes: np.ndarray
    feats: Optional[Tensor]
    text_encoder: Optional[TextEncoder]
    reducer: Optional[Reducer]
    contrast: Optional[Contrast] = None

    def __len__(self) -> int:
        return len(self.voxel_indices)

    def embed(self, words: Union[str, Sequence[str]]) -> Tensor:
        """(K, D) float32 unit text embeddings in the space of ``feats``.

        Raises:
            KeyError: unknown words, with the nearest known ones.
            ValueError: the model has no language decoder, or the config no text encoder.
        """
        if self.feats is None:
            raise ValueError("text queries need the decoder 'lang' in the model")
        text = embed_words(self.text_encoder, words).to(self.feats.device)
        return F.normalize(text if self.reducer is None else self.reducer.reduce(text), dim=-1)

    def similarity(self, words: Union[str, Sequence[str]]) -> np.ndarray:
        """(U, K) float32 cosine of every occupied voxel with every word.

        Half-precision features are multiplied in float32: similarities of a field lie so close
        together that half-precision results would tie. Raises as :meth:`embed`; no words need no
        language.
        """
        if not words:
            return np.zeros((len(self), 0), dtype=np.float32)
        text = self.embed(words).t()
        if self.feats.dtype == torch.float32:
            return (self.feats @ text).cpu().numpy()
        return torch.cat([part.float() @ text for part in self.feats.split(_CHUNK)]).cpu().numpy()

    def relevancy(self, words: Union[str, Sequence[str]]) -> Optional[np.ndarray]:
        """(U, K) float32 in [0, 1]: words against those of other classes, 0.5 where they tie.

        See :mod:`~langocc.apis.relevancy`. None without a vocabulary. Raises as :meth:`embed`.
        """
        if self.contrast is None:
            return None
        return self.contrast.relevancy(self.feats, self.embed(words))


@torch.no_grad()
def index_field(head: LangOccHead, field: VoxelField, index: int, token: str,
                text_encoder: Optional[TextEncoder] = None, dtype: torch.dtype = torch.float32
                ) -> LanguageIndex:
    """Decode the occupied voxels of batch item ``index`` of a field, each once.

    Args:
        head: the head that made the field.
        field: the field.
        index: batch item.
        token: its sample.
        text_encoder: embeds words.
        dtype: of the stored features; float16 halves their memory.
    """
    ids = field.occupied(index, head.density_threshold)
    feats = head.language(field, index, ids) if 'lang' in head.decoder_names else None
    # Words lie close together: they are told apart in float32, whatever made the features.
    with nullcontext() if feats is None else torch.autocast(ids.device.type, enabled=False):
        classes = head.classify(field, index, ids, feats)
    nx, ny, _ = field.grid.grid_shape
    indices = torch.stack([ids % nx, ids // nx % ny, ids // (nx * ny)], -1)
    return LanguageIndex(
        token=token, grid=field.grid, voxel_indices=indices.cpu().numpy(),
        classes=classes.cpu().numpy(), feats=None if feats is None else feats.to(dtype),
        text_encoder=text_encoder, reducer=head.reducer,
        contrast=None if feats is None else Contrast.of(head, ids.device))


def embed_words(text_encoder: Optional[TextEncoder], words: Union[str, Sequence[str]]) -> Tensor:
    """(K, E) text embeddings; an unknown word lists the nearest known ones."""
    if text_encoder is None:
        raise ValueError('text queries need text_encoder = dict(...) in the config')
    return text_encoder.embed(words)
