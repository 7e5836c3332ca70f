"""Files of a store: some hundred items each, written once and never changed.

A part is a ``.safetensors`` file (8 bytes length, JSON header, data): one uint8 tensor (h, w, R) an
item, under the item's token, and as metadata the store's fingerprint and the items' checksums. Any
safetensors reader opens it; here only the header is read and the data are mapped.

Legend: h x w cells of a map, R bytes a cell.
"""
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

import numpy as np
from safetensors.numpy import save

from .manifest import DamagedStoreError

_METADATA = 'langocc_feature_part'  # one key alone: safetensors orders several as it likes
_RESERVED = '__metadata__'
_MAX_HEADER = 1 << 28


@dataclass(frozen=True)
class Item:
    """One map in a part.

    Attributes:
        token: Its name.
        offset: Of its first byte in the file.
        height, width: h, w.
        sha256: Of its token, size and bytes; 32 bytes.
    """
    token: str
    offset: int
    height: int
    width: int
    sha256: bytes


def check_token(token: str) -> None:
    """Raise ValueError where a token cannot name an item."""
    if not isinstance(token, str) or not token or token == _RESERVED or '\0' in token:
        raise ValueError(f'token {token!r}: expected text, not empty, without NUL, other than '
                         f'{_RESERVED!r}')


def checksum(token: str, height: int, width: int, rows: np.ndarray) -> bytes:
    """SHA-256 of an item: its token, its size and its bytes."""
    digest = hashlib.sha256(f'{token}\n{height} {width}\n'.encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.digest()


def part_bytes(items: Dict[str, np.ndarray], fingerprint: str) -> bytes:
    """The content of a part.

    Args:
        items: token -> (h, w, R) uint8. Their order does not matter: safetensors sorts them.
        fingerprint: Of the store's manifest.
    """
    # safetensors would write another order of memory as it lies there
    items = {token: np.ascontiguousarray(rows) for token, rows in items.items()}
    sums = {token: checksum(token, *rows.shape[:2], rows).hex()
            for token, rows in sorted(items.items())}
    record = json.dumps(dict(store=fingerprint, sha256=sums))
    return save(items, metadata={_METADATA: record})


def read_part(path: Path, fingerprint: str, row_bytes: int) -> List[Item]:
    """The items of a part, without their bytes.

    Args:
        path: The file.
        fingerprint: Of the store's manifest.
        row_bytes: R.

    Raises:
        DamagedStoreError: the file is cut short (names the first item that is), is no part, or
            belongs to another store.
    """
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), 'little')
        header = file.read(min(length, _MAX_HEADER))
    try:
        entries = json.loads(header)
        record = json.loads(entries.pop(_RESERVED)[_METADATA])
        found = [(token, *_place(entry, row_bytes), _from_hex(record['sha256'].pop(token)))
                 for token, entry in entries.items()]
        store, left = record['store'], sorted(record['sha256'])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStoreError(f'{path}: the header is damaged or cut short ({size} bytes in all)'
                                f': {type(error).__name__} {error}') from error
    if store != fingerprint:
        raise DamagedStoreError(f'{path} belongs to store {store}, expected {fingerprint}')
    if left:
        raise DamagedStoreError(f'{path} lacks the items {left}')
    return _checked(path, size, 8 + length, sorted(found, key=lambda item: item[1]), row_bytes)


def _place(entry: dict, row_bytes: int) -> tuple:
    height, width, depth = entry['shape']
    begin, end = entry['data_offsets']
    if entry['dtype'] != 'U8' or depth != row_bytes or end - begin != height * width * depth:
        raise ValueError(f'{entry} is no map of {row_bytes} bytes a cell')
    return begin, height, width


def _from_hex(text: str) -> bytes:
    value = bytes.fromhex(text)
    if value.hex() != text:  # capitals were no damage to fromhex
        raise ValueError(f'checksum {text!r}')
    return value


def _checked(path: Path, size: int, start: int, found: List[tuple], row_bytes: int) -> List[Item]:
    """Items in the order of their bytes, which must fill the file from ``start`` on exactly."""
    items, end = [], start
    for token, begin, height, width, digest in found:
        if start + begin != end:
            raise DamagedStoreError(f'{path}: item {token} begins at byte {start + begin}, '
                                    f'expected {end}')
        end += height * width * row_bytes
        if end > size:
            raise DamagedStoreError(f'{path} is cut short: item {token} ends at byte {end}, the '
                                    f'file at {size}. Delete the file and extract again: only its '
                                    f'{len(found)} items are computed anew')
        items.append(Item(token, start + begin, height, width, digest))
    if end != size:
        raise DamagedStoreError(f'{path} has {size} bytes, expected {end}')
    return items
