"""Compiled ray casting: nearest solid or ground along each ray, shadows, normals.

numba's cache of a compiled function looks at that function's file alone. Compiled functions of this
package therefore never call into another file: an edit cannot leave a stale binary behind.

R: rays, K: solids, C: cells, T: tiles. Metres, world frame. A ray hits a solid where it enters it:
rays that start inside a solid do not see it. Index of what a ray meets: a solid's number, GROUND or
NOTHING.
"""
from typing import NamedTuple

import numpy as np
from numba import njit

GROUND, NOTHING = -2, -1
FAR = 400.  # metres; rays end there
_STEP, _STEP_GROWTH = 0.12, 0.008  # smallest step along the ground, m, and its growth per metre
# What steps reckon with: no slope above the first, and but for a kerb of so many metres (the last)
# none above the second.
_STEEPEST, _STEEP, _KERB = 0.6, 0.25, 0.15


class SolidArrays(NamedTuple):
    """What casting needs of ``Solids``."""
    kinds: np.ndarray     # (K,) int64
    to_unit: np.ndarray   # (K, 3, 4)
    tapers: np.ndarray    # (K, 2)
    lower: np.ndarray     # (K, 3) bounding boxes
    upper: np.ndarray     # (K, 3)


class GridArrays(NamedTuple):
    """Cells of the plane with the solids above them, rows along y."""
    x0: float
    y0: float
    cell: float
    columns: int
    rows: int
    starts: np.ndarray    # (C + 1,) int64 into items
    items: np.ndarray     # int64, numbers of solids, ascending within a cell
    tops: np.ndarray      # (C,) highest point of the cell's solids


class GroundArrays(NamedTuple):
    """Heights at the nodes of a square raster, bilinear between, constant beyond."""
    heights: np.ndarray   # (rows, columns) float32
    x0: float
    y0: float
    cell: float
    top: float            # highest of the heights


@njit(cache=True, error_model='numpy')
def cast_rays(solids, grid, ground, origins, directions):
    """Nearest hit of each ray through the grid: distances (R,), inf for nothing, and indices."""
    count = len(origins)
    distances, indices = np.empty(count), np.empty(count, np.int64)
    for ray in range(count):
        o = (origins[ray, 0], origins[ray, 1], origins[ray, 2])
        d = (directions[ray, 0], directions[ray, 1], directions[ray, 2])
        t, index = _through_grid(solids, grid, o, d, FAR, False)
        distances[ray], indices[ray] = _or_ground(ground, o, d, t, index)
    return distances, indices


@njit(cache=True, error_model='numpy')
def cast_pixels(solids, ground, starts, items, nearest, origin, directions, tiles):
    """``cast_rays`` for rays from one point, each with the solids of its tile.

    Args:
        starts: (T + 1,), items: numbers of solids of each tile, in order of ``nearest``.
        nearest: (K,) a lower bound of the distance from origin to the solid.
        origin: (3,).
        directions: (R, 3).
        tiles: (R,) of each ray.
    """
    count = len(directions)
    distances, indices = np.empty(count), np.empty(count, np.int64)
    o = (origin[0], origin[1], origin[2])
    units, centers, radii = _seen_from(solids, o)
    for ray in range(count):
        d = (directions[ray, 0], directions[ray, 1], directions[ray, 2])
        best, index = FAR, NOTHING
        for item in range(starts[tiles[ray]], starts[tiles[ray] + 1]):
            k = items[item]
            if nearest[k] > best:
                break
            along = centers[k, 0] * d[0] + centers[k, 1] * d[1] + centers[k, 2] * d[2]
            if centers[k, 3] - along * along > radii[k]:
                continue
            m = solids.to_unit[k]
            dx = m[0, 0] * d[0] + m[0, 1] * d[1] + m[0, 2] * d[2]
            dy = m[1, 0] * d[0] + m[1, 1] * d[1] + m[1, 2] * d[2]
            dz = m[2, 0] * d[0] + m[2, 1] * d[1] + m[2, 2] * d[2]
            t = _enter_unit(solids.kinds[k], solids.tapers[k, 0] / 2, solids.tapers[k, 1] / 2,
                            units[k, 0], units[k, 1], units[k, 2], dx, dy, dz)
            if t < best or (t == best and k < index):
                best, index = t, k
        distances[ray], indices[ray] = _or_ground(ground, o, d, best, index)
    return distances, indices


@njit(cache=True, error_model='numpy')
def in_shadow(solids, grid, points, direction, reach):
    """(R,) bool: a solid lies within ``reach`` metres of the points along ``direction``."""
    dark = np.zeros(len(points), np.bool_)
    d = (direction[0], direction[1], direction[2])
    for ray in range(len(points)):
        o = (points[ray, 0], points[ray, 1], points[ray, 2])
        dark[ray] = _through_grid(solids, grid, o, d, reach, True)[1] != NOTHING
    return dark


@njit(cache=True, error_model='numpy')
def hit_normals(solids, ground, points, indices):
    """Unit normals (R, 3) at hits; zero where nothing was hit."""
    normals = np.zeros((len(points), 3))
    for ray in range(len(points)):
        k = indices[ray]
        if k == GROUND:
            x, y, step = points[ray, 0], points[ray, 1], ground.cell
            nx = _height(ground, x - step, y) - _height(ground, x + step, y)
            ny = _height(ground, x, y - step) - _height(ground, x, y + step)
            nz = 2 * step
        elif k >= 0:
            ux, uy, uz = _unit_normal(solids, k, points[ray, 0], points[ray, 1], points[ray, 2])
            m = solids.to_unit[k]
            nx = ux * m[0, 0] + uy * m[1, 0] + uz * m[2, 0]
            ny = ux * m[0, 1] + uy * m[1, 1] + uz * m[2, 1]
            nz = ux * m[0, 2] + uy * m[1, 2] + uz * m[2, 2]
        else:
            continue
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        normals[ray, 0], normals[ray, 1], normals[ray, 2] = nx / length, ny / length, nz / length
    return normals


@njit(cache=True, error_model='numpy')
def ground_heights(ground, points):
    """Height of the ground (P,) below or above points (P, 2 or more)."""
    heights = np.empty(len(points))
    for p in range(len(points)):
        heights[p] = _height(ground, points[p, 0], points[p, 1])
    return heights


@njit(cache=True, error_model='numpy')
def _enter(solids, k, o, d):
    """Distance at which the ray enters solid k; inf where it does not."""
    m = solids.to_unit[k]
    ox = m[0, 0] * o[0] + m[0, 1] * o[1] + m[0, 2] * o[2] + m[0, 3]
    oy = m[1, 0] * o[0] + m[1, 1] * o[1] + m[1, 2] * o[2] + m[1, 3]
    oz = m[2, 0] * o[0] + m[2, 1] * o[1] + m[2, 2] * o[2] + m[2, 3]
    dx = m[0, 0] * d[0] + m[0, 1] * d[1] + m[0, 2] * d[2]
    dy = m[1, 0] * d[0] + m[1, 1] * d[1] + m[1, 2] * d[2]
    dz = m[2, 0] * d[0] + m[2, 1] * d[1] + m[2, 2] * d[2]
    return _enter_unit(solids.kinds[k], solids.tapers[k, 0] / 2, solids.tapers[k, 1] / 2,
                       ox, oy, oz, dx, dy, dz)


@njit(cache=True, error_model='numpy')
def _enter_unit(kind, a, b, ox, oy, oz, dx, dy, dz):
    """``_enter`` in the unit space of a solid with half tapers a, b."""
    if kind == 0:
        return _enter_box(a, b, ox, oy, oz, dx, dy, dz)
    if kind == 1:
        return _enter_cylinder(a, ox, oy, oz, dx, dy, dz)
    qa, qb = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz
    root = qb * qb - qa * (ox * ox + oy * oy + oz * oz - 1)
    t = (-qb - np.sqrt(root)) / qa if root >= 0 else np.inf
    return t if t > 0 else np.inf


@njit(cache=True, error_model='numpy')
def _seen_from(solids, o):
    """What rays from one point share: o in the unit space of each solid (K, 3), and spheres around
    the solids' boxes, centres relative to o with their squared length (K, 4) and squared radii (K,)
    a little too large: a ray that misses the sphere misses the solid."""
    count = len(solids.kinds)
    units, centers, radii = np.empty((count, 3)), np.zeros((count, 4)), np.zeros(count)
    for k in range(count):
        m = solids.to_unit[k]
        for axis in range(3):
            units[k, axis] = (m[axis, 0] * o[0] + m[axis, 1] * o[1] + m[axis, 2] * o[2]
                              + m[axis, 3])
            low, high = solids.lower[k, axis], solids.upper[k, axis]
            centers[k, axis] = (low + high) / 2 - o[axis]
            centers[k, 3] += centers[k, axis]**2
            radii[k] += ((high - low) / 2)**2
        radii[k] += 1e-6 * (1 + centers[k, 3])
    return units, centers, radii


@njit(cache=True, error_model='numpy')
def _enter_box(a, b, ox, oy, oz, dx, dy, dz):
    """Entry into the unit box with half tapers a, b: six half-spaces clip the ray in turn."""
    near, far = 0., np.inf
    for face in range(6):
        if face == 0:
            out, speed = oz - 1, dz
        elif face == 1:
            out, speed = -oz - 1, -dz
        elif face == 2:
            out, speed = ox + a * oz - 1 + a, dx + a * dz
        elif face == 3:
            out, speed = -ox + a * oz - 1 + a, -dx + a * dz
        elif face == 4:
            out, speed = oy + b * oz - 1 + b, dy + b * dz
        else:
            out, speed = -oy + b * oz - 1 + b, -dy + b * dz
        if out > 0:
            if speed >= 0:
                return np.inf
            near = max(near, -out / speed)
        elif speed > 0:
            far = min(far, -out / speed)
    return near if 0 < near <= far else np.inf


@njit(cache=True, error_model='numpy')
def _enter_cylinder(a, ox, oy, oz, dx, dy, dz):
    """Entry into the unit cylinder with half taper a: the first front face hit within its rim."""
    best = np.inf
    if oz * dz < 0 and abs(oz) > 1:
        side = 1. if oz > 0 else -1.
        t = (side - oz) / dz
        x, y, rim = ox + t * dx, oy + t * dy, 1 - a - a * side
        if x * x + y * y <= rim * rim:
            best = t
    radius, shrink = 1 - a - a * oz, -a * dz
    qa = dx * dx + dy * dy - shrink * shrink
    qb = ox * dx + oy * dy - radius * shrink
    qc = ox * ox + oy * oy - radius * radius
    root = qb * qb - qa * qc
    if root < 0 or qa == 0:
        return best
    root = np.sqrt(root)
    for sign in (-1., 1.):
        t = (-qb + sign * root) / qa
        z = oz + t * dz
        slope = qa * t + qb  # half the rate at which the ray leaves the mantle
        if 0 < t < best and -1 <= z <= 1 and slope < 0:
            best = t
    return best


@njit(cache=True, error_model='numpy')
def _unit_normal(solids, k, x, y, z):
    """Outward normal in unit space of solid k's face next to a world point on its surface."""
    m, a, b = solids.to_unit[k], solids.tapers[k, 0] / 2, solids.tapers[k, 1] / 2
    ux = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    uy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    uz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
    if solids.kinds[k] == 2:
        return ux, uy, uz
    side = 1. if uz > 0 else -1.
    gap_z = 1 - abs(uz)
    if solids.kinds[k] == 1:
        radius = 1 - a - a * uz
        if gap_z <= abs(radius - np.sqrt(ux * ux + uy * uy)):
            return 0., 0., side
        return ux, uy, a * radius
    gap_x, gap_y = abs(1 - a - a * uz - abs(ux)), abs(1 - b - b * uz - abs(uy))
    if gap_z <= min(gap_x, gap_y):
        return 0., 0., side
    if gap_x <= gap_y:
        return (1. if ux > 0 else -1.), 0., a
    return 0., (1. if uy > 0 else -1.), b


@njit(cache=True, error_model='numpy')
def _through_grid(solids, grid, o, d, reach, any_hit):
    """Nearest (or any) solid within ``reach``; cells are visited in the ray's order."""
    best, index = reach, NOTHING
    near, far = _over_grid(grid, o, d, reach)
    if near > far:
        return best, index
    x, y = (o[0] + near * d[0] - grid.x0) / grid.cell, (o[1] + near * d[1] - grid.y0) / grid.cell
    column = min(max(int(np.floor(x)), 0), grid.columns - 1)
    row = min(max(int(np.floor(y)), 0), grid.rows - 1)
    step_x, next_x, pace_x = _axis(x, column, d[0] / grid.cell, near)
    step_y, next_y, pace_y = _axis(y, row, d[1] / grid.cell, near)
    while True:
        leave = min(next_x, next_y)
        cell = row * grid.columns + column
        if min(o[2] + near * d[2], o[2] + min(leave, far) * d[2]) <= grid.tops[cell]:
            for item in range(grid.starts[cell], grid.starts[cell + 1]):
                k = grid.items[item]
                t = _enter(solids, k, o, d)
                if t < best or (t == best and k < index):
                    best, index = t, k
                    if any_hit:
                        return best, index
        if best <= leave or leave >= far:
            return best, index
        near = leave
        if next_x < next_y:
            column, next_x = column + step_x, next_x + pace_x
        else:
            row, next_y = row + step_y, next_y + pace_y
        if column < 0 or row < 0 or column >= grid.columns or row >= grid.rows:
            return best, index


@njit(cache=True, error_model='numpy')
def _over_grid(grid, o, d, reach):
    """Distances between which the ray is above the grid's rectangle; near > far where never."""
    near, far = 0., reach
    for axis in range(2):
        start = grid.x0 if axis == 0 else grid.y0
        cells = grid.columns if axis == 0 else grid.rows
        low, high = start - o[axis], start + cells * grid.cell - o[axis]
        if abs(d[axis]) < 1e-12:
            if low > 0 or high < 0:
                return 1., 0.
        else:
            first, last = low / d[axis], high / d[axis]
            near, far = max(near, min(first, last)), min(far, max(first, last))
    return near, far


@njit(cache=True, error_model='numpy')
def _axis(position, cell, speed, near):
    """Step (+-1), distance at which the ray leaves the cell, distance between cell borders."""
    if abs(speed) < 1e-14:
        return 1, np.inf, np.inf
    step = 1 if speed > 0 else -1
    border = cell + 1 if speed > 0 else cell
    return step, near + (border - position) / speed, 1 / abs(speed)


@njit(cache=True, error_model='numpy')
def _height(ground, x, y):
    """Bilinear height of the ground at (x, y)."""
    rows, columns = ground.heights.shape
    u = min(max((x - ground.x0) / ground.cell, 0.), columns - 1.000001)
    v = min(max((y - ground.y0) / ground.cell, 0.), rows - 1.000001)
    i, j = int(u), int(v)
    u, v = u - i, v - j
    low = ground.heights[j, i] * (1 - u) + ground.heights[j, i + 1] * u
    high = ground.heights[j + 1, i] * (1 - u) + ground.heights[j + 1, i + 1] * u
    return low * (1 - v) + high * v


@njit(cache=True, error_model='numpy')
def _or_ground(ground, o, d, limit, index):
    """The hit given, or the ground before it: (distance, index), distance inf for NOTHING."""
    flat = np.sqrt(d[0] * d[0] + d[1] * d[1])
    # The ray cannot near the ground faster than this.
    pace, even_pace = _STEEPEST * flat - d[2], _STEEP * flat - d[2]
    t, above = 0., o[2] - _height(ground, o[0], o[1])
    if d[2] < 0:
        t = max(0., (ground.top - o[2]) / d[2])
        if t > 0:
            above = o[2] + t * d[2] - _height(ground, o[0] + t * d[0], o[1] + t * d[1])
    if pace > 0 and above > 0:
        while t < limit and (d[2] < 0 or o[2] + t * d[2] <= ground.top):
            step = max(above / pace, _STEP + _STEP_GROWTH * t)
            if even_pace > 0:
                step = max(step, (above - _KERB) / even_pace)
            after = t + step
            gap = o[2] + after * d[2] - _height(ground, o[0] + after * d[0], o[1] + after * d[1])
            if gap <= 0:
                t = _refine(ground, o, d, t, after, above, gap)
                if t < limit:
                    return t, GROUND
                break
            t, above = after, gap
    return (limit, index) if index != NOTHING else (np.inf, index)


@njit(cache=True, error_model='numpy')
def _refine(ground, o, d, low, high, gap_low, gap_high):
    """Where the ray meets the ground between two distances: regula falsi, then bisection."""
    for turn in range(24):
        if turn % 3 < 2:
            middle = low + (high - low) * gap_low / (gap_low - gap_high)
        else:
            middle = (low + high) / 2
        gap = o[2] + middle * d[2] - _height(ground, o[0] + middle * d[0], o[1] + middle * d[1])
        if abs(gap) < 1e-7:
            return middle
        if gap > 0:
            low, gap_low = middle, gap
        else:
            high, gap_high = middle, gap
    return (low + high) / 2
