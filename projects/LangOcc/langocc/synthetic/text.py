"""Text embeddings of a synthetic data root, in the files that every other data root has.

``text_embeds/words.npz`` and ``names.json`` are what :class:`~langocc.teachers.TextEmbeddings`
reads; ``encoder.json`` says which encoder made them, for rows of two encoders are strangers.

Legend: K words, E embedding.
"""
from pathlib import Path
from typing import Optional, Tuple

from ..teachers import OfflineTextEncoder, TextEncoder, Vocabulary, available_text_encoder
from ..teachers.free_text import write_text_file
from ..teachers.text import PathLike
from .confusions import SYNTHETIC_PROMPTS

SYNTHETIC_VOCABULARY = 'occ3d_nuscenes'
TEXT_SET = 'words'


def synthetic_words() -> Tuple[str, ...]:
    """Words of a synthetic data root: the vocabulary's prompts, the teacher's, the offline list's.

    Each once, in this order.
    """
    return tuple(dict.fromkeys([*Vocabulary(SYNTHETIC_VOCABULARY).prompts, *SYNTHETIC_PROMPTS,
                                *OfflineTextEncoder().words]))


def write_text_embeddings(root: PathLike, encoder: Optional[TextEncoder] = None) -> Path:
    """Write ``text_embeds`` of a data root.

    Args:
        root: Data root.
        encoder: What embeds the words; None is :func:`available_text_encoder`'s: CLIP where its
            weights are found, else the offline words.

    Returns:
        The ``.npz`` file: one array ``words`` (K, E) float32, unit rows, in the order of
        :func:`synthetic_words`.
    """
    encoder = available_text_encoder() if encoder is None else encoder
    words = synthetic_words()
    folder = Path(root) / 'text_embeds'
    return write_text_file(folder / f'{TEXT_SET}.npz', {TEXT_SET: words}, encoder,
                           names=folder / 'names.json', about=folder / 'encoder.json')
