"""Where every item of a store lies.

Legend: V items.
"""
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from .layout import finished_parts, pending_items, pending_ranks
from .manifest import DamagedStoreError, Manifest
from .parts import Item, read_part


class ItemIndex:
    """Where every item lies, as arrays sorted by token (17 MB for all of nuScenes).

    Attributes:
        paths: Of the files.
        tokens, parts, offsets, heights, widths, sha256: Of the items.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.paths: List[Path] = []
        found: Dict[str, Tuple[int, Item]] = {}
        for path, items in read_items(root, manifest):
            for item in items:
                other = found.setdefault(item.token, (len(self.paths), item))[1]
                if other.sha256 != item.sha256:
                    raise DamagedStoreError(
                        f'item {item.token} lies with different values in '
                        f'{self.paths[found[item.token][0]]} and {path}; delete one of them')
            self.paths.append(path)
        order = sorted(found.values(), key=lambda place: place[1].token.encode())
        self.tokens = np.array([item.token.encode() for _, item in order], dtype=np.bytes_)
        self.parts = np.array([part for part, _ in order], dtype=np.int32)
        self.offsets = np.array([item.offset for _, item in order], dtype=np.int64)
        self.heights = np.array([item.height for _, item in order], dtype=np.int32)
        self.widths = np.array([item.width for _, item in order], dtype=np.int32)
        digests = b''.join(item.sha256 for _, item in order)
        self.sha256 = np.frombuffer(digests, np.uint8).reshape(-1, 32)

    def find(self, token: str) -> Optional[int]:
        """Position of a token, None where it is not there."""
        key = np.bytes_(token.encode())
        index = int(np.searchsorted(self.tokens, key))
        return index if index < len(self.tokens) and self.tokens[index] == key else None


def read_items(root: Path, manifest: Manifest) -> List[Tuple[Path, List[Item]]]:
    """Every file with its items: finished parts, then single items that are in no part yet."""
    while True:
        # In this order: a writer at work may make a part of single items meanwhile.
        pending = [path for rank in pending_ranks(root) for _, path in pending_items(root, rank)]
        paths = [path for _, _, path in finished_parts(root)] + pending
        try:
            return [(path, read_part(path, manifest.fingerprint, manifest.codec['row_bytes']))
                    for path in paths]
        except FileNotFoundError as error:
            if not any(Path(error.filename) == path for path in pending):
                raise
