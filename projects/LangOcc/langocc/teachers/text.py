"""Text in the teacher's embedding space.

Every consumer of text (vocabularies, teachers, the reducer, queries) asks a :class:`TextEncoder`
for unit rows and does not know whether they come from a file or from a network.

Legend: K prompts, E embedding.
"""
import difflib
import json
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

PathLike = Union[str, Path]
# Unknown words that a message lists.
_MAX_LISTED = 5


def nearest_names(name: str, known: Sequence[str], count: int = 5) -> List[str]:
    """Names in ``known`` that a user who typed ``name`` may have meant, best first.

    Names that contain the word (or are contained in it) count as near, beside spelling; where there
    is none, those whose spelling resembles it a little.
    """
    name = name.lower()
    spelled = difflib.get_close_matches(name, known, n=count, cutoff=0.6)
    within = [k for k in known if name and (name in k or k in name.split())]
    near = list(dict.fromkeys([*spelled, *within]))[:count]
    return near or difflib.get_close_matches(name, known, n=count, cutoff=0.3)


class UnknownWordError(KeyError):
    """A word without an embedding; prints as a sentence (a plain KeyError prints its repr)."""

    def __str__(self) -> str:
        return str(self.args[0])


class TextEncoder(ABC):
    """Words or sentences to unit vectors; the one interface to text."""

    @property
    @abstractmethod
    def embed_dims(self) -> int:
        """E, the number of values per embedding."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts.

        Args:
            prompts: K strings.

        Returns:
            (K, E) float32, L2-normalised rows.
        """

    def embed(self, words: Union[str, Sequence[str]]) -> Tensor:
        """As :meth:`encode`, and a single string is one prompt, not a list of letters."""
        return self.encode([words] if isinstance(words, str) else list(words))

    def describe(self) -> Dict[str, Any]:
        """What makes the rows, as JSON values; kept beside rows that are stored."""
        return dict(encoder=type(self).__name__, embed_dims=self.embed_dims)


@TASK_UTILS.register_module()
class TextEmbeddings(TextEncoder):
    """Text embeddings from files, for where no text network is at hand.

    A file is an ``.npz`` of arrays (n, E), one per set of names, with a JSON file beside it that
    maps each set to its n names: ``{"cityscapes19": ["road", ...]}``. A name that occurs in
    several sets takes the first one's row, in the order of ``files`` and, in a file, of ``sets``.

    Names are compared letter by letter; those of the offline words (:mod:`.offline_text`) as that
    encoder does: 'Fire-Truck' is 'fire truck'.

    Words that no file has are embedded by the CLIP that made the rows, where its weights are on
    this machine; that it did is checked on some of the rows (:mod:`.free_text`).

    Args:
        files: One or more ``.npz`` files.
        sets: Sets to read, in this order; None reads all, in the order of the JSON file.
        names: JSON file; None takes ``<file>.json`` or else ``names.json`` beside each ``.npz``.
        free_text: Other words by CLIP: True looks for weights in LANGOCC_CLIP_WEIGHTS and in the
            Hugging Face cache, when first needed; options of :class:`ClipTextEncoder` name them;
            False knows the files' names only.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is damaged, a set is missing, numbers of names and rows differ, widths
            differ between sets, or a row is not of unit length.
    """

    def __init__(self,
                 files: Union[PathLike, Sequence[PathLike]],
                 sets: Optional[Sequence[str]] = None,
                 names: Optional[PathLike] = None,
                 free_text: Union[bool, Dict[str, Any]] = True) -> None:
        files = [files] if isinstance(files, (str, Path)) else list(files)
        if not files:
            raise ValueError('TextEmbeddings: no file given')
        self.files: Tuple[Path, ...] = tuple(Path(f) for f in files)
        self.sets: Dict[str, Tuple[str, ...]] = {}
        rows: Dict[str, np.ndarray] = {}
        for path in self.files:
            for key, words, values in _read_sets(path, sets, names):
                self.sets.setdefault(key, words)
                for word, row in zip(words, values):
                    rows.setdefault(word, row)
        missing = [s for s in sets or () if s not in self.sets]
        if missing:
            raise ValueError(f'text sets {missing} are in none of {[str(f) for f in self.files]}; '
                             f'known sets: {sorted(self.sets)}')
        widths = {row.shape[0] for row in rows.values()}
        if len(widths) != 1:
            raise ValueError(f'text embeddings of different widths {sorted(widths)} in '
                             f'{[str(f) for f in self.files]}')
        self._row_of = {word: i for i, word in enumerate(rows)}
        self._rows = torch.from_numpy(np.stack(list(rows.values())))
        self.free_text = free_text
        self._other: Optional[TextEncoder] = None
        self._offline: Optional[bool] = None

    def __getstate__(self) -> Dict[str, Any]:
        return dict(self.__dict__, _other=None)  # a copy looks for CLIP itself

    @property
    def embed_dims(self) -> int:
        """E."""
        return self._rows.shape[1]

    @property
    def words(self) -> Tuple[str, ...]:
        """All names, each once, in the order in which they are searched."""
        return tuple(self._row_of)

    def __contains__(self, word: str) -> bool:
        return self._find(word) is not None

    def _find(self, word: str) -> Optional[int]:
        """Row of a name, None for none."""
        row = self._row_of.get(word)
        if row is None:
            from .free_text import about_rows
            from .offline_text import OFFLINE_NAME, normalise_word
            if self._offline is None:
                self._offline = about_rows(self.files).get('encoder') == OFFLINE_NAME
            row = self._row_of.get(normalise_word(word)) if self._offline else None
        return row

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Rows of the given names or, with CLIP, of any text; (K, E) float32, unit length.

        Raises:
            UnknownWordError: some names are not in the files, and CLIP is not there; lists the
                nearest known of each.
        """
        found = {p: self._find(p) for p in dict.fromkeys(prompts)}
        unknown = [p for p, row in found.items() if row is None]
        if not unknown:
            return self._rows[[found[p] for p in prompts]].clone()
        rows = dict(zip(unknown, self._free_rows(unknown)))
        return torch.stack([rows[p] if p in rows else self._rows[found[p]] for p in prompts])

    def _free_rows(self, words: Sequence[str]) -> Tensor:
        """Rows of words that are in no file."""
        from .free_text import NoFreeText, clip_of_rows
        reason = 'free_text is off'
        try:
            if self.free_text and self._other is None:
                self._other = clip_of_rows(self.files, self.words, self._rows, self.free_text)
        except NoFreeText as error:
            reason = str(error)
        if self._other is not None:
            return self._other.encode(words)
        near = '; '.join(f'{word!r}: {nearest_names(word, self.words) or "none"}'
                         for word in words[:_MAX_LISTED])
        shown = ', '.join(repr(word) for word in words[:_MAX_LISTED])
        more = len(words) - _MAX_LISTED
        shown += f' and {more} more' if more > 0 else ''
        raise UnknownWordError(
            f'no text embedding for {shown} in {[str(f) for f in self.files]} '
            f'({len(self.words)} names); nearest known names: {near}. Other words: {reason}')


def _names_file(path: Path, names: Optional[PathLike]) -> Path:
    """The JSON file with the names of an ``.npz`` file."""
    candidates = [Path(names)] if names else [path.with_suffix('.json'), path.parent / 'names.json']
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f'no names for {path}: none of {[str(c) for c in candidates]} exists')


def _read_sets(path: Path, sets: Optional[Sequence[str]], names: Optional[PathLike]):
    """Yield (set, names, unit rows float32) of one file."""
    if not path.is_file():
        raise FileNotFoundError(f'text embeddings {path} do not exist')
    json_path = _names_file(path, names)
    try:
        words_of = json.loads(json_path.read_text(encoding='utf-8'))
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f'cannot read text embeddings {path} with {json_path}: {error}') from error
    for key in words_of if sets is None else [s for s in sets if s in words_of]:
        words = tuple(words_of[key])
        if key not in arrays:
            raise ValueError(f'{path} has no array {key!r} (named in {json_path}); '
                             f'it has {sorted(arrays)}')
        values = arrays[key].astype(np.float32)
        if values.ndim != 2 or len(values) != len(words):
            raise ValueError(f'{path}: {key!r} has shape {values.shape}, expected '
                             f'({len(words)}, E) for the names in {json_path}')
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        off = ~(np.abs(norms[:, 0] - 1) < 1e-2)
        if off.any():
            raise ValueError(f'{path}: row {int(off.argmax())} of {key!r} has length '
                             f'{float(norms[off.argmax(), 0]):.4g}, expected 1')
        yield key, words, values / norms
