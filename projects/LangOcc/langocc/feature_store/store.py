"""Reading a feature store: maps, or only the cells around asked pixels.

Files are mapped into memory (:mod:`.mapping`), so what is not asked for stays on disk. A store is
cheap to send to other processes: they map the files anew.

Legend: P pixels, E embedding, (h, w) size of a map, (W, H) size of the image, R bytes a cell.
"""
import hashlib
import mmap
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..teachers.sampling import LRUCache, map_corners
from .codec_files import codec_identity, load_codec
from .codecs import Codec
from .index import ItemIndex
from .manifest import DamagedStoreError, Manifest
from .mapping import map_file, will_need
from .parts import checksum

_VERIFY = ('manifest', 'items')
_LISTED = 5
# Bytes of an item in the header of a part: token, shape, place, checksum; sizes from 1 to 9 digits.
ITEM_OVERHEAD = 216


class FeatureStore:
    """Features of many images, by token.

    Args:
        root: Folder of the store.
        verify: 'manifest' looks at manifest, codec and the headers and sizes of all files, which
            finds what was cut short; 'items' also reads every item and compares its checksum.
        expected: Part of the manifest that must be so, for instance
            ``dict(description=dict(teacher='MaskClipTeacher'), codec=dict(type='LinearCodec'))``.
        open_parts: Files kept mapped at a time.

    Attributes:
        manifest: :class:`Manifest`.
        codec: :class:`Codec`.

    Raises:
        FileNotFoundError: no store is there.
        ValueError: the manifest is not as expected (names the keys).
        DamagedStoreError: a file or an item is damaged (names it).
    """

    def __init__(self,
                 root: Union[str, Path],
                 verify: str = 'manifest',
                 expected: Optional[Dict[str, Any]] = None,
                 open_parts: int = 128) -> None:
        if verify not in _VERIFY:
            raise ValueError(f'verify is {verify!r}, expected one of {_VERIFY}')
        if open_parts < 1:
            raise ValueError(f'open_parts is {open_parts}, expected at least 1')
        self.root = Path(root)
        self.manifest = Manifest.load(self.root)
        self.manifest.check_has(expected or {}, self.root)
        self.codec = read_codec(self.root, self.manifest)
        self._index = ItemIndex(self.root, self.manifest)
        self._maps = LRUCache(open_parts)
        self._open_parts = open_parts
        if verify == 'items':
            self.check_items()

    def __len__(self) -> int:
        return len(self._index.tokens)

    def __contains__(self, token: str) -> bool:
        return self._index.find(token) is not None

    def __getstate__(self) -> Dict[str, Any]:
        return dict(vars(self), _maps=None)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        vars(self).update(state, _maps=LRUCache(state['_open_parts']))

    @property
    def embed_dims(self) -> int:
        """E."""
        return self.codec.embed_dims

    @property
    def tokens(self) -> List[str]:
        """All tokens, sorted."""
        return [token.decode() for token in self._index.tokens.tolist()]

    @property
    def file_bytes(self) -> int:
        """Bytes of all files of items."""
        return sum(path.stat().st_size for path in self._index.paths)

    def map_size(self, token: str) -> Tuple[int, int]:
        """(h, w) of a map."""
        index = self._position(token)
        return int(self._index.heights[index]), int(self._index.widths[index])

    def rows(self, token: str) -> np.ndarray:
        """The encoded cells of a map, (h, w, R) uint8; what is not looked at stays on disk."""
        mapped, offset, (height, width) = self._place(token)
        count = height * width * self.codec.row_bytes
        return np.frombuffer(mapped, np.uint8, count, offset).reshape(height, width, -1)

    def map(self, token: str) -> Tensor:
        """A whole map, (E, h, w) float32, unit length per cell."""
        rows = self.rows(token)
        feats = self.codec.decode(torch.from_numpy(rows.reshape(-1, rows.shape[2]).copy()))
        return feats.T.reshape(-1, *rows.shape[:2]).contiguous()

    def sample(self, token: str, pixels: Union[Tensor, np.ndarray], image_size: Tuple[int, int],
               parity_half_pixel: bool = False) -> Tensor:
        """Features at pixels; only the four cells around each are read and decoded.

        The same numbers as ``sample_map(store.map(token), ...)``, normalised.

        Args:
            token: Of the image.
            pixels: (P, 2) (u, v) in the image; integer = pixel centre.
            image_size: (W, H) of the image.
            parity_half_pixel: See :func:`sample_map`.

        Returns:
            (P, E) float32, unit length (or zero).

        Raises:
            KeyError: no such token.
            ValueError: a pixel outside the image.
        """
        mapped, offset, (height, width) = self._place(token)
        (x0, x1, fx), (y0, y1, fy) = map_corners(np.asarray(pixels), (height, width), image_size,
                                                 parity_half_pixel)
        cells = np.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], 1)
        weights = np.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], 1)
        size = self.codec.row_bytes
        will_need(mapped, offset + cells * size, size)
        rows = np.frombuffer(mapped, np.uint8, height * width * size, offset).reshape(-1, size)
        feats = self.codec.blend(torch.from_numpy(rows[cells]), torch.from_numpy(weights))
        return F.normalize(feats, dim=1)

    def digest(self) -> str:
        """SHA-256 of the manifest and of every item, however they lie in files.

        From the checksums as they are recorded; :meth:`check_items` compares them with the bytes.
        """
        digest = hashlib.sha256(self.manifest.to_json().encode())
        for token, sha256 in zip(self._index.tokens, self._index.sha256):
            digest.update(token + b'\n' + sha256.tobytes())
        return digest.hexdigest()

    def damaged_items(self) -> Iterator[str]:
        """Tokens of which the bytes do not give the recorded checksum; reads everything."""
        for index, token in enumerate(self._index.tokens.tolist()):
            rows = self.rows(token.decode())
            found = checksum(token.decode(), *rows.shape[:2], rows)
            if found != self._index.sha256[index].tobytes():
                yield token.decode()

    def check_items(self) -> None:
        """Compare every item with its checksum.

        Raises:
            DamagedStoreError: naming the first altered items and their files.
        """
        bad = list(self.damaged_items())
        if bad:
            named = [self._where(self._position(token)) for token in bad[:_LISTED]]
            raise DamagedStoreError(f'{len(bad)} of {len(self)} items are altered: '
                                    + ', '.join(named) + (' ...' if len(bad) > _LISTED else '')
                                    + '. Delete the files named and extract again: only their '
                                    'items are computed anew')

    def projected_bytes(self, num_images: int, map_size: Tuple[int, int]) -> int:
        """Bytes of a store of so many images in this codec; see :func:`projected_bytes`."""
        return projected_bytes(self.codec, num_images, map_size)

    def _position(self, token: str) -> int:
        index = self._index.find(token)
        if index is None:
            raise KeyError(f'feature store {self.root} has no item {token!r} among its {len(self)}')
        return index

    def _place(self, token: str) -> Tuple[mmap.mmap, int, Tuple[int, int]]:
        """The mapped file of an item, its first byte in there, and (h, w)."""
        index, (height, width) = self._position(token), self.map_size(token)
        mapped, offset = self._mapped(int(self._index.parts[index])), self._index.offsets[index]
        end = int(offset) + height * width * self.codec.row_bytes
        if end > len(mapped):
            raise DamagedStoreError(f'{self._where(index)} is cut short: it ends at byte {end}, '
                                    f'the file at {len(mapped)}')
        return mapped, int(offset), (height, width)

    def _mapped(self, part: int) -> mmap.mmap:
        try:
            return self._maps.get(part, lambda: map_file(self._index.paths[part]))
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{self._index.paths[part]} is gone since the store was '
                                    'opened; one that is still written to must be opened anew'
                                    ) from error

    def _where(self, index: int) -> str:
        return (f'item {self._index.tokens[index].decode()} in '
                f'{self._index.paths[self._index.parts[index]]}')


def read_codec(root: Path, manifest: Manifest) -> Codec:
    """The codec of a store.

    Raises:
        DamagedStoreError: its file is missing, damaged or not the one of the manifest.
    """
    path = root / manifest.codec_name
    try:
        codec = load_codec(path)
    except (FileNotFoundError, ValueError) as error:
        raise DamagedStoreError(f'feature store {root}: {error}') from error
    if codec_identity(codec) != manifest.codec:
        raise DamagedStoreError(f'{path} was altered: it is not the codec of the manifest')
    return codec


def projected_bytes(codec: Codec, num_images: int, map_size: Tuple[int, int]) -> int:
    """Bytes of a store's files of items, with their headers (0.2 % at 28 x 50 cells).

    Args:
        codec: Of the store.
        num_images: Images.
        map_size: (h, w) of their maps.
    """
    height, width = map_size
    return num_images * (height * width * codec.row_bytes + ITEM_OVERHEAD)
