"""Text without a text network: a fixed list of words with made-up, meaningful directions.

For machines that have no CLIP weights. It is not a language model: it knows the words of
``offline_words.txt`` and nothing else, and says so. Whatever needs only that related words have
near embeddings (training on synthetic streets, tests, a first try) works with it; its embeddings
have nothing to do with CLIP's, and nothing trained with one can be asked with the other.

Legend: K words, E embedding.
"""
import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from .text import PathLike, TextEncoder, UnknownWordError, nearest_names

OFFLINE_NAME = 'offline words v1'
OFFLINE_WORDS = Path(__file__).resolve().parent / 'offline_words.txt'
# Squared lengths of the parts of a synonym's row; a concept's own word has no fourth part.
_COMMON, _GROUP, _CONCEPT, _OWN = 0.80, 0.05, 0.08, 0.07
_MAX_LISTED = 5


@dataclass(frozen=True)
class Word:
    """A known word: itself, the concept it stands for (perhaps itself) and that one's group."""
    text: str
    concept: str
    group: str


def normalise_word(word: str) -> str:
    """Lower case, one space between words; '_' and '-' are spaces."""
    return ' '.join(word.lower().replace('_', ' ').replace('-', ' ').split())


def read_words(path: PathLike = OFFLINE_WORDS) -> Dict[str, Word]:
    """Read a word list (format: see the head of ``offline_words.txt``).

    Returns:
        word -> :class:`Word`, in the order of the file, each concept before its synonyms.

    Raises:
        ValueError: with file and line: a line before the first group, a missing colon, an empty
            word, a word given twice, a concept in two groups; or a file without words.
    """
    words: Dict[str, Word] = {}
    group = ''
    for number, raw in enumerate(Path(path).read_text(encoding='utf-8').splitlines(), start=1):
        line = raw.split('#', 1)[0].strip()
        where = f'{path}, line {number}'
        if line.startswith('[') and line.endswith(']'):
            group = normalise_word(line[1:-1])
        elif line:
            for word in _parse_line(line, group, where):
                known = words.get(word.text)
                if known == word and word.text == word.concept:
                    continue  # a further line of the same concept
                if known is not None:
                    raise ValueError(f'{where}: {word.text!r} is already a word of '
                                     f'{known.concept!r} in group {known.group!r}')
                words[word.text] = word
    if not words:
        raise ValueError(f'{path}: no words')
    return words


def _parse_line(line: str, group: str, where: str) -> List[Word]:
    """The words of one line, its concept first."""
    if not group:
        raise ValueError(f'{where}: expected a [group] before {line!r}')
    concept, colon, rest = line.partition(':')
    if not colon:
        raise ValueError(f'{where}: expected "concept: synonym, synonym, ...", got {line!r}')
    concept = normalise_word(concept)
    texts = [concept] + [normalise_word(text) for text in rest.split(',') if rest.strip()]
    if not all(texts):
        raise ValueError(f'{where}: empty word in {line!r}')
    return [Word(text, concept, group) for text in texts]


@lru_cache(maxsize=4096)
def _direction(key: str, dims: int) -> np.ndarray:
    """A unit vector (dims,) float64 that depends on ``key`` alone.

    Uniform values from SHAKE-256, then multiplications, one square root and one division, with an
    exactly rounded sum: the same bytes on every machine, whatever numpy's version.
    """
    raw = hashlib.shake_256(f'{OFFLINE_NAME}/{key}'.encode()).digest(4 * dims)
    values = np.frombuffer(raw, dtype='<u4').astype(np.float64) / 2**31 - 1
    vector = values / math.sqrt(math.fsum((values * values).tolist()))
    vector.setflags(write=False)
    return vector


def _across(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The part of ``vector`` at right angles to the unit vector ``axis``, at unit length."""
    rest = vector - math.fsum((vector * axis).tolist()) * axis
    return rest / math.sqrt(math.fsum((rest * rest).tolist()))


@TASK_UTILS.register_module()
class OfflineTextEncoder(TextEncoder):
    """Unit rows for the words of a list; no weights, no network, the same bytes everywhere.

    row(word) = normalise(common + group + concept + own), squared lengths 0.80, 0.05, 0.08, 0.07;
    all directions are drawn by the SHAKE-256 hash of their names, the last three at right angles
    to the common one. The word that names a concept has no own part. So the space is as narrow as
    CLIP's text space. Cosines of pairs, at 512 dimensions (the list's; CLIP ViT-B/16's in brackets:
    mean over Cityscapes' 19 names 0.82, over COCO-Stuff's 171 0.81):

    ============================================= ============ ============================
    pair                                          cosine       CLIP, one pair of words
    ============================================= ============ ============================
    concept and its synonym                       0.96 +- 0.01 sky, clouds: 0.94
    two synonyms of a concept                     0.93 +- 0.02 car, truck: 0.93
    concepts of one group                         0.91 +- 0.02 building, skyscraper: 0.90
    concepts of two groups                        0.86 +- 0.03 car, person: 0.89
    synonyms of concepts of two groups            0.80 +- 0.06 tree, car: 0.82
    ============================================= ============ ============================

    Unlike CLIP it knows no sentences, no attributes ('red car') and no word that is not listed;
    'synonym' is taken widely (a fire truck is a truck), and which concepts are kin is a matter of
    the list, not of any data.

    Args:
        embed_dims: E; at least 64, for fewer the directions are no longer nearly orthogonal.
        words: Word list; None is the package's.

    Raises:
        ValueError: E is too small, or the list is malformed (see :func:`read_words`).
    """

    name = OFFLINE_NAME

    def __init__(self, embed_dims: int = 512, words: PathLike = OFFLINE_WORDS) -> None:
        if embed_dims < 64:
            raise ValueError(f'embed_dims is {embed_dims}, expected at least 64')
        self._embed_dims = embed_dims
        self.word_file = Path(words)
        self._words = read_words(words)

    @property
    def embed_dims(self) -> int:
        """E."""
        return self._embed_dims

    @property
    def words(self) -> Tuple[str, ...]:
        """All known words, in the order of the list."""
        return tuple(self._words)

    def __contains__(self, word: str) -> bool:
        return normalise_word(word) in self._words

    def describe(self) -> Dict[str, Any]:
        """See :meth:`TextEncoder.describe`."""
        return dict(super().describe(), encoder=self.name)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Rows of known words, (K, E) float32, unit length.

        Raises:
            UnknownWordError: some words are not known; lists the nearest known of each.
        """
        keys = [normalise_word(prompt) for prompt in prompts]
        unknown = [p for p, key in zip(prompts, keys) if key not in self._words]
        if unknown:
            raise UnknownWordError(self._unknown_message(unknown))
        rows = [self._row(self._words[key]) for key in keys]
        stacked = np.stack(rows) if rows else np.zeros((0, self.embed_dims))
        return torch.from_numpy(stacked.astype(np.float32))

    def _row(self, word: Word) -> np.ndarray:
        """(E,) float64 unit row of a word."""
        common = _direction('common', self.embed_dims)
        parts = [(_GROUP, f'group/{word.group}'), (_CONCEPT, f'concept/{word.concept}')]
        if word.text != word.concept:
            parts.append((_OWN, f'word/{word.text}'))
        row = math.sqrt(_COMMON) * common
        for share, key in parts:
            row = row + math.sqrt(share) * _across(_direction(key, self.embed_dims), common)
        return row / math.sqrt(math.fsum((row * row).tolist()))

    def _unknown_message(self, unknown: Sequence[str]) -> str:
        near = '; '.join(f'{word!r}: {nearest_names(normalise_word(word), self.words) or "none"}'
                         for word in unknown[:_MAX_LISTED])
        shown = ', '.join(repr(word) for word in unknown[:_MAX_LISTED])
        more = len(unknown) - _MAX_LISTED
        shown += f' and {more} more' if more > 0 else ''
        return (f'the offline text encoder does not know {shown}; nearest of its '
                f'{len(self.words)} words: {near}. It knows only the words of {self.word_file}; '
                f'CLIP weights (LANGOCC_CLIP_WEIGHTS) allow free text, for data and models made '
                f'with them')
