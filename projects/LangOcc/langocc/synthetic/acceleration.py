"""Which solids a ray can meet: a grid over the plane, tiles of a picture for its pixels."""
from typing import NamedTuple, Tuple

import numpy as np
from numba import njit

from .casting import GridArrays
from .solids import Solids

CELL = 4.  # metres
TILE = 8   # pixels
_NEAR = 0.05
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


class Tiles(NamedTuple):
    """Solids in each tile of a picture, nearest first.

    Attributes:
        starts: (T + 1,) int64 into items; tiles in row order.
        items: numbers of solids.
        nearest: (K,) metres, no point of the solid is nearer to the camera.
        columns: tiles a row.
    """
    starts: np.ndarray
    items: np.ndarray
    nearest: np.ndarray
    columns: int


def solid_grid(lower: np.ndarray, upper: np.ndarray) -> GridArrays:
    """The grid of solids with bounding boxes ``lower`` to ``upper``, (K, 3)."""
    if not len(lower):
        return GridArrays(0., 0., CELL, 1, 1, np.zeros(2, np.int64), np.zeros(0, np.int64),
                          np.full(1, -np.inf))
    origin = lower[:, :2].min(0) - 1e-3
    first = np.floor((lower[:, :2] - origin) / CELL).astype(np.int64)
    last = np.floor((upper[:, :2] - origin) / CELL).astype(np.int64)
    columns, rows = last.max(0) + 1
    order = np.arange(len(lower))
    starts, items = _rectangle_lists(first, last, order, int(columns), int(rows))
    tops = np.full(columns * rows, -np.inf)
    np.maximum.at(tops, np.repeat(np.arange(columns * rows), np.diff(starts)), upper[items, 2])
    return GridArrays(float(origin[0]), float(origin[1]), CELL, int(columns), int(rows), starts,
                      items, tops)


def picture_tiles(solids: Solids, cam2img: np.ndarray, cam2global: np.ndarray,
                  size: Tuple[int, int]) -> Tiles:
    """The tiles of a picture of ``size`` (W, H) by a pinhole camera."""
    columns, rows = -(-size[0] // TILE), -(-size[1] // TILE)
    corners = np.einsum('kij,cj->kci', solids.from_unit[:, :, :3], _CORNERS)
    corners += solids.from_unit[:, None, :, 3] - cam2global[:3, 3]
    corners = corners @ cam2global[:3, :3]
    depths = corners[..., 2]
    before = depths.max(1) > _NEAR
    crosses = depths.min(1) <= _NEAR
    pixels = corners @ cam2img.T
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = pixels[..., :2] / depths[..., None]
    first = np.floor((pixels.min(1) - 1) / TILE)
    last = np.floor((pixels.max(1) + 1) / TILE)
    first[crosses], last[crosses] = 0, (columns, rows)
    before &= (last >= 0).all(1) & (first < (columns, rows)).all(1)
    nearest = np.maximum(depths.min(1), 0)
    chosen = np.flatnonzero(before)
    chosen = chosen[np.argsort(nearest[chosen], kind='stable')]
    first = np.clip(first[chosen], 0, (columns - 1, rows - 1)).astype(np.int64)
    last = np.clip(last[chosen], 0, (columns - 1, rows - 1)).astype(np.int64)
    starts, items = _rectangle_lists(first, last, chosen, columns, rows)
    return Tiles(starts, items, nearest, columns)


@njit(cache=True, error_model='numpy')
def _rectangle_lists(first, last, names, columns, rows):
    """For each cell in row order the names of the rectangles over it, in the order given."""
    starts = np.zeros(columns * rows + 1, np.int64)
    for turn in range(2):
        if turn == 1:
            starts = np.cumsum(starts)
            items = np.empty(starts[-1], np.int64)
            filled = starts[:-1].copy()
        for n in range(len(first)):
            for row in range(first[n, 1], last[n, 1] + 1):
                for column in range(first[n, 0], last[n, 0] + 1):
                    cell = row * columns + column
                    if turn == 0:
                        starts[cell + 1] += 1
                    else:
                        items[filled[cell]] = names[n]
                        filled[cell] += 1
    return starts, items
