"""Reading values of images and dense maps at pixels, and keeping the last few in memory.

The pixel rule is the renderer's: integer coordinates are pixel centres, an image of W x H pixels
spans [-0.5, W - 0.5] x [-0.5, H - 0.5], and a map of any size covers exactly that.

:func:`sample_map` is the definition, on arrays that may lie on disk; :func:`sample_tensor_maps` is
the same on tensors of any device, to the last bit.

Legend: P pixels, C channels, M maps, (h, w) size of the map, (W, H) size of the image.
"""
from collections import OrderedDict
from typing import Any, Callable, Hashable, Tuple

import numpy as np
from torch import Tensor

Corners = Tuple[np.ndarray, np.ndarray, np.ndarray]


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


def _corners(coordinates: np.ndarray, size: int) -> Corners:
    """Lower and upper cell (P,) and weight of the upper one, clamped to the map's cells."""
    clamped = np.clip(coordinates, 0, size - 1)
    lower = np.minimum(clamped.astype(np.int64), max(size - 2, 0))
    return lower, np.minimum(lower + 1, size - 1), (clamped - lower).astype(np.float32)


def map_corners(pixels: np.ndarray,
                map_size: Tuple[int, int],
                image_size: Tuple[int, int],
                parity_half_pixel: bool = False) -> Tuple[Corners, Corners]:
    """The four cells around each pixel and their weights.

    Args:
        pixels, image_size, parity_half_pixel: See :func:`sample_map`.
        map_size: (h, w).

    Returns:
        Along x and along y: lower cell (P,), upper cell (P,), weight of the upper one (P,) float32.

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
    along_x = _corners((u + centre) * (map_size[1] / width) - 0.5, map_size[1])
    along_y = _corners((v + centre) * (map_size[0] / height) - 0.5, map_size[0])
    return along_x, along_y


def nearest_cells(pixels: np.ndarray, map_size: Tuple[int, int], image_size: Tuple[int, int]
                  ) -> Tuple[np.ndarray, np.ndarray]:
    """The cell that each pixel's centre lies in: rows (P,) and columns (P,) int64.

    Args:
        pixels, image_size: See :func:`sample_map`.
        map_size: (h, w).

    Raises:
        ValueError: a pixel outside the image or not finite.
    """
    (x0, x1, fx), (y0, y1, fy) = map_corners(pixels, map_size, image_size)
    return np.where(fy < 0.5, y0, y1), np.where(fx < 0.5, x0, x1)


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
    (x0, x1, fx), (y0, y1, fy) = map_corners(pixels, values.shape[1:], image_size,
                                             parity_half_pixel)
    top = values[:, y0, x0] * (1 - fx) + values[:, y0, x1] * fx
    bottom = values[:, y1, x0] * (1 - fx) + values[:, y1, x1] * fx
    return np.ascontiguousarray((top * (1 - fy) + bottom * fy).T, dtype=np.float32)


def _tensor_corners(coordinates: Tensor, size: int) -> Tuple[Tensor, Tensor, Tensor]:
    """As :func:`_corners`, on tensors."""
    clamped = coordinates.clamp(0, size - 1)
    lower = clamped.long().clamp(max=max(size - 2, 0))
    return lower, (lower + 1).clamp(max=size - 1), (clamped - lower).float()


def sample_tensor_maps(maps: Tensor,
                       map_ids: Tensor,
                       pixels: Tensor,
                       image_size: Tuple[int, int],
                       parity_half_pixel: bool = False) -> Tensor:
    """What :func:`sample_map` gives, of several maps at once, on the device of the maps.

    Args:
        maps: (M, C, h, w), any floating type.
        map_ids: (P,) long, the map that each pixel is looked up in.
        pixels: (P, 2) (u, v) in images that all are of one size, and inside them: whether they
            are is not looked at, which would hold up a GPU.
        image_size: (W, H) of the images.
        parity_half_pixel: see :func:`sample_map`.

    Returns:
        (P, C) float32.
    """
    width, height = image_size
    u, v = pixels.double().unbind(-1)
    centre = 0.0 if parity_half_pixel else 0.5
    x0, x1, fx = _tensor_corners((u + centre) * (maps.shape[3] / width) - 0.5, maps.shape[3])
    y0, y1, fy = _tensor_corners((v + centre) * (maps.shape[2] / height) - 0.5, maps.shape[2])
    fx, fy = fx[:, None], fy[:, None]
    top = maps[map_ids, :, y0, x0] * (1 - fx) + maps[map_ids, :, y0, x1] * fx
    bottom = maps[map_ids, :, y1, x0] * (1 - fx) + maps[map_ids, :, y1, x1] * fx
    return (top * (1 - fy) + bottom * fy).float()
