"""Writing a feature store from many processes at once, in pieces that survive a kill.

Every process has a rank and writes files of its own only. An item is first a small file; when there
is enough for a part they become one. Both appear by renaming, so at every moment each item is there
as a whole or not at all, and what a killed process has finished is never computed again. What the
files contain does not depend on where a process was killed.

Legend: E embedding, (h, w) size of a map, R bytes a cell.
"""
import contextlib
from pathlib import Path
from typing import Any, Dict, Optional, Set, Union

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from .codec_files import codec_bytes, codec_identity
from .codecs import Codec
from .index import read_items
from .layout import finished_parts, item_path, part_path, pending_items, pending_ranks
from .manifest import MANIFEST_NAME, DamagedStoreError, Manifest
from .parts import check_token, checksum, part_bytes, read_part
from .rank_folder import RankFolder
from .store import read_codec


class FeatureWriter:
    """Adds items to a store, which it begins where there is none.

    Use it in a ``with`` block. Where the block ends well, what is left over becomes a last, smaller
    part; where it fails, single items stay, and the next writer of the rank goes on with them.

    Args:
        root: Folder of the store.
        codec: :class:`Codec`.
        description: Of the teacher; see :class:`Manifest`.
        rank: Number of this process; no two at work may have the same.
        part_bytes: Size from which on items become a part.

    Raises:
        ValueError: the store has another codec, teacher or code version (names the keys), or
            another process writes as this rank.
        DamagedStoreError: a part is damaged.
        OSError: the folder cannot be written.
    """

    def __init__(self, root: Union[str, Path], codec: Codec, description: Dict[str, Any],
                 rank: int = 0, part_bytes: int = 32 << 20) -> None:
        if not 0 <= rank < 100_000:
            raise ValueError(f'rank is {rank}, expected 0 ... 99999')
        if part_bytes < 1:
            raise ValueError(f'part_bytes is {part_bytes}, expected at least 1')
        self.root, self.codec, self.rank = Path(root), codec, rank
        self.part_bytes = part_bytes
        self.manifest = Manifest.create(description, codec_identity(codec))
        self._folder: Optional[RankFolder] = None
        self._items: Dict[str, np.ndarray] = {}  # those that are in no part yet
        self._known: Set[str] = set()
        self._next_part = self._next_item = 0

    @classmethod
    def of_store(cls, root: Union[str, Path], rank: int = 0, part_bytes: int = 32 << 20
                 ) -> 'FeatureWriter':
        """A writer for a store that is there, with its own codec and description."""
        manifest = Manifest.load(root)
        writer = cls(root, read_codec(Path(root), manifest), manifest.description, rank, part_bytes)
        writer.manifest = manifest
        return writer

    def __enter__(self) -> 'FeatureWriter':
        self._check_manifest()
        self._folder = RankFolder(self.root, self.rank)
        try:
            self._begin_store()
            self._resume()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: Optional[type], *_: Any) -> None:
        try:
            if kind is None and self._items:
                self._finish_part()
        finally:
            self._leave()

    def __contains__(self, token: str) -> bool:
        """Whether the item is there: of any rank when this writer was opened, or its own since."""
        return token in self._known

    def __len__(self) -> int:
        return len(self._known)

    def write(self, token: str, values: Union[Tensor, np.ndarray]) -> None:
        """Encode a map and keep it, at once and for good.

        Args:
            token: Name of the item.
            values: (E, h, w), any floating type and device; directions are kept.

        Raises:
            ValueError: a token that is there already or cannot be one, another shape, or values
                that are not finite.
            OSError: no space is left, or the folder cannot be written.
        """
        if self._folder is None:
            raise ValueError(f'the writer of {self.root} is closed; use it in a with block')
        check_token(token)
        if token in self:
            raise ValueError(f'feature store {self.root} has item {token!r} already')
        values = torch.as_tensor(values)
        if values.dim() != 3 or values.shape[0] != self.codec.embed_dims or not values.numel():
            raise ValueError(f'item {token}: map has shape {tuple(values.shape)}, expected '
                             f'({self.codec.embed_dims}, h, w)')
        try:
            rows = self.codec.encode(values.flatten(1).T)
        except ValueError as error:
            raise ValueError(f'item {token}: {error}') from error
        self._keep(token, rows.cpu().numpy().reshape(*values.shape[1:], -1))

    def _keep(self, token: str, rows: np.ndarray) -> None:
        content = part_bytes({token: rows}, self.manifest.fingerprint)
        self._folder.publish(content, item_path(self.root, self.rank, self._next_item))
        self._next_item += 1
        self._items[token] = rows
        self._known.add(token)
        self._finish_full_part()

    def _finish_full_part(self) -> None:
        if sum(rows.nbytes for rows in self._items.values()) >= self.part_bytes:
            self._finish_part()

    def _finish_part(self) -> None:
        """Single items become a part; a kill in between leaves some there twice, for a while."""
        content = part_bytes(self._items, self.manifest.fingerprint)
        self._folder.publish(content, part_path(self.root, self.rank, self._next_part),
                             durable=True)
        self._next_part += 1
        self._items = {}
        for _, path in pending_items(self.root, self.rank):
            path.unlink()

    def _check_manifest(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            Manifest.load(self.root).check_same(self.manifest, self.root)

    def _begin_store(self) -> None:
        """Codec first, then the manifest, which only one process can create."""
        path = self.root / MANIFEST_NAME
        if not path.exists():
            self._folder.publish(codec_bytes(self.codec), self.root / self.manifest.codec_name,
                                 durable=True)
            self._folder.publish(self.manifest.to_json().encode(), path, durable=True,
                                 replace=False)
        self._check_manifest()
        read_codec(self.root, self.manifest)

    def _resume(self) -> None:
        """Take up what the rank had begun, and look at what all have finished."""
        own = [(number, path) for rank, number, path in finished_parts(self.root)
               if rank == self.rank]
        self._next_part = own[-1][0] + 1 if own else 0
        # A kill may have come between the last part and the removal of its single items.
        last = {item.token for _, path in own[-1:] for item in self._read(path)}
        self._items = {}
        for number, path in pending_items(self.root, self.rank):
            if self._take_up(path, last):
                self._next_item = number + 1
            else:
                path.unlink()
        self._known = {item.token for _, items in read_items(self.root, self.manifest)
                       for item in items}
        self._finish_full_part()

    def _take_up(self, path: Path, last: Set[str]) -> bool:
        """Take a single item; False where a part has it, or where a power cut damaged it."""
        try:
            item, = self._read(path)
        except DamagedStoreError:
            return False
        if item.token in last:
            return False
        rows = load_file(path)[item.token]
        if checksum(item.token, *rows.shape[:2], rows) != item.sha256:
            return False
        self._items[item.token] = rows
        return True

    def _read(self, path: Path) -> list:
        return read_part(path, self.manifest.fingerprint, self.codec.row_bytes)

    def _leave(self) -> None:
        if self._folder is not None:
            self._folder.leave()
        self._folder = None


def finish_store(root: Union[str, Path], part_bytes: int = 32 << 20) -> None:
    """Make parts of the single items that killed or failed writers have left and nobody resumed.

    Raises:
        ValueError: a writer is still at work.
    """
    for rank in pending_ranks(Path(root)):
        with FeatureWriter.of_store(root, rank, part_bytes):
            pass
