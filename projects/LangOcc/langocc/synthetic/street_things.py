"""What stands along a street: trees, bushes, hedges, lamps, signs, fences, barriers, cones.

Object frame: x along the street, z up, origin on the ground. Metres; colours are linear RGB.
"""
import numpy as np

from .materials import BARK, BRICK, FOLIAGE, PLAIN, SIGN, STRIPES, WOOD
from .solids import SolidBuilder, Solids, turn_about
from .vehicles import DARK, STEEL

BARRIER, CONE, MANMADE, VEGETATION = 1, 8, 15, 16
_GREENS = ((0.05, 0.13, 0.025), (0.08, 0.17, 0.03), (0.035, 0.1, 0.03), (0.12, 0.17, 0.03),
           (0.2, 0.15, 0.03))
_DEEP = 0.5  # metres: what stands on a slope reaches that far into the ground


def tree(rng: np.random.Generator, object_id: int) -> Solids:
    """A round, a tall, a spreading or a needle tree."""
    parts, green = SolidBuilder(VEGETATION, object_id), _green(rng)
    bark = np.array((0.1, 0.07, 0.045)) * rng.uniform(0.7, 1.4)
    form, size = rng.integers(4), rng.uniform(0.75, 1.25)
    if form == 3:
        height, width = 9. * size, 4. * size
        parts.cylinder((0, 0, height * 0.15), (0.3 * size, 0.3 * size, height * 0.5), bark, BARK)
        for level in range(3):
            base = height * (0.16 + 0.24 * level)
            tall = height * (0.42 - 0.05 * level)
            wide = width * (1 - 0.26 * level)
            parts.cylinder((0, 0, base + tall / 2), (wide, wide, tall), green, FOLIAGE, taper=0.97)
        return parts.build()
    trunk = (2.6, 3.2, 2.2)[form] * size
    parts.cylinder((0, 0, trunk / 2), (0.36 * size, 0.36 * size, trunk + 2 * _DEEP), bark, BARK,
                   taper=0.35)
    crown = np.array(((3.6, 3.6, 3.6), (2.6, 2.6, 5.4), (5.2, 5.2, 2.8))[form]) * size
    middle = np.array([0, 0, trunk + crown[2] * 0.42])
    parts.ellipsoid(middle, crown * 0.82, green, FOLIAGE)
    for number in range(5):
        angle = 2 * np.pi * (number + rng.uniform(-0.2, 0.2)) / 5
        offset = crown * 0.27 * (np.cos(angle), np.sin(angle), rng.uniform(-0.7, 0.9))
        parts.ellipsoid(middle + offset, crown * rng.uniform(0.45, 0.62),
                        green * rng.uniform(0.8, 1.2), FOLIAGE)
        if number < 2:
            parts.rod((0, 0, trunk * 0.8), middle + offset * 0.8, 0.14 * size, bark, BARK)
    return parts.build()


def bush(rng: np.random.Generator, object_id: int) -> Solids:
    """A few leafy lumps."""
    parts, green = SolidBuilder(VEGETATION, object_id), _green(rng)
    for _ in range(rng.integers(2, 5)):
        size = rng.uniform(0.7, 1.5, 3) * (1, 1, 0.9)
        parts.ellipsoid((*rng.uniform(-0.45, 0.45, 2), size[2] * 0.3), size,
                        green * rng.uniform(0.8, 1.2), FOLIAGE)
    return parts.build()


def hedge(rng: np.random.Generator, object_id: int, length: float) -> Solids:
    """A cut hedge along x."""
    parts, height = SolidBuilder(VEGETATION, object_id), rng.uniform(0.8, 1.7)
    parts.box((0, 0, (height - _DEEP) / 2), (length, rng.uniform(0.6, 0.9), height + _DEEP),
              _green(rng), FOLIAGE, (0., 0.12))
    return parts.build()


def fence(rng: np.random.Generator, object_id: int, length: float) -> Solids:
    """A wooden fence, posts and rails, or a garden wall along x."""
    parts = SolidBuilder(MANMADE, object_id)
    form = rng.integers(3)
    if form == 0:
        height, color = rng.uniform(1.1, 1.8), np.array((0.3, 0.19, 0.1)) * rng.uniform(0.6, 1.5)
        parts.box((0, 0, (height - _DEEP) / 2), (length, 0.09, height + _DEEP), color, WOOD)
    elif form == 1:
        color = np.array((0.6, 0.6, 0.58)) * rng.uniform(0.5, 1.2)
        for z in (0.45, 0.95):
            parts.box((0, 0, z), (length, 0.06, 0.16), color, WOOD)
        for x in np.linspace(-length / 2 + 0.06, length / 2 - 0.06, max(int(length / 1.8), 2)):
            parts.box((x, 0, 0.35), (0.14, 0.14, 0.9 + _DEEP), color, WOOD)
    else:
        height, color = rng.uniform(0.7, 1.9), np.array((0.36, 0.2, 0.14)) * rng.uniform(0.7, 1.3)
        parts.box((0, 0, (height - _DEEP) / 2), (length, 0.26, height + _DEEP), color, BRICK)
        parts.box((0, 0, height + 0.03), (length, 0.34, 0.09), (0.4, 0.39, 0.37))
    return parts.build()


def lamp(rng: np.random.Generator, object_id: int) -> Solids:
    """A street lamp, its arm to the left (y)."""
    parts, color = SolidBuilder(MANMADE, object_id), np.array((0.2, 0.22, 0.22))
    color, height = color * rng.uniform(0.5, 2.), rng.uniform(5.5, 8.)
    parts.cylinder((0, 0, height / 2), (0.2, 0.2, height), color, taper=0.35)
    parts.cylinder((0, 0, 0.45), (0.32, 0.32, 0.9), color)
    parts.rod((0, 0, height - 0.1), (0, 1.5, height + 0.25), 0.1, color)
    parts.box((0, 1.75, height + 0.25), (0.32, 0.75, 0.13), (0.6, 0.6, 0.58))
    return parts.build()


def sign(rng: np.random.Generator, object_id: int) -> Solids:
    """A traffic sign that faces -x: round, square or a triangle."""
    parts = SolidBuilder(MANMADE, object_id)
    height, form = rng.uniform(2.1, 2.7), rng.integers(3)
    parts.cylinder((0, 0, height / 2), (0.09, 0.09, height + 0.3), STEEL)
    facing = turn_about(1, -np.pi / 2)
    if form == 0:
        parts.cylinder((-0.07, 0, height), (0.7, 0.7, 0.05), (0.6, 0.02, 0.02), SIGN, turn=facing)
    elif form == 1:
        parts.box((-0.07, 0, height), (0.05, 0.65, 0.65), (0.02, 0.1, 0.45), SIGN)
    else:
        parts.box((-0.07, 0, height), (0.05, 0.85, 0.75), (0.75, 0.45, 0.02), SIGN, (0., 1.))
    return parts.build()


def traffic_light(rng: np.random.Generator, object_id: int) -> Solids:
    """A signal on a mast that faces -x."""
    parts = SolidBuilder(MANMADE, object_id)
    parts.cylinder((0, 0, 1.6), (0.14, 0.14, 3.6), STEEL)
    parts.box((-0.1, 0, 3.0), (0.24, 0.34, 0.95), DARK)
    lit = rng.integers(3)
    for number, color in enumerate(((0.9, 0.03, 0.02), (0.9, 0.5, 0.02), (0.03, 0.7, 0.2))):
        color = np.array(color) * (1. if number == lit else 0.15)
        parts.ellipsoid((-0.2, 0, 3.3 - 0.3 * number), (0.12, 0.22, 0.22), color, PLAIN)
    return parts.build()


def bin_or_bench(rng: np.random.Generator, object_id: int) -> Solids:
    """A litter bin, a bench or a cabinet."""
    parts, form = SolidBuilder(MANMADE, object_id), rng.integers(3)
    if form == 0:
        parts.cylinder((0, 0, 0.45), (0.5, 0.5, 0.95), (0.04, 0.1, 0.05))
    elif form == 1:
        parts.box((0, 0, 0.45), (1.7, 0.45, 0.08), (0.3, 0.19, 0.1), WOOD)
        parts.box((0, -0.22, 0.75), (1.7, 0.07, 0.4), (0.3, 0.19, 0.1), WOOD)
        for x in (-0.7, 0.7):
            parts.box((x, 0, 0.2), (0.09, 0.42, 0.5), DARK)
    else:
        parts.box((0, 0, 0.6), (1.1, 0.4, 1.3), (0.3, 0.32, 0.3))
    return parts.build()


def barrier(rng: np.random.Generator, object_id: int) -> Solids:
    """A striped road-works fence or a concrete block, 2 m along x."""
    parts = SolidBuilder(BARRIER, object_id)
    if rng.random() < 0.6:
        for z in (0.55, 0.95):
            parts.box((0, 0, z), (2., 0.07, 0.26), (0.65, 0.04, 0.03), STRIPES)
        for x in (-0.85, 0.85):
            parts.box((x, 0, 0.55), (0.07, 0.07, 1.1), (0.6, 0.6, 0.6))
            parts.box((x, 0, 0.06), (0.14, 0.6, 0.12), DARK)
    else:
        color = np.array((0.42, 0.41, 0.38)) * rng.uniform(0.8, 1.2)
        parts.box((0, 0, 0.42), (2., 0.6, 0.86), color, PLAIN, (0., 0.62))
    return parts.build()


def cone(rng: np.random.Generator, object_id: int) -> Solids:
    """A traffic cone with a white band."""
    parts, height = SolidBuilder(CONE, object_id), rng.uniform(0.65, 0.85)
    parts.box((0, 0, 0.03), (0.42, 0.42, 0.07), DARK)
    parts.cylinder((0, 0, 0.04 + height / 2), (0.34, 0.34, height), (0.8, 0.16, 0.01), taper=0.8)
    parts.cylinder((0, 0, height * 0.6), (0.225, 0.225, height * 0.22), (0.8, 0.8, 0.8), taper=0.36)
    return parts.build()


def _green(rng: np.random.Generator) -> np.ndarray:
    """A leaf colour."""
    return np.array(_GREENS[rng.integers(len(_GREENS))]) * rng.uniform(0.8, 1.3)
