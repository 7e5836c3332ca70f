"""Files mapped into memory of which only the pages that are asked for get read.

A page fault at a time is slow and reading ahead brings what nobody wants (8 MB a fault on some
machines), so the system is told which pages come next, all of them before the first is looked at.
"""
import mmap
from pathlib import Path

import numpy as np


def map_file(path: Path) -> mmap.mmap:
    """A file, read only, without reading ahead."""
    with open(path, 'rb') as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mapped, 'madvise'):
        mapped.madvise(mmap.MADV_RANDOM)
    return mapped


def will_need(mapped: mmap.mmap, starts: np.ndarray, size: int) -> None:
    """Ask for bytes that will be looked at; returns at once.

    Args:
        mapped: Of :func:`map_file`.
        starts: (...) int64, first byte of each piece.
        size: Bytes of a piece.
    """
    if not starts.size or not hasattr(mapped, 'madvise'):
        return
    pages = np.unique(np.stack([starts, starts + size - 1]) // mmap.PAGESIZE)
    # One request for pages next to each other; a piece may be larger than a page.
    cuts = np.flatnonzero(np.diff(pages) > 1 + size // mmap.PAGESIZE)
    begins, ends = pages[np.append(0, cuts + 1)], pages[np.append(cuts, -1)] + 1
    for begin, end in zip(begins.tolist(), ends.tolist()):
        mapped.madvise(mmap.MADV_WILLNEED, begin * mmap.PAGESIZE, (end - begin) * mmap.PAGESIZE)
