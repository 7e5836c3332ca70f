"""Text embeddings of a synthetic data root, in the files that every other data root has.

``text_embeds/words.npz`` and ``names.json`` are what :class:`~langocc.teachers.TextEmbeddings`
reads; ``encoder.json`` says which encoder made them, for rows of two encoders are strangers: what
was fitted to some is worth nothing with others. So rows that are there are never replaced.

Legend: K words, E embedding.
"""
import json
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from ..files import write_json
from ..teachers import OfflineTextEncoder, TextEncoder, Vocabulary, available_text_encoder
from ..teachers.free_text import write_text_file
from ..teachers.offline_text import OFFLINE_NAME
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


def claim_text_embeddings(root: PathLike, encoder: TextEncoder) -> None:
    """Say in a data root what makes its text embeddings, or compare with what is said there.

    Args:
        root: Data root.
        encoder: What is to embed the words.

    Raises:
        ValueError: another encoder or another list of words made those that are there, or nobody
            knows what did.
    """
    folder, names = Path(root) / 'text_embeds', synthetic_words()
    about, wanted = folder / 'encoder.json', dict(encoder.describe(), words=len(names))
    if about.is_file():
        found = _read(about)
        if found != json.loads(json.dumps(wanted)):
            raise ValueError(_other_encoder(folder, found, wanted))
        words = folder / 'names.json'
        if words.is_file() and _read(words) != {TEXT_SET: list(names)}:
            raise ValueError(f'{folder} has rows of another list of words (names.json): they are '
                             'not replaced, take another folder')
    elif (folder / f'{TEXT_SET}.npz').is_file():
        raise ValueError(f'{folder} has {TEXT_SET}.npz and no encoder.json that says what made it: '
                         'it is not replaced, take another folder')
    else:
        write_json(about, wanted, indent=2)


def _other_encoder(folder: Path, found: Dict[str, Any], wanted: Dict[str, Any]) -> str:
    """What is wrong, and the ways out."""
    here, asked = found.get('encoder'), wanted['encoder']
    if here != asked:
        difference = f'made by {here!r}, this run would use {asked!r}'
    else:
        names = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        difference = f'made by another {here!r}: {", ".join(names)} differ'
    way = 'give --offline-text' if here == OFFLINE_NAME else (
        'name its weights in LANGOCC_CLIP_WEIGHTS')
    return (f'the text embeddings in {folder} were {difference}. Reducers and models are fitted to '
            f'them: they are not replaced. To go on with them, {way}; for others, take another '
            'folder')


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}') from error


def write_text_embeddings(root: PathLike, encoder: Optional[TextEncoder] = None) -> Path:
    """Write ``text_embeds`` of a data root, unless it is there.

    Args:
        root: Data root.
        encoder: What embeds the words; None is :func:`available_text_encoder`'s: CLIP where its
            weights are found, else the offline words.

    Returns:
        The ``.npz`` file: one array ``words`` (K, E) float32, unit rows, in the order of
        :func:`synthetic_words`.

    Raises:
        ValueError: see :func:`claim_text_embeddings`.
    """
    encoder = available_text_encoder() if encoder is None else encoder
    claim_text_embeddings(root, encoder)
    folder = Path(root) / 'text_embeds'
    path, names = folder / f'{TEXT_SET}.npz', folder / 'names.json'
    if path.is_file() and names.is_file():
        return path
    return write_text_file(path, {TEXT_SET: synthetic_words()}, encoder, names=names,
                           about=folder / 'encoder.json')
