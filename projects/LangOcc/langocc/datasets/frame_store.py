"""Infos of whole scenes, so that a sample finds its neighbours in time whatever subset is trained.

Serialised like mmengine's data lists: one byte array that forked workers share.
"""
import copy
import pickle
from typing import Dict, List, Sequence

import numpy as np


class FrameStore:
    """Read-only list of infos with previous/next links.

    Args:
        infos: infos with ``token``, ``prev`` and ``next`` (sample tokens, '' = none).
        serialize: keep them pickled in one array.

    Raises:
        ValueError: a token is there twice.
    """

    def __init__(self, infos: Sequence[dict], serialize: bool = True) -> None:
        index: Dict[str, int] = {}
        for i, info in enumerate(infos):
            if info['token'] in index:
                raise ValueError(f'sample {info["token"]} is twice in the infos')
            index[info['token']] = i
        self._links = {
            step: np.array([index.get(info[key], -1) for info in infos], dtype=np.int32)
            for step, key in ((-1, 'prev'), (1, 'next'))}
        self._length = len(infos)
        self._serialize = serialize
        if serialize:
            chunks = [np.frombuffer(pickle.dumps(info, protocol=4), np.uint8) for info in infos]
            self._ends = np.cumsum([len(chunk) for chunk in chunks], dtype=np.int64)
            self._bytes = np.concatenate(chunks) if chunks else np.zeros(0, np.uint8)
        else:
            self._infos: List[dict] = copy.deepcopy(list(infos))

    def __len__(self) -> int:
        return self._length

    def __deepcopy__(self, memo: dict) -> 'FrameStore':
        return self  # read-only: subsets of a data set share it

    def __getitem__(self, index: int) -> dict:
        """A copy of an info."""
        if not 0 <= index < self._length:
            raise IndexError(f'frame {index} of {self._length}')
        if not self._serialize:
            return copy.deepcopy(self._infos[index])
        start = 0 if index == 0 else self._ends[index - 1]
        return pickle.loads(memoryview(self._bytes[start:self._ends[index]]))

    def neighbour(self, index: int, offset: int) -> int:
        """Index of the frame ``offset`` key frames later; ``index`` itself outside the scene."""
        links = self._links[1 if offset > 0 else -1]
        found = index
        for _ in range(abs(offset)):
            found = int(links[found])
            if found < 0:
                return index
        return found
