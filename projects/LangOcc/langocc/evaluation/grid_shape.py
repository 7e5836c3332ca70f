"""The grid that metrics count in. Metres, key ego frame."""
from typing import Sequence, Tuple

import numpy as np

VOXEL_SIZE = 0.4  # of Occ3D-nuScenes


def grid_shape(point_cloud_range: Sequence[float], voxel_size: float) -> Tuple[int, int, int]:
    """(X, Y, Z) cells of a range.

    Args:
        point_cloud_range: x0, y0, z0, x1, y1, z1 in metres.
        voxel_size: edge of the cubic cells, metres.

    Raises:
        ValueError: the range is no whole, positive number of cells along an axis.
    """
    low, high = np.reshape(np.asarray(point_cloud_range, dtype=np.float64), (2, 3))
    cells = (high - low) / voxel_size
    if (np.round(cells) < 1).any() or not np.allclose(cells, np.round(cells)):
        raise ValueError(f'point_cloud_range {list(point_cloud_range)} is not a whole number of '
                         f'cells of {voxel_size:g} m: {cells.tolist()}')
    return tuple(np.round(cells).astype(int).tolist())
