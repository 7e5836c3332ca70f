"""Coloured points as PLY, which every 3D viewer opens.

Legend: P points.
"""
from pathlib import Path
from typing import Mapping, Optional, Union

import numpy as np

from ..files import atomic_write

_PLY_TYPES = {'u1': 'uchar', 'i4': 'int', 'f4': 'float', 'f8': 'double'}


def write_ply(path: Union[str, Path],
              points: np.ndarray,
              colors: Optional[np.ndarray] = None,
              values: Optional[Mapping[str, np.ndarray]] = None) -> None:
    """Writes points as binary little-endian PLY; whole or not at all.

    Args:
        path: file to write; its folder is made if absent.
        points: (P, 3) metres; stored as float32.
        colors: (P, 3) uint8 RGB.
        values: further properties by name, each (P,): uint8 and int32 keep their type, whatever
            else is stored as float32.

    Raises:
        ValueError: shapes do not fit, or a name is no single word.
    """
    path, points = Path(path), np.asarray(points)
    columns = _columns(path, points, colors, values or {})
    vertices = np.empty(len(points), dtype=[(n, c.dtype.newbyteorder('<')) for n, c in columns])
    for name, column in columns:
        vertices[name] = column
    header = ['ply', 'format binary_little_endian 1.0', f'element vertex {len(points)}']
    header += [f'property {_PLY_TYPES[column.dtype.str[1:]]} {name}' for name, column in columns]
    with atomic_write(path) as temporary:
        content = ('\n'.join(header) + '\nend_header\n').encode('ascii')
        temporary.write_bytes(content + vertices.tobytes())


def _columns(path: Path, points: np.ndarray, colors: Optional[np.ndarray],
             values: Mapping[str, np.ndarray]) -> list:
    """(name, column) of every property, checked, in file order."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f'{path}: points must be (P, 3), got {points.shape}')
    columns = [(name, points[:, i].astype(np.float32)) for i, name in enumerate('xyz')]
    if colors is not None:
        colors = np.asarray(colors)
        if colors.shape != points.shape or colors.dtype != np.uint8:
            raise ValueError(f'{path}: colors must be {points.shape} uint8, got {colors.shape} '
                             f'{colors.dtype}')
        columns += [(name, colors[:, i]) for i, name in enumerate(('red', 'green', 'blue'))]
    taken = {name for name, _ in columns}
    for name, value in values.items():
        value = np.asarray(value)
        if value.shape != (len(points), ):
            raise ValueError(f"{path}: values['{name}'] must be ({len(points)},), got "
                             f'{value.shape}')
        if name in taken or len(name.split()) != 1 or not name.isascii():
            raise ValueError(f"{path}: '{name}' must be one new ASCII word, not of {taken}")
        keep = value.dtype in (np.uint8, np.int32)
        columns.append((name, value if keep else value.astype(np.float32)))
    return columns
