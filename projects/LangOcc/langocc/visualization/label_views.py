"""What cameras see of voxel labels: rays cast through occupancy, true or predicted.

Nothing is rendered or learned here: a ray goes from voxel to voxel and stops at the first occupied
one. That is the truth that rendered pictures are held against, and all that can be shown of a model
that predicts occupancy without a density field.

Legend: R rays; X, Y, Z cells; h, w rows and columns of a camera's map.
"""
from typing import Mapping, NamedTuple, Optional, Sequence

import numpy as np
from torch import Tensor

from voxelrender import VoxelGrid

from ..occ3d import FREE_CLASS
from .camera_maps import CameraMaps, RigMaps, camera_rays


class VolumeHits(NamedTuple):
    """Where rays meet the first occupied voxel.

    Attributes:
        distances: (R,) float64, metres to the point of entry, 0 for a ray that starts inside an
            occupied voxel; inf where a ray meets none.
        cells: (R, 3) int64, the voxel's x, y, z index; -1 where a ray meets none.
    """
    distances: np.ndarray
    cells: np.ndarray


def label_camera_views(semantics: np.ndarray, grid: VoxelGrid, info: Mapping, width: int = 200,
                       max_distance: float = 40., ego_key: str = 'ego2global',
                       bev_aug_matrix: Optional[Tensor] = None) -> RigMaps:
    """Distance and class of the first occupied voxel along the ray of every pixel.

    Args:
        semantics: (X, Y, Z) Occ3D classes, 17 = free; labels, or predicted occupancy.
        grid: of ``semantics``.
        info: a sample's info or the metainfo of its data sample.
        width: columns of a map.
        max_distance: metres; what is farther away is not seen.
        ego_key: key of the pose that ``semantics`` are in: ``'ego2global'``, the labels', or
            ``'key_ego2global'``, the volume's. They differ for ``key_ego='first_camera'`` alone.
        bev_aug_matrix: (4, 4) ego -> augmented ego, where ``semantics`` are augmented.

    Returns:
        Camera -> maps; opacities are 0 or 1.

    Raises:
        ValueError: ``semantics`` have not the grid's shape.
    """
    views = {}
    for camera in info['camera_names']:
        rays, shape = camera_rays(info, camera, width, ego_key)
        rays = rays if bev_aug_matrix is None else rays.transformed(bev_aug_matrix)
        hits = cast_rays(semantics != FREE_CLASS, grid, rays.origins.numpy(),
                         rays.directions.numpy(), max_distance)
        met = np.isfinite(hits.distances)
        classes = np.where(met, semantics[tuple(hits.cells.T)], FREE_CLASS).astype(np.uint8)
        distances = np.where(met, hits.distances, np.nan).astype(np.float32)
        views[camera] = CameraMaps(distances.reshape(shape),
                                   met.astype(np.float32).reshape(shape), classes.reshape(shape))
    return views


def cast_rays(occupied: np.ndarray, grid: VoxelGrid, origins: np.ndarray, directions: np.ndarray,
              max_distance: float = np.inf) -> VolumeHits:
    """First occupied voxel along each ray, by exact traversal from voxel to voxel.

    All rays step at once (Amanatides and Woo, 1987); those that have met something, left the grid
    or gone far enough drop out. The distance of a face is computed from the face, not summed up,
    so that it is exact to rounding however far a ray goes.

    Args:
        occupied: (X, Y, Z) bool.
        grid: its frame is that of the rays.
        origins: (R, 3) metres, inside or outside the grid.
        directions: (R, 3) unit.
        max_distance: metres; voxels entered later are not met.

    Returns:
        The hits.

    Raises:
        ValueError: shapes do not fit.
    """
    if tuple(occupied.shape) != tuple(grid.grid_shape):
        raise ValueError(f'occupancy has shape {tuple(occupied.shape)}, the grid '
                         f'{tuple(grid.grid_shape)}')
    if np.ndim(origins) != 2 or np.shape(origins) != np.shape(directions) or \
            np.shape(origins)[1] != 3:
        raise ValueError(f'origins and directions must be (R, 3), got {np.shape(origins)} and '
                         f'{np.shape(directions)}')
    size, shape = np.array(grid.voxel_size), np.array(grid.grid_shape)
    # In cells: the t of a ray stays in metres.
    starts = (np.asarray(origins, np.float64) - np.array(grid.point_cloud_range[:3])) / size
    slopes = np.asarray(directions, np.float64) / size
    found = VolumeHits(np.full(len(starts), np.inf), np.full((len(starts), 3), -1))
    with np.errstate(divide='ignore', invalid='ignore'):
        inverse = 1 / slopes
    ids, cells, entered = _enter(starts, inverse, slopes, shape, max_distance)
    flat = np.ascontiguousarray(occupied, bool).reshape(-1)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    steps, starts, inverse = np.sign(slopes[ids]).astype(np.int64), starts[ids], inverse[ids]
    while len(ids):
        hit = flat[cells @ strides]
        found.distances[ids[hit]], found.cells[ids[hit]] = entered[hit], cells[hit]
        exits = _exits(cells, steps, starts, inverse)
        axes = exits.argmin(1)
        rows = np.arange(len(ids))
        entered = exits[rows, axes]
        moved = cells[rows, axes] + steps[rows, axes]
        cells[rows, axes] = moved
        going = ~hit & (moved >= 0) & (moved < shape[axes]) & (entered <= max_distance)
        ids, cells, entered = ids[going], cells[going], entered[going]
        steps, starts, inverse = steps[going], starts[going], inverse[going]
    return found


def _enter(starts: np.ndarray, inverse: np.ndarray, slopes: np.ndarray, shape: Sequence[int],
           max_distance: float):
    """Rays that enter the grid: ids (M,), first cells (M, 3) and distances (M,) of entry."""
    with np.errstate(invalid='ignore'):
        low, high = -starts * inverse, (shape - starts) * inverse
    # A ray along a face's plane (0 times inf) is in that slab for all t, if it is in it at all.
    still = slopes == 0
    within = (starts >= 0) & (starts < shape)
    nears = np.where(still, np.where(within, -np.inf, np.inf), np.minimum(low, high))
    fars = np.where(still, np.where(within, np.inf, -np.inf), np.maximum(low, high))
    near, far = np.maximum(nears.max(1), 0.), fars.min(1)
    ids = np.flatnonzero((near < far) & (near <= max_distance))
    cells = np.floor(starts[ids] + near[ids, None] * slopes[ids]).astype(np.int64)
    cells = np.clip(cells, 0, shape - 1)  # rounding where it enters through a face
    return ids, cells, near[ids]


def _exits(cells: np.ndarray, steps: np.ndarray, starts: np.ndarray, inverse: np.ndarray
           ) -> np.ndarray:
    """(M, 3) distances at which rays leave their cells along each axis."""
    with np.errstate(invalid='ignore'):
        return np.where(steps == 0, np.inf, (cells + (steps > 0) - starts) * inverse)
