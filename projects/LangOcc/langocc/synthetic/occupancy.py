"""Occupancy labels of a key frame in Occ3D's layout, and what camera and LiDAR rays see of it.

Labels are the world's truth: every voxel of the grid at the LiDAR's time, seen or not. A voxel is
observed when a ray passes through it or ends in it. Rays end where they truly meet a surface, not
at the face of the first occupied voxel: a voxel that a solid only touches at a corner does not hide
what lies behind it, and a ray that grazes the road sees all the road's voxels on its way down.

What differs from Occ3D-nuScenes: labels come from the world and not from sweeps accumulated over
the scene, so there are no holes and no trails behind movers; ``mask_lidar`` is of this one sweep
and not of all sweeps of the scene; ``mask_camera`` is cast from the pixels of the six images, each
at its own time and pose, and not from voxels to cameras. All three make the masks stricter.

Legend: (X, Y, Z) grid, R rays, V voxels. Metres, key ego frame unless said otherwise.
"""
from dataclasses import dataclass
from typing import Tuple

import numba
import numpy as np

from ..occ3d import OCC3D_RANGE

GRID_SHAPE = (200, 200, 16)
VOXEL_SIZE = 0.4
# A square lattice of rays meets every ball of the voxel's size if it is no wider than this.
_RAY_SPACING = VOXEL_SIZE / np.sqrt(2)
_DENSE_UP_TO = 40.


@dataclass(frozen=True)
class GridSpec:
    """A voxel grid.

    Attributes:
        low: (3,) lowest corner.
        shape: cells along x, y, z.
        voxel_size: edge length.
    """
    low: Tuple[float, float, float] = OCC3D_RANGE[:3]
    shape: Tuple[int, int, int] = GRID_SHAPE
    voxel_size: float = VOXEL_SIZE

    def centers(self) -> np.ndarray:
        """(X * Y * Z, 3) float64 centres of all voxels, z fastest."""
        axes = [low + (np.arange(size) + 0.5) * self.voxel_size
                for low, size in zip(self.low, self.shape)]
        return np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, 3)

    def indices(self, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Cells (P, 3) int64 of points (P, 3), and which points (P,) are inside the grid."""
        cells = np.floor((points - np.array(self.low)) / self.voxel_size).astype(np.int64)
        return cells, ((cells >= 0) & (cells < self.shape)).all(axis=1)


def label_voxels(snapshot, ego2global: np.ndarray, grid: GridSpec = GridSpec()) -> np.ndarray:
    """Class of every voxel.

    The world asks about cubes along its own axes, the grid is turned with the car: at borders a
    label may be off. 0.1 to 0.6 % of the points that rays hit lie in voxels labelled free by that.

    Args:
        snapshot: a world at the LiDAR's time, with ``occupancy``.
        ego2global: (4, 4) key ego pose.
        grid: the grid.

    Returns:
        (X, Y, Z) uint8 Occ3D classes, 17 free.
    """
    points = grid.centers() @ ego2global[:3, :3].T + ego2global[:3, 3]
    return snapshot.occupancy(points, grid.voxel_size / 2).reshape(grid.shape).astype(np.uint8)


def pixel_stride(cam2img: np.ndarray) -> int:
    """Every how many pixels a ray is enough: no voxel nearer than 40 m slips between two.

    1 where the image is too coarse for that; the mask then holds what its pixels see, no more.
    """
    return max(1, int(_RAY_SPACING * cam2img[0, 0] / _DENSE_UP_TO))


def pixel_rays(distances: np.ndarray, cam2img: np.ndarray, cam2key: np.ndarray
               ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays of an image, thinned by :func:`pixel_stride`.

    Args:
        distances: (H, W) metres along the ray, inf = sky.
        cam2img: (3, 3).
        cam2key: (4, 4) camera at its own time -> key ego frame.

    Returns:
        Origin (3,), unit directions (R, 3), distances (R,), float64.
    """
    stride = pixel_stride(cam2img)
    height, width = distances.shape
    u, v = np.meshgrid(np.arange(0, width, stride), np.arange(0, height, stride))
    rays = np.stack([(u - cam2img[0, 2]) / cam2img[0, 0], (v - cam2img[1, 2]) / cam2img[1, 1],
                     np.ones(u.shape)], axis=-1).reshape(-1, 3)
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return (cam2key[:3, 3], rays @ cam2key[:3, :3].T,
            distances[::stride, ::stride].reshape(-1).astype(np.float64))


def mark_observed(mask: np.ndarray, origin: np.ndarray, directions: np.ndarray,
                  distances: np.ndarray, grid: GridSpec = GridSpec()) -> None:
    """Marks with 1 every voxel that rays pass through up to and including where they end.

    Exact traversal, cell by cell (Amanatides and Woo, "A fast voxel traversal algorithm for ray
    tracing", 1987), in float64.

    Args:
        mask: (X, Y, Z) uint8, changed in place.
        origin: (3,) common origin of the rays, inside the grid or outside.
        directions: (R, 3) unit.
        distances: (R,) metres, inf = to the end of the grid.
        grid: the grid.

    Raises:
        ValueError: the mask is not of the grid's shape.
    """
    if mask.shape != grid.shape:
        raise ValueError(f'mask has shape {mask.shape}, the grid {grid.shape}')
    start = (np.asarray(origin, dtype=np.float64) - np.array(grid.low)) / grid.voxel_size
    _walk(mask, start, np.ascontiguousarray(directions, dtype=np.float64),
          np.ascontiguousarray(distances, dtype=np.float64) / grid.voxel_size)


@numba.njit(cache=True)
def _walk(mask: np.ndarray, start: np.ndarray, directions: np.ndarray, lengths: np.ndarray
          ) -> None:
    """:func:`mark_observed` in units of voxels, the grid spanning [0, shape]."""
    cell, step = np.empty(3, np.int64), np.empty(3, np.int64)
    ahead, width = np.empty(3), np.empty(3)
    for ray in range(len(directions)):
        enter, leave = 0., lengths[ray]
        for axis in range(3):
            slope = directions[ray, axis]
            if slope == 0.:
                if start[axis] < 0. or start[axis] >= mask.shape[axis]:
                    leave = -1.
                continue
            first = -start[axis] / slope
            second = (mask.shape[axis] - start[axis]) / slope
            enter, leave = max(enter, min(first, second)), min(leave, max(first, second))
        if enter > leave:
            continue
        for axis in range(3):
            slope = directions[ray, axis]
            place = int(np.floor(start[axis] + enter * slope))
            cell[axis] = min(max(place, 0), mask.shape[axis] - 1)
            step[axis] = 1 if slope > 0 else -1
            ahead[axis] = width[axis] = np.inf
            if slope != 0.:
                border = cell[axis] + (1 if slope > 0 else 0)
                ahead[axis] = (border - start[axis]) / slope
                width[axis] = abs(1. / slope)
        while True:
            mask[cell[0], cell[1], cell[2]] = 1
            axis = 0 if ahead[0] < ahead[1] else 1
            axis = axis if ahead[axis] < ahead[2] else 2
            if ahead[axis] > leave:
                break
            cell[axis] += step[axis]
            if cell[axis] < 0 or cell[axis] >= mask.shape[axis]:
                break
            ahead[axis] += width[axis]
