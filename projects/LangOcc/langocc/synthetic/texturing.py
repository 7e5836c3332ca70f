"""Compiled colours of surfaces: bricks, windows, leaves, asphalt with its markings.

Patterns are procedural, in metres of the object's own frame. Each detail fades out where a pixel
covers about its size (``width``, metres), so that pictures do not flicker. Colours are linear RGB.
Like all compiled files of this package this one calls into no other (see casting.py).
"""
from typing import NamedTuple

import numpy as np
from numba import njit

DRIVEABLE, OTHER_FLAT, SIDEWALK = 11, 12, 13
_DEEP, _FLOOR = 3., 3.  # as in buildings.py


class RoadMarks(NamedTuple):
    """Metres that place the markings of the main road and of those across it."""
    main_half: float
    main_lane: float
    main_lanes: int
    main_median: float
    main_parking: float
    cross_half: float
    cross_lane: float


@njit(cache=True, error_model='numpy')
def ground_albedo(points, classes, fields, widths, marks):
    """(R, 3) colours of the ground.

    Args:
        points: (R, 3).
        classes: (R,) uint8.
        fields: (R, F) samples of ``ground.FIELDS``.
        widths: (R,) metres that a pixel covers.
        marks: RoadMarks.
    """
    colors = np.empty((len(points), 3))
    for r in range(len(points)):
        x, y, w = points[r, 0], points[r, 1], widths[r]
        fine = (0.55 * _noise(x, y, 0.045, w, 1) + 0.5 * _noise(x, y, 0.17, w, 2)
                + 0.5 * _noise(x, y, 0.8, w, 3))
        broad = _noise(x, y, 3.7, w, 4) + 0.7 * _noise(x, y, 11., w, 5)
        edge, lateral, s = fields[r, 0], fields[r, 1], fields[r, 2]
        if abs(lateral) - marks.main_half > abs(fields[r, 3]) - marks.cross_half:
            lateral, s = fields[r, 3], fields[r, 4]
        kind = classes[r]
        if kind == DRIVEABLE:
            shade = 0.125 * (1 + 0.2 * fine + 0.12 * broad)
            shade *= 1 - 0.25 * _band(edge + 0.15, 0.15, w)
            paint = _markings(fields[r], w, marks) * (0.75 + 0.25 * min(1 + fine, 1.))
            shade += (0.62 - shade) * paint
            colors[r] = np.array((shade, shade, 1.02 * shade))
        elif kind == SIDEWALK:
            colors[r] = np.array((0.33, 0.32, 0.3)) * _slabs(s, lateral, 0.75, w) * (
                1 + 0.1 * fine + 0.08 * broad)
        elif kind == OTHER_FLAT:
            colors[r] = np.array((0.29, 0.235, 0.18)) * _slabs(s, lateral, 0.4, w) * (
                1 + 0.14 * fine + 0.14 * broad)
        else:
            dry = min(max(0.35 + 0.4 * broad, 0.), 1.)
            colors[r] = ((1 - dry) * np.array((0.07, 0.15, 0.03)) + dry * np.array(
                (0.19, 0.19, 0.07))) * (1 + 0.5 * fine + 0.1 * broad)
        kerb = _band(edge - 0.12, 0.12, w) if kind != OTHER_FLAT else 0.
        colors[r] += (0.4 * (1 + 0.1 * fine) - colors[r]) * kerb
    return colors


@njit(cache=True, error_model='numpy')
def solid_albedo(points, normals, widths, indices, solids, deepest):
    """Colours and gloss of hits on solids: (R, 4), gloss 0 dull to 1 a mirror of the sky.

    Args:
        points, normals: (R, 3).
        widths: (R,) metres that a pixel covers.
        indices: (R,) numbers of solids.
        solids: (to_unit, half_sizes, materials, colors, objects) as in ``Solids``.
        deepest: (R,) darkening of leaves seen from below, 0 to 1.
    """
    to_unit, half_sizes, materials, solid_colors, objects = solids
    values = np.empty((len(points), 4))
    for r in range(len(points)):
        k = indices[r]
        m, half = to_unit[k], half_sizes[k]
        q, n = np.empty(3), np.empty(3)
        for i in range(3):
            q[i] = half[i] * (m[i, 0] * points[r, 0] + m[i, 1] * points[r, 1]
                              + m[i, 2] * points[r, 2] + m[i, 3])
            n[i] = half[i] * (m[i, 0] * normals[r, 0] + m[i, 1] * normals[r, 1]
                              + m[i, 2] * normals[r, 2])
        axis = 0 if abs(n[1]) > abs(n[0]) else 1  # the horizontal one along the face
        gain, gloss, light = _pattern(materials[k], q, n, half, axis, widths[r], int(objects[k]))
        if materials[k] == 6:
            gain *= 1 - 0.45 * deepest[r]
        for i in range(3):
            values[r, i] = min(max(gain * solid_colors[k, i] + light, 0.), 1.)
        values[r, 3] = gloss
    return values


@njit(cache=True, error_model='numpy')
def _pattern(material, q, n, half, axis, w, seed):
    """Gain on the colour, gloss and added white of a material (numbers of materials.py).

    ``q`` metres from the solid's middle along its axes, ``n`` normal along them, ``half`` sizes,
    ``axis`` 0 or 1, the horizontal one along the face.
    """
    if material == 0:
        return 1 + 0.12 * _noise(q[axis], q[2], 0.3, w, seed), 0., 0.
    if material == 1:
        return _paintwork(q, n, half, axis, w), 0.55, 0.
    if material == 2:
        return 1., 0.9, 0.
    if material == 3:
        return _facade(q, n, half, axis, w, seed)
    if material == 4:
        return _tiles(q, n, axis, w, seed), 0., 0.
    if material == 5:
        return _bricks(q[axis], q[2], 0.26, 0.1, w, seed), 0., 0.
    if material == 6:
        other = 2 if abs(n[2]) < max(abs(n[0]), abs(n[1])) else 1 - axis
        return _leaves(q[axis], q[other], w, seed), 0., 0.
    if material == 7:
        angle = np.arctan2(q[1], q[0])
        return 1 + 0.5 * _noise(angle * 0.4, q[2] * 0.2, 0.06, w, seed), 0., 0.
    if material == 8:
        white = _stripes(q[axis] + q[2], 0.22, w)
        return 1 - white, 0., 0.65 * white
    if material == 9:
        return _planks(q[axis], q[2], w, seed), 0., 0.
    if material == 10:
        return 1 + 0.25 * _noise(q[0] + q[1], q[2], 0.07, w, seed), 0., 0.
    rim = max(abs(q[0]) * (half[0] > 0.1) / half[0], abs(q[1]) / half[1],
              abs(q[2]) * (half[2] > 0.1) / half[2])
    white = _step(0.78 - rim, w / half[1]) * (1 - _step(0.25 - rim, w / half[1]))
    return 1 - white, 0., 0.7 * white


@njit(cache=True, error_model='numpy')
def _markings(fields, w, marks):
    """Share of paint: lines, zebra crossings and stop lines of both kinds of roads."""
    main_edge = abs(fields[1]) - marks.main_half
    cross_edge = abs(fields[3]) - marks.cross_half
    paint = 0.
    if main_edge < 0 and cross_edge > 0.8:
        lateral, s = abs(fields[1]), fields[2]
        paint = _crossing(cross_edge, fields[1], w)
        if cross_edge > 4.6:
            dash = _dashes(s, w)
            if marks.main_median == 0:
                paint = max(paint, _band(lateral - (0.12 if marks.main_lanes > 1 else 0.), 0.07, w)
                            * (1. if marks.main_lanes > 1 else dash))
            for lane in range(1, marks.main_lanes):
                paint = max(paint, dash * _band(
                    lateral - marks.main_median - lane * marks.main_lane, 0.07, w))
            line = marks.main_half - (marks.main_parking if marks.main_parking > 0 else 0.35)
            paint = max(paint, _band(lateral - line, 0.06, w))
    elif cross_edge < 0 and main_edge > 0.8:
        paint = _crossing(main_edge, fields[3], w)
        if main_edge > 4.6:
            paint = max(paint, _dashes(fields[4], w) * _band(fields[3], 0.07, w))
    return paint


@njit(cache=True, error_model='numpy')
def _crossing(beyond, lateral, w):
    """A zebra crossing 1 to 4 m before the road that is crossed."""
    return _band(beyond - 2.6, 1.5, w) * _stripes(lateral, 0.5, w)


@njit(cache=True, error_model='numpy')
def _dashes(s, w):
    """3 m of line, 4 m of none."""
    place = s - 7 * np.floor(s / 7)
    return _band(place - 2.5, 1.5, w)


@njit(cache=True, error_model='numpy')
def _slabs(s, lateral, size, w):
    """Paving: joints between slabs of ``size`` and slabs of different brightness."""
    column, row = np.floor(s / size), np.floor(lateral / size)
    across, along = s - (column + 0.5) * size, lateral - (row + 0.5) * size
    joint = max(1 - _band(across, size / 2 - 0.015, w), 1 - _band(along, size / 2 - 0.015, w))
    tone = 0.16 * (_hash(int(column), int(row), 7) - 0.5) * _fade(w, 2 * size)
    return 1 + tone - 0.35 * joint * _fade(w, size)


@njit(cache=True, error_model='numpy')
def _facade(q, n, half, axis, w, seed):
    """Gain, gloss and added light of a wall with windows and doors."""
    if abs(n[2]) > 0.7:
        return 0.55 + 0.1 * _noise(q[0], q[1], 0.7, w, seed), 0., 0.
    style = _hash(seed, 11, 3)
    length, up = 2 * half[axis], q[2] + half[2] - _DEEP
    count = max(1, int(length / (2.1 + 1.5 * _hash(seed, 12, 3)) + 0.5))
    cell = length / count
    column, floor = np.floor((q[axis] + half[axis]) / cell), np.floor(up / _FLOOR)
    u, v = q[axis] + half[axis] - (column + 0.5) * cell, up - floor * _FLOOR
    chance = _hash(int(column), int(floor) + 50 * axis, seed)
    low, high, wide = 0.85 + 0.2 * style, 2.4, cell * (0.24 + 0.14 * _hash(seed, 13, 3))
    door = floor == 0 and chance < 0.22
    if door:
        low, high, wide = -0.2, 2.15, 0.55
    elif floor == 0 and _hash(seed, 14, 3) < 0.35:
        low, high, wide = 0.45, 2.6, cell * 0.44
    opening = _band(u, wide, w) * _band(v - (low + high) / 2, (high - low) / 2, w)
    pane = _band(u, wide - 0.08, w) * _band(v - (low + high) / 2, (high - low) / 2 - 0.08, w)
    pane *= 1 - (1 - _band(abs(u) - wide / 2, wide / 2 - 0.03, w)) * (0. if door else 1.)
    if style < 0.45:
        wall = _bricks(q[axis], q[2], 0.3, 0.11, w, seed)
    else:
        wall = 1 + 0.1 * _noise(q[axis], q[2], 0.35, w, seed)
    wall *= 1 + 0.12 * _noise(q[axis], 0.3 * q[2], 2.2, w, seed)
    wall *= 1 - 0.25 * _band(up - 0.3, 0.3, w) - 0.18 * _band(v - 2.92, 0.07, w)
    frame = 0.62 if _hash(seed, 15, 3) < 0.6 else 0.08
    if door:
        return wall * (1 - 0.8 * opening), 0., 0.05 * pane * (1 + 2 * chance)
    glass = 0.02 + (0.14 * (chance > 0.6) + 0.16 * (chance > 0.88)) * pane
    return (1 - opening) * wall, 0.75 * pane, frame * (opening - pane) + glass * pane


@njit(cache=True, error_model='numpy')
def _paintwork(q, n, half, axis, w):
    """Joints of doors and panels on large painted parts."""
    if half[0] < 0.8 or abs(n[2]) > 0.7:
        return 1.
    joint = 0.
    for number in range(3):
        place = q[axis] - half[axis] * (0.44 - 0.42 * number)
        joint = max(joint, _band(place, 0.012, w))
    return (1 - 0.7 * joint) * (1 - 0.25 * _step(-0.75 - q[2] / half[2], w / half[2]))


@njit(cache=True, error_model='numpy')
def _tiles(q, n, axis, w, seed):
    """Rows of roof tiles."""
    row = np.floor(q[2] / 0.2)
    place = q[2] / 0.2 - row
    tone = 0.35 * (_hash(int(np.floor(q[axis] / 0.3)), int(row), seed) - 0.5) * _fade(w, 0.4)
    return 1 + tone - 0.3 * (0.5 - place) * _fade(w, 0.4) + 0.15 * _noise(q[0], q[1], 1.5, w, seed)


@njit(cache=True, error_model='numpy')
def _bricks(u, v, length, height, w, seed):
    """Bond of bricks with light joints."""
    row = np.floor(v / height)
    shift = 0.5 * (row - 2 * np.floor(row / 2))
    column = np.floor(u / length + shift)
    across, along = u - (column - shift + 0.5) * length, v - (row + 0.5) * height
    joint = max(1 - _band(across, length / 2 - 0.012, w), 1 - _band(along, height / 2 - 0.012, w))
    tone = 0.45 * (_hash(int(column), int(row), seed) - 0.5) * _fade(w, 1.5 * length)
    return 1 + tone + 0.3 * joint * _fade(w, height) + 0.14 * _noise(u, v, 0.9, w, seed)


@njit(cache=True, error_model='numpy')
def _leaves(u, v, w, seed):
    """Light and dark leaves, in clumps of three sizes."""
    value = (0.5 * _noise(u + 0.3 * v, v - 0.3 * u, 0.1, w, seed)
             + 0.55 * _noise(u - 0.5 * v, v + 0.5 * u, 0.28, w, seed + 1)
             + 0.5 * _noise(u, v, 0.8, w, seed + 2))
    return max(1 + value, 0.15)


@njit(cache=True, error_model='numpy')
def _planks(u, v, w, seed):
    """Upright boards."""
    board = np.floor(u / 0.14)
    joint = 1 - _band(u - (board + 0.5) * 0.14, 0.062, w)
    tone = 0.5 * (_hash(int(board), 0, seed) - 0.5) * _fade(w, 0.3)
    return 1 + tone - 0.5 * joint * _fade(w, 0.14) + 0.15 * _noise(8 * u, v, 0.4, w, seed)


@njit(cache=True, error_model='numpy')
def _stripes(x, size, w):
    """1 and 0 in turn, each ``size`` wide."""
    period = 2 * size
    return _band(x - period * np.floor(x / period) - size, size / 2, w) * _fade(w, period) + (
        0.5 * (1 - _fade(w, period)))


@njit(cache=True, error_model='numpy')
def _band(x, half, w):
    """Share of a pixel of width w at distance x from the middle of a band of half width half."""
    return max(0., min(1., (half - abs(x)) / w + 0.5)) * min(1., 2 * half / w)


@njit(cache=True, error_model='numpy')
def _step(x, w):
    """Share of a pixel of width w where x > 0."""
    return max(0., min(1., x / w + 0.5))


@njit(cache=True, error_model='numpy')
def _fade(w, size):
    """1 where detail of ``size`` can be seen, 0 where a pixel covers it."""
    return max(0., min(1., 2 - 2 * w / size))


@njit(cache=True, error_model='numpy')
def _noise(x, y, size, w, seed):
    """Smooth noise, about -1 to 1, of features of ``size``, faded."""
    fade = _fade(w, size)
    if fade == 0:
        return 0.
    x, y = x / size, y / size
    i, j = int(np.floor(x)), int(np.floor(y))
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    low = _hash(i, j, seed) * (1 - u) + _hash(i + 1, j, seed) * u
    high = _hash(i, j + 1, seed) * (1 - u) + _hash(i + 1, j + 1, seed) * u
    return fade * (2 * (low * (1 - v) + high * v) - 1)


@njit(cache=True, error_model='numpy')
def _hash(i, j, seed):
    """A number in [0, 1) that depends on three integers."""
    h = (i * 374761393 + j * 668265263 + seed * 1103515245 + 12345) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.
