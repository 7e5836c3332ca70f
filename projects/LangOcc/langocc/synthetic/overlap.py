"""Which voxels solids reach into, compiled.

P: points (voxel centres), K: solids. Metres, world frame.
"""
import numpy as np
from numba import njit

_TURNS = 4       # alternating projections
_SLACK = 0.01    # metres


@njit(cache=True, error_model='numpy')
def solids_in_voxels(solids, from_unit, half_sizes, grid, points, half):
    """(P,) int64 number of the last solid that reaches into each voxel; -1 for none.

    A voxel is the cube of half edge ``half`` about a point. Whether it and a solid (both convex)
    meet is found by projecting onto one and the other in turn, to about a centimetre.
    """
    found = np.full(len(points), -1, np.int64)
    for p in range(len(points)):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        low_column = int(np.floor((x - half - grid.x0) / grid.cell))
        high_column = int(np.floor((x + half - grid.x0) / grid.cell))
        low_row = int(np.floor((y - half - grid.y0) / grid.cell))
        high_row = int(np.floor((y + half - grid.y0) / grid.cell))
        for row in range(max(low_row, 0), min(high_row, grid.rows - 1) + 1):
            for column in range(max(low_column, 0), min(high_column, grid.columns - 1) + 1):
                cell = row * grid.columns + column
                if z - half > grid.tops[cell]:
                    continue
                for item in range(grid.starts[cell], grid.starts[cell + 1]):
                    k = grid.items[item]
                    if (k > found[p] and solids.lower[k, 0] <= x + half
                            and solids.upper[k, 0] >= x - half and solids.lower[k, 1] <= y + half
                            and solids.upper[k, 1] >= y - half and solids.lower[k, 2] <= z + half
                            and solids.upper[k, 2] >= z - half
                            and _meets(solids, from_unit[k], half_sizes[k], k, x, y, z, half)):
                        found[p] = k
    return found


@njit(cache=True, error_model='numpy')
def _meets(solids, unit, sizes, k, x, y, z, half):
    """Solid k reaches into the cube about (x, y, z)."""
    m, a, b = solids.to_unit[k], solids.tapers[k, 0] / 2, solids.tapers[k, 1] / 2
    px, py, pz = x, y, z
    for turn in range(_TURNS):
        ux = m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]
        uy = m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]
        uz = m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3]
        vx, vy, vz = _nearest(solids.kinds[k], sizes, a, b, ux, uy, uz)
        if vx == ux and vy == uy and vz == uz:
            return True
        qx = unit[0, 0] * vx + unit[0, 1] * vy + unit[0, 2] * vz + unit[0, 3]
        qy = unit[1, 0] * vx + unit[1, 1] * vy + unit[1, 2] * vz + unit[1, 3]
        qz = unit[2, 0] * vx + unit[2, 1] * vy + unit[2, 2] * vz + unit[2, 3]
        gap = max(abs(qx - x), abs(qy - y), abs(qz - z))
        if gap <= half + _SLACK:
            return True
        px = min(max(qx, x - half), x + half)
        py = min(max(qy, y - half), y + half)
        pz = min(max(qz, z - half), z + half)
    return False


@njit(cache=True, error_model='numpy')
def _nearest(kind, sizes, a, b, x, y, z):
    """A point of the unit solid near (x, y, z): the point itself where it lies inside."""
    if kind == 2:
        radius = np.sqrt(x * x + y * y + z * z)
        shrink = 1 / radius if radius > 1 else 1.
        return x * shrink, y * shrink, z * shrink
    z = min(max(z, -1.), 1.)
    if kind == 1:
        rim, radius = 1 - a - a * z, np.sqrt(x * x + y * y)
        shrink = rim / radius if radius > rim else 1.
        return x * shrink, y * shrink, z
    limit_x, limit_y = 1 - a - a * z, 1 - b - b * z
    return min(max(x, -limit_x), limit_x), min(max(y, -limit_y), limit_y), z
