"""Houses and blocks. Object frame: x along the street, y away from it, z up, origin on the ground
in the middle of the footprint. Metres; colours are linear RGB."""
import numpy as np

from .materials import FACADE, PLAIN, ROOF
from .solids import SolidBuilder, Solids
from .vehicles import DARK

MANMADE = 15
FLOOR_HEIGHT = 3.
_WALLS = ((0.55, 0.5, 0.42), (0.36, 0.16, 0.1), (0.62, 0.6, 0.56), (0.5, 0.36, 0.2),
          (0.28, 0.26, 0.25), (0.42, 0.24, 0.17), (0.6, 0.48, 0.36), (0.33, 0.38, 0.42))
_ROOFS = ((0.25, 0.09, 0.05), (0.1, 0.09, 0.09), (0.18, 0.12, 0.09), (0.12, 0.14, 0.17))
_DEEP = 3.  # metres into the ground, for slopes


def building(rng: np.random.Generator, object_id: int, width: float, depth: float,
             floors: int) -> Solids:
    """A house with a roof, or a block with a flat one; ``floors`` of 3 m."""
    parts = SolidBuilder(MANMADE, object_id)
    wall = np.array(_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.75, 1.15)
    height = floors * FLOOR_HEIGHT + 0.4
    parts.box((0, 0, (height - _DEEP) / 2), (width, depth, height + _DEEP), wall, FACADE)
    if floors <= 3 and rng.random() < 0.8:
        _pitched(parts, rng, width, depth, height)
    else:
        _flat(parts, rng, width, depth, height, wall)
    if rng.random() < 0.5:
        _front(parts, rng, width, depth, wall)
    return parts.build()


def _pitched(parts: SolidBuilder, rng: np.random.Generator, width, depth, height) -> None:
    """A gable roof with eaves, perhaps a chimney."""
    color = np.array(_ROOFS[rng.integers(len(_ROOFS))]) * rng.uniform(0.8, 1.3)
    rise = rng.uniform(0.25, 0.45) * min(width, depth)
    along = rng.random() < 0.6
    size = np.array([width + 0.6, depth + 0.6, rise])
    hip = rng.uniform(0.25, 0.5) if rng.random() < 0.3 else 0.
    parts.box((0, 0, height + rise / 2), size, color, ROOF, (hip, 1.) if along else (1., hip))
    if rng.random() < 0.6:
        parts.box((width * 0.25, depth * 0.12, height + rise * 0.8), (0.7, 0.7, rise),
                  (0.25, 0.12, 0.09))


def _flat(parts: SolidBuilder, rng: np.random.Generator, width, depth, height, wall) -> None:
    """A cornice, and sometimes set-back top floors or machinery on the roof."""
    parts.box((0, 0, height + 0.15), (width + 0.4, depth + 0.4, 0.5), wall * 0.8, PLAIN)
    if rng.random() < 0.5:
        tall = FLOOR_HEIGHT * rng.integers(1, 3)
        parts.box((0, 0.08 * depth, height + tall / 2), (width * 0.75, depth * 0.7, tall + 0.4),
                  wall * rng.uniform(0.8, 1.2), FACADE)
    else:
        parts.box((width * 0.2, 0, height + 1.), (2.5, 2.5, 2.), (0.35, 0.35, 0.35), PLAIN)


def _front(parts: SolidBuilder, rng: np.random.Generator, width, depth, wall) -> None:
    """What stands out to the street (-y): a bay, a canopy over a shop, or steps."""
    form, front = rng.integers(3), -depth / 2
    if form == 0:
        parts.box((width * rng.uniform(-0.25, 0.25), front - 0.5, 1.3), (3., 1.1, 3.4),
                  wall * 0.9, FACADE)
    elif form == 1:
        color = rng.uniform(0.05, 0.5, 3)
        parts.box((0, front - 0.6, 3.0), (width * 0.8, 1.2, 0.18), color, PLAIN)
    else:
        for step in range(3):
            parts.box((0, front - 0.75 + 0.25 * step, 0.1 + 0.1 * step),
                      (1.8, 1.5 - 0.5 * step, 0.8 + 0.2 * step), (0.4, 0.39, 0.37), PLAIN)
        parts.box((0, front + 0.02, 1.5), (1.2, 0.2, 2.3), DARK, PLAIN)
