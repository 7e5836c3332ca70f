"""Text embeddings of a synthetic data root, in the files that every other data root has.

``text_embeds/words.npz`` and ``names.json`` are what :class:`~langocc.teachers.TextEmbeddings`
reads; ``encoder.json`` says which encoder made them, for rows of two encoders are strangers.

Legend: K words, E embedding.
"""
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from ..files import atomic_write, write_json
from ..teachers import OfflineTextEncoder, TextEncoder, Vocabulary, available_text_encoder
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
    rows = encoder.encode(words).cpu().numpy().astype(np.float32)
    folder = Path(root) / 'text_embeds'
    path = folder / f'{TEXT_SET}.npz'
    with atomic_write(path) as temporary:
        np.savez(temporary, **{TEXT_SET: rows})
    write_json(folder / 'names.json', {TEXT_SET: words}, indent=0)
    write_json(folder / 'encoder.json', dict(encoder.describe(), words=len(words)), indent=2)
    return path
