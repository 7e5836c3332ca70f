"""Casting rays through voxels, against a loop over all voxels in float64."""
import numpy as np
import pytest

from langocc.visualization import cast_rays
from voxelrender import VoxelGrid


def naive_cast(occupied, grid, origin, direction, max_distance):
    """Distance and cell of the occupied box that one ray enters first: every box is tried."""
    low, size = np.array(grid.point_cloud_range[:3]), np.array(grid.voxel_size)
    best = (np.inf, (-1, -1, -1))
    for cell in np.argwhere(occupied):
        near, far = 0., np.inf
        for axis in range(3):
            first = low[axis] + cell[axis] * size[axis]
            bounds = (first, first + size[axis])
            if direction[axis] == 0:
                if not bounds[0] <= origin[axis] < bounds[1]:
                    near = np.inf
                continue
            times = sorted((bound - origin[axis]) / direction[axis] for bound in bounds)
            near, far = max(near, times[0]), min(far, times[1])
        if near < far and near <= max_distance and near < best[0]:
            best = (near, tuple(cell))
    return best


@pytest.mark.parametrize('seed, density, max_distance', [(0, 0.06, np.inf), (1, 0.4, np.inf),
                                                         (2, 0.1, 5.)])
def test_traversal_is_the_loop_over_all_voxels(seed, density, max_distance):
    grid = VoxelGrid(point_cloud_range=(-4., -3., -1., 4., 3., 2.), voxel_size=(0.5, 0.75, 1.))
    rng = np.random.default_rng(seed)
    occupied = rng.random(grid.grid_shape) < density
    origins = rng.uniform((-7, -6, -4), (7, 6, 5), (300, 3))  # inside and outside
    directions = rng.normal(size=(300, 3))
    directions[:20, 0], directions[20:40, 1], directions[30:50, 2] = 0., 0., 0.  # along planes
    directions[60:100] = -origins[60:100] + rng.normal(size=(40, 3)) * 0.3  # towards the grid
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    hits = cast_rays(occupied, grid, origins, directions, max_distance)
    expected = [naive_cast(occupied, grid, *ray, max_distance)
                for ray in zip(origins, directions)]
    distances = np.array([distance for distance, _ in expected])
    assert 20 < np.isfinite(distances).sum() < 300
    np.testing.assert_allclose(hits.distances, distances, rtol=1e-12, atol=1e-12)
    assert hits.cells.tolist() == [list(cell) for _, cell in expected]
