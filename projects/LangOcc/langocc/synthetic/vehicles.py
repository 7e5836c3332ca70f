"""Vehicles, built of boxes and wheels. Object frame: x forward, y left, z up, origin on the road
below the middle. Metres; colours are linear RGB."""
from typing import Tuple

import numpy as np

from .materials import GLASS, PAINT, PLAIN, STRIPES
from .solids import SolidBuilder, Solids, turn_about

BUS, CAR, CONSTRUCTION, TRAILER, TRUCK = 3, 4, 5, 9, 10
TYRE, DARK, STEEL = (0.012, 0.012, 0.013), (0.02, 0.02, 0.022), (0.35, 0.35, 0.36)
WINDOW = (0.03, 0.04, 0.05)
_PAINTS = ((0.55, 0.56, 0.58), (0.75, 0.76, 0.76), (0.03, 0.03, 0.035), (0.16, 0.17, 0.18),
           (0.42, 0.03, 0.03), (0.03, 0.09, 0.32), (0.05, 0.18, 0.08), (0.55, 0.33, 0.05),
           (0.3, 0.24, 0.18), (0.1, 0.3, 0.42))
_ACROSS = turn_about(0, np.pi / 2)
Color = Tuple[float, float, float]


def paint(rng: np.random.Generator) -> Color:
    """A usual car colour, slightly varied."""
    color = np.array(_PAINTS[rng.integers(len(_PAINTS))])
    return tuple(np.clip(color * rng.uniform(0.8, 1.2), 0, 0.85))


def car(rng: np.random.Generator, object_id: int) -> Solids:
    """A saloon, estate, off-roader or van."""
    parts, color = SolidBuilder(CAR, object_id), paint(rng)
    form = rng.integers(4)
    length = (rng.uniform(4.4, 4.9), rng.uniform(4.0, 4.6), rng.uniform(4.5, 4.9),
              rng.uniform(4.9, 5.4))[form]
    width = rng.uniform(1.75, 1.9) + 0.1 * (form >= 2)
    floor, waist = (0.22, 0.3)[form >= 2], (0.85, 0.88, 1.05, 1.05)[form]
    top = (1.42, 1.48, 1.78, 2.1)[form] + rng.uniform(-0.04, 0.04)
    front, back = ((1.0, -1.75), (1.1, -2.1), (1.2, -2.2), (1.7, -2.55))[form]
    front, back = front * length / 4.6, max(back * length / 4.6, -length / 2 + 0.03)
    parts.box((0, 0, (floor + waist) / 2), (length, width, waist - floor), color, PAINT)
    parts.box((length / 2 - 0.55, 0, waist + 0.03), (1.05, width * 0.94, 0.1), color, PAINT,
              (0.25, 0.1))
    taper = ((0.42, 0.22), (0.3, 0.2), (0.22, 0.18), (0.13, 0.12))[form]
    cabin = ((front + back) / 2, front - back, top - waist)
    parts.box((cabin[0], 0, waist + cabin[2] / 2), (cabin[1], width * 0.95, cabin[2]), WINDOW,
              GLASS, taper)
    parts.box((cabin[0], 0, top - 0.02), (cabin[1] * (1 - taper[0]) + 0.06,
                                          width * 0.95 * (1 - taper[1]) + 0.03, 0.07), color, PAINT)
    for x in (front * 0.55, back * 0.45):
        parts.box((x, 0, waist + cabin[2] / 2 - 0.01), (0.1, width * 0.953, cabin[2]), color, PAINT,
                  (0., taper[1]))
    _lamps(parts, length, width, waist - 0.2)
    _wheels(parts, (length * 0.3, -length * 0.3), width, (0.62, 0.64, 0.74, 0.7)[form])
    return parts.build()


def bus(rng: np.random.Generator, object_id: int) -> Solids:
    """A city bus with a band of windows."""
    parts, color = SolidBuilder(BUS, object_id), paint(rng)
    length, width, height = rng.uniform(10., 12.), 2.55, rng.uniform(2.9, 3.2)
    parts.box((0, 0, 0.85), (length, width, 1.1), color, PAINT)
    parts.box((0, 0, 1.95), (length - 0.04, width - 0.06, 1.1), WINDOW, GLASS)
    parts.box((0, 0, (2.5 + height) / 2), (length, width, height - 2.5), (0.75, 0.75, 0.74), PAINT)
    for x in np.arange(-length / 2 + 0.06, length / 2, 1.45):
        parts.box((x, 0, 1.95), (0.12, width, 1.12), color, PAINT)
    parts.box((length / 2 + 0.01, 0, 2.68), (0.06, 1.5, 0.24), (0.9, 0.5, 0.05), PLAIN)
    _lamps(parts, length, width, 0.75)
    _wheels(parts, (length / 2 - 2.5, -length / 2 + 3.), width, 0.95)
    return parts.build()


def truck(rng: np.random.Generator, object_id: int) -> Solids:
    """A lorry with a box, a tank or an open platform."""
    parts, color = SolidBuilder(TRUCK, object_id), paint(rng)
    length, width = rng.uniform(6.5, 9.), 2.4
    nose, body = length / 2, length - 2.1
    parts.box((nose - 0.95, 0, 1.5), (1.9, width, 1.7), color, PAINT, (0.08, 0.04))
    parts.box((nose - 0.6, 0, 1.85), (1.24, width * 0.98, 0.75), WINDOW, GLASS, (0.08, 0.0))
    parts.box((nose - 1.0, 0, 2.4), (1.6, width * 0.95, 0.25), color, PAINT, (0.15, 0.05))
    parts.box((-0.4, 0, 0.72), (length - 0.8, 1.1, 0.25), DARK)
    middle, load = -nose + body / 2, paint(rng)
    form = rng.integers(3)
    if form == 0:
        height = rng.uniform(2.1, 2.5)
        parts.box((middle, 0, 0.9 + height / 2), (body, width, height), load, PAINT)
    elif form == 1:
        parts.cylinder((middle, 0, 1.85), (1.9, 2.2, body), load, PAINT,
                       turn=turn_about(1, np.pi / 2))
    else:
        parts.box((middle, 0, 1.0), (body, width, 0.25), (0.25, 0.16, 0.09))
        parts.box((middle - 0.3, 0, 1.55), (body * 0.7, width * 0.8, 0.9), load, PLAIN)
    _lamps(parts, length, width, 0.85)
    _wheels(parts, (nose - 1.2, -nose + 1.9, -nose + 0.85), width, 0.92)
    return parts.build()


def trailer(rng: np.random.Generator, object_id: int) -> Solids:
    """A box trailer or an open one, on its wheels behind."""
    parts, color = SolidBuilder(TRAILER, object_id), paint(rng)
    length, width = rng.uniform(7., 10.), 2.45
    parts.box((0, 0, 0.95), (length, 1.0, 0.25), DARK)
    if rng.random() < 0.7:
        parts.box((0, 0, 2.35), (length, width, 2.6), color, PAINT)
        parts.box((0, 0, 1.2), (length * 0.98, width * 1.005, 0.16), (0.5, 0.05, 0.04), STRIPES)
    else:
        parts.box((0, 0, 1.15), (length, width, 0.2), (0.25, 0.16, 0.09))
        parts.box((-0.2, 0, 1.75), (length * 0.85, width * 0.85, 1.0), color, PLAIN)
    for side in (-0.8, 0.8):
        parts.box((length / 2 - 1.6, side, 0.45), (0.14, 0.14, 0.9), STEEL)
    _wheels(parts, (-length / 2 + 0.9, -length / 2 + 1.95, -length / 2 + 3.), width, 0.9)
    return parts.build()


def construction_vehicle(rng: np.random.Generator, object_id: int) -> Solids:
    """An excavator on tracks, its boom forward."""
    parts = SolidBuilder(CONSTRUCTION, object_id)
    color = np.array((0.72, 0.36, 0.02)) * rng.uniform(0.85, 1.1)
    for side in (-0.95, 0.95):
        parts.box((0, side, 0.42), (3.1, 0.5, 0.6), DARK, taper=(0.15, 0.))
        for x in (-1.45, 1.45):
            parts.cylinder((x, side, 0.42), (0.66, 0.66, 0.5), DARK, turn=_ACROSS)
    parts.cylinder((0, 0, 0.8), (1.4, 1.4, 0.4), DARK)
    parts.box((-0.7, 0, 1.45), (2.1, 2.3, 0.95), color, PAINT, (0.06, 0.06))
    parts.box((0.75, 0.6, 1.75), (1.2, 1.05, 1.6), WINDOW, GLASS, (0.1, 0.05))
    parts.box((0.72, 0.6, 2.58), (1.15, 1.1, 0.1), color, PAINT)
    joints = np.array([[0.5, -0.35, 1.5], [2.0, -0.35, 3.3], [3.6, -0.35, 3.0], [4.0, -0.35, 1.2]])
    for start, end, width in zip(joints[:-1], joints[1:], (0.42, 0.38, 0.3)):
        parts.rod(start, end, width, color, PAINT)
    parts.box((3.85, -0.35, 0.85), (0.8, 1.1, 0.75), STEEL, taper=(0.4, 0.))
    return parts.build()


def _wheels(parts: SolidBuilder, axles, width: float, diameter: float) -> None:
    """Wheels with rims at the axles' x, both sides."""
    for x in axles:
        for side in (-1, 1):
            y = side * (width / 2 - 0.1)
            parts.cylinder((x, y, diameter / 2), (diameter, diameter, 0.24), TYRE, turn=_ACROSS)
            rim = (diameter * 0.58, diameter * 0.58, 0.24)
            parts.cylinder((x, y + side * 0.02, diameter / 2), rim, STEEL, turn=_ACROSS)


def _lamps(parts: SolidBuilder, length: float, width: float, height: float) -> None:
    """Head lamps, rear lamps, number plates."""
    for side in (-1, 1):
        y = side * (width / 2 - 0.22)
        parts.box((length / 2, y, height), (0.05, 0.34, 0.15), (0.85, 0.85, 0.8))
        parts.box((-length / 2, y, height + 0.05), (0.05, 0.3, 0.18), (0.5, 0.015, 0.01))
    for end in (-1, 1):
        parts.box((end * length / 2, 0, height - 0.18), (0.06, 0.52, 0.12), (0.8, 0.8, 0.75))
    parts.box((length / 2 - 0.01, 0, height - 0.02), (0.05, width * 0.5, 0.14), DARK)
