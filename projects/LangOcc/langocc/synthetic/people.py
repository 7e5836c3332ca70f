"""Pedestrians, bicycles and motorcycles. Object frame: x forward, y left, z up, origin on the
ground. Metres; colours are linear RGB."""
import numpy as np

from .materials import CLOTH, PAINT, PLAIN
from .solids import SolidBuilder, Solids, turn_about
from .vehicles import DARK, STEEL, TYRE, paint

BICYCLE, MOTORCYCLE, PEDESTRIAN = 2, 6, 7
_SKINS = ((0.55, 0.33, 0.23), (0.35, 0.19, 0.12), (0.15, 0.08, 0.05), (0.62, 0.42, 0.32))
_CLOTHES = ((0.03, 0.05, 0.12), (0.4, 0.05, 0.05), (0.6, 0.58, 0.52), (0.03, 0.03, 0.03),
            (0.1, 0.25, 0.1), (0.65, 0.4, 0.05), (0.12, 0.2, 0.5), (0.3, 0.2, 0.12),
            (0.5, 0.15, 0.35))
_HAIR = ((0.02, 0.015, 0.01), (0.12, 0.06, 0.03), (0.35, 0.25, 0.1), (0.3, 0.3, 0.3))
_ACROSS = turn_about(0, np.pi / 2)


def pedestrian(rng: np.random.Generator, object_id: int) -> Solids:
    """A walking or standing person."""
    parts = SolidBuilder(PEDESTRIAN, object_id)
    scale, stride = rng.uniform(0.9, 1.06), rng.uniform(-0.22, 0.22)
    trousers, shirt = _pick(rng, _CLOTHES), _pick(rng, _CLOTHES)
    points = {name: np.array(value) * scale for name, value in dict(
        hip=(0, 0.09, 0.86), foot=(stride, 0.1, 0.06), hand=(-stride, 0.27, 0.82),
        shoulder=(0, 0.21, 1.38)).items()}
    for side in (1, -1):
        mirror = np.array([1, side, 1])
        swing = np.array([side, side, 1])  # the legs and arms of the two sides are opposed
        parts.rod(points['hip'] * mirror, points['foot'] * swing, 0.17 * scale, trousers, CLOTH)
        parts.rod(points['shoulder'] * mirror, points['hand'] * swing, 0.11 * scale, shirt, CLOTH)
        parts.box(points['foot'] * swing + (0.05, 0, -0.01), (0.27, 0.1, 0.1), DARK)
    parts.ellipsoid((0, 0, 1.15 * scale), (0.3, 0.46, 0.72 * scale), shirt, CLOTH)
    parts.ellipsoid((0, 0, 0.92 * scale), (0.28, 0.38, 0.3 * scale), trousers, CLOTH)
    parts.ellipsoid((0.01, 0, 1.62 * scale), (0.2, 0.17, 0.25), _pick(rng, _SKINS))
    parts.ellipsoid((-0.015, 0, 1.66 * scale), (0.21, 0.19, 0.21), _pick(rng, _HAIR), CLOTH)
    if rng.random() < 0.3:
        parts.box((-0.2, 0, 1.2 * scale), (0.16, 0.3, 0.42), _pick(rng, _CLOTHES), CLOTH)
    return parts.build()


def bicycle(rng: np.random.Generator, object_id: int, rider: bool) -> Solids:
    """A bicycle, with a rider where asked; the rider counts as bicycle, as in nuScenes."""
    parts, color = SolidBuilder(BICYCLE, object_id), paint(rng)
    for x in (-0.52, 0.52):
        parts.cylinder((x, 0, 0.34), (0.68, 0.68, 0.05), TYRE, turn=_ACROSS)
        parts.cylinder((x, 0, 0.34), (0.5, 0.5, 0.055), STEEL, turn=_ACROSS)
    for start, end in (((-0.52, 0, 0.34), (0.0, 0, 0.3)), ((0.0, 0, 0.3), (-0.15, 0, 0.88)),
                       ((0.0, 0, 0.3), (0.38, 0, 0.78)), ((-0.12, 0, 0.78), (0.38, 0, 0.78)),
                       ((0.52, 0, 0.34), (0.36, 0, 0.98)), ((-0.52, 0, 0.34), (-0.13, 0, 0.8))):
        parts.rod(start, end, 0.07, color, PAINT)
    parts.rod((0.36, -0.27, 1.0), (0.36, 0.27, 1.0), 0.06, DARK)
    parts.box((-0.17, 0, 0.92), (0.27, 0.16, 0.08), DARK)
    if rider:
        _rider(parts, rng, seat=(-0.15, 0, 0.95), handle=(0.36, 0.2, 1.02), pedal=(0.05, 0.1, 0.3))
    return parts.build()


def motorcycle(rng: np.random.Generator, object_id: int, rider: bool) -> Solids:
    """A motorcycle, with a rider where asked."""
    parts, color = SolidBuilder(MOTORCYCLE, object_id), paint(rng)
    for x in (-0.68, 0.72):
        parts.cylinder((x, 0, 0.32), (0.64, 0.64, 0.16), TYRE, turn=_ACROSS)
        parts.cylinder((x, 0, 0.32), (0.36, 0.36, 0.17), STEEL, turn=_ACROSS)
    parts.box((0, 0, 0.48), (0.75, 0.34, 0.42), DARK)
    parts.ellipsoid((0.2, 0, 0.82), (0.62, 0.36, 0.34), color, PAINT)
    parts.box((-0.42, 0, 0.8), (0.8, 0.3, 0.14), DARK)
    parts.box((-0.75, 0, 0.78), (0.3, 0.22, 0.16), color, PAINT)
    parts.box((0.72, 0, 0.66), (0.5, 0.2, 0.1), color, PAINT)
    parts.rod((0.72, 0, 0.32), (0.48, 0, 1.02), 0.12, STEEL)
    parts.rod((0.46, -0.36, 1.05), (0.46, 0.36, 1.05), 0.06, DARK)
    parts.ellipsoid((0.62, 0, 0.92), (0.2, 0.22, 0.22), (0.8, 0.8, 0.75))
    if rider:
        _rider(parts, rng, seat=(-0.25, 0, 0.9), handle=(0.44, 0.3, 1.05), pedal=(0.05, 0.2, 0.35))
    return parts.build()


def _rider(parts: SolidBuilder, rng: np.random.Generator, seat, handle, pedal) -> None:
    """A person on the seat with hands on the handle bar."""
    seat, handle, pedal = np.array(seat), np.array(handle), np.array(pedal)
    shirt, trousers = _pick(rng, _CLOTHES), _pick(rng, _CLOTHES)
    chest = seat + (0.22, 0, 0.5)
    parts.rod(seat, chest, 0.34, shirt, CLOTH)
    parts.ellipsoid(chest + (0, 0, -0.02), (0.34, 0.44, 0.3), shirt, CLOTH)
    parts.ellipsoid(chest + (0.08, 0, 0.33), (0.24, 0.21, 0.27), _pick(rng, _SKINS))
    parts.ellipsoid(chest + (0.06, 0, 0.38), (0.28, 0.24, 0.24), paint(rng), PLAIN)
    for side in (1, -1):
        mirror = np.array([1, side, 1])
        knee = (seat + pedal) / 2 + (0.26, 0.1, 0.16 + 0.06 * side)
        parts.rod(chest + (0, 0.2 * side, 0.06), handle * mirror, 0.11, shirt, CLOTH)
        parts.rod(seat, knee * mirror, 0.17, trousers, CLOTH)
        parts.rod(knee * mirror, pedal * mirror, 0.13, trousers, CLOTH)


def _pick(rng: np.random.Generator, colors) -> tuple:
    """One of the colours, slightly varied."""
    return tuple(np.array(colors[rng.integers(len(colors))]) * rng.uniform(0.8, 1.2))
