"""Reading values of images and dense maps at pixels, and keeping the last few in memory.

The pixel rule is the renderer's: integer coordinates are pixel centres, an image of W x H pixels
spans [-0.5, W - 0.5] x [-0.5, H - 0.5], and a map of any size covers exactly that.

Legend: P pixels, C channels, (h, w) size of the map, (W, H) size of the image.
"""
from collections import OrderedDict
from typing import Any, Callable, Hashable, Tuple

import numpy as np


class LRUCache:
    """The last ``size`` values of a function of one key; ``size=0`` keeps nothing."""

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f'cache size {size} is negative')
        self.size = size
        self._items: 'OrderedDict[Hashable, Any]' = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """The value of ``key``, from memory or else from ``load()``."""
        if key in self._items:
            self._items.move_to_end(key)
            return self._items[key]
        value = load()
        if self.size:
            self._items[key] = value
            if len(self._items) > self.size:
                self._items.popitem(last=False)
        return value


def _corners(coordinates: np.ndarray, size: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper cell (P,) and weight of the upper one, clamped to the map's cells."""
    clamped = np.clip(coordinates, 0, size - 1)
    lower = np.minimum(clamped.astype(np.int64), max(size - 2, 0))
    return lower, np.minimum(lower + 1, size - 1), (clamped - lower).astype(np.float32)


def sample_map(values: np.ndarray,
               pixels: np.ndarray,
               image_size: Tuple[int, int],
               parity_half_pixel: bool = False) -> np.ndarray:
    """Bilinear values of a dense map at pixels of the image that it covers.

    Only the four cells around each pixel are read, so memory-mapped maps stay on disk.

    Args:
        values: (C, h, w), any number type.
        pixels: (P, 2) (u, v) in pixels of the image; integer = pixel centre.
        image_size: (W, H) of the image.
        parity_half_pixel: True reads at ``u / W * 2 - 1`` with half-pixel corners, as the published
            pipeline did: half an image pixel to the upper left of the right place.

    Returns:
        (P, C) float32. Beyond the outermost cell centres the outermost cells are continued.

    Raises:
        ValueError: a pixel outside the image or not finite.
    """
    width, height = image_size
    u, v = np.asarray(pixels, dtype=np.float64).reshape(-1, 2).T
    inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    if not inside.all():
        bad = int(np.argmin(inside))
        raise ValueError(f'pixel ({u[bad]}, {v[bad]}) lies outside the image of '
                         f'{width} x {height} pixels')
    centre = 0.0 if parity_half_pixel else 0.5
    x0, x1, fx = _corners((u + centre) * (values.shape[2] / width) - 0.5, values.shape[2])
    y0, y1, fy = _corners((v + centre) * (values.shape[1] / height) - 0.5, values.shape[1])
    top = values[:, y0, x0] * (1 - fx) + values[:, y0, x1] * fx
    bottom = values[:, y1, x0] * (1 - fx) + values[:, y1, x1] * fx
    return np.ascontiguousarray((top * (1 - fy) + bottom * fy).T, dtype=np.float32)
