"""Solids that everything but the ground is made of: oriented boxes, cylinders and ellipsoids.

A solid is an affine map from the world into its unit space, where it is

- BOX: |z| <= 1, |x| <= 1 - taper_x (z + 1) / 2, |y| <= 1 - taper_y (z + 1) / 2. Tapers in [0, 1]:
  (0, 0) is a box, (0, 1) a gable roof, in between the cabin of a car;
- CYLINDER: |z| <= 1, x^2 + y^2 <= (1 - taper_x (z + 1) / 2)^2. A taper of 1 is a cone;
- ELLIPSOID: x^2 + y^2 + z^2 <= 1.

K: solids. Metres; frames are those of the object (x forward, y left, z up) or the world.
"""
from dataclasses import dataclass, fields
from typing import Iterable, List, Optional, Sequence, Tuple

import numpy as np

BOX, CYLINDER, ELLIPSOID = 0, 1, 2


@dataclass
class Solids:
    """Arrays of solids.

    Attributes:
        kinds: (K,) int64, BOX, CYLINDER or ELLIPSOID.
        from_unit: (K, 3, 4) float64, unit space to the frame.
        to_unit: (K, 3, 4) float64, its inverse.
        tapers: (K, 2) float64.
        half_sizes: (K, 3) float64, along the solid's own axes.
        materials: (K,) int64, see :mod:`.materials`.
        colors: (K, 3) float64, linear RGB.
        classes: (K,) uint8, Occ3D's.
        objects: (K,) int32, ids.
    """
    kinds: np.ndarray
    from_unit: np.ndarray
    to_unit: np.ndarray
    tapers: np.ndarray
    half_sizes: np.ndarray
    materials: np.ndarray
    colors: np.ndarray
    classes: np.ndarray
    objects: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def placed(self, pose: np.ndarray) -> 'Solids':
        """The solids with their frame at ``pose``, (4, 4) rigid, in another frame."""
        inverse = np.linalg.inv(pose)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values['from_unit'] = _chain(pose[None, :3], self.from_unit)
        values['to_unit'] = _chain(self.to_unit, inverse[None, :3])
        return Solids(**values)

    def bounds(self) -> Tuple[np.ndarray, np.ndarray]:
        """Axis-aligned bounding boxes of the solids: (K, 3) lower and upper corners."""
        axes, centers = self.from_unit[:, :, :3], self.from_unit[:, :, 3]
        flat = np.abs(axes).sum(2)
        round_xy = np.sqrt((axes[:, :, :2] ** 2).sum(2)) + np.abs(axes[:, :, 2])
        round_xyz = np.sqrt((axes ** 2).sum(2))
        extents = np.choose(self.kinds[:, None], [flat, round_xy, round_xyz])
        return centers - extents, centers + extents

    @staticmethod
    def joined(parts: Iterable['Solids']) -> 'Solids':
        """All solids of the parts, in their order."""
        parts = list(parts)
        if not parts:
            return SolidBuilder(0, 0).build()
        return Solids(**{f.name: np.concatenate([getattr(part, f.name) for part in parts])
                         for f in fields(Solids)})


class SolidBuilder:
    """Collects the solids of one object, in the object's frame.

    Args:
        semantic_class: Occ3D's id that all of them get.
        object_id: id that all of them get.
    """

    def __init__(self, semantic_class: int, object_id: int):
        self.semantic_class, self.object_id = semantic_class, object_id
        self._rows: List[tuple] = []

    def box(self, center: Sequence[float], size: Sequence[float], color, material: int = 0,
            taper: Tuple[float, float] = (0., 0.), turn: Optional[np.ndarray] = None) -> None:
        """A box of ``size`` (x, y, z); ``turn`` (3, 3) rotates it about its centre."""
        self._add(BOX, center, size, color, material, taper, turn)

    def cylinder(self, center: Sequence[float], size: Sequence[float], color, material: int = 0,
                 taper: float = 0., turn: Optional[np.ndarray] = None) -> None:
        """A cylinder (cone) along z of diameters size[:2] and height size[2]."""
        self._add(CYLINDER, center, size, color, material, (taper, 0.), turn)

    def ellipsoid(self, center: Sequence[float], size: Sequence[float], color, material: int = 0,
                  turn: Optional[np.ndarray] = None) -> None:
        """An ellipsoid of diameters ``size``."""
        self._add(ELLIPSOID, center, size, color, material, (0., 0.), turn)

    def rod(self, start: Sequence[float], end: Sequence[float], width: float, color,
            material: int = 0) -> None:
        """A cylinder of diameter ``width`` from one point to another."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        self.cylinder((start + end) / 2, (width, width, np.linalg.norm(end - start)), color,
                      material, turn=_turn_z_to(end - start))

    def build(self) -> Solids:
        """The solids collected so far."""
        count = len(self._rows)
        columns = list(zip(*self._rows)) if count else [(), (), (), (), (), ()]
        from_unit = np.array(columns[1], float).reshape(count, 3, 4)
        to_unit = np.linalg.inv(from_unit[:, :, :3])
        offset = -np.einsum('kij,kj->ki', to_unit, from_unit[:, :, 3])
        return Solids(
            kinds=np.array(columns[0], np.int64), from_unit=from_unit,
            to_unit=np.concatenate([to_unit, offset[:, :, None]], 2),
            tapers=np.array(columns[2], float).reshape(count, 2),
            half_sizes=np.array(columns[3], float).reshape(count, 3),
            materials=np.array(columns[4], np.int64),
            colors=np.array(columns[5], float).reshape(count, 3),
            classes=np.full(count, self.semantic_class, np.uint8),
            objects=np.full(count, self.object_id, np.int32))

    def _add(self, kind, center, size, color, material, taper, turn) -> None:
        half = np.asarray(size, float) / 2
        if half.shape != (3,) or not (half > 0).all():
            raise ValueError(f'size of a solid must be three positive lengths, not {size}')
        if not all(0 <= value <= 1 for value in taper):
            raise ValueError(f'tapers of a solid must be in [0, 1], not {taper}')
        axes = (np.eye(3) if turn is None else turn) * half
        matrix = np.concatenate([axes, np.asarray(center, float)[:, None]], 1)
        self._rows.append((kind, matrix, taper, half, material, color))


def pose_at(position: Sequence[float], yaw: float) -> np.ndarray:
    """(4, 4) pose of an upright object: at ``position``, turned by ``yaw`` radians about z."""
    pose = np.eye(4)
    pose[:3, :3] = turn_about(2, yaw)
    pose[:3, 3] = position
    return pose


def turn_about(axis: int, angle: float) -> np.ndarray:
    """(3, 3) rotation by ``angle`` radians about axis 0, 1 or 2."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn


def _chain(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Affine ``left`` after affine ``right``, both (..., 3, 4)."""
    product = left[..., :3] @ right
    product[..., 3] += left[..., 3]
    return product


def _turn_z_to(direction: np.ndarray) -> np.ndarray:
    """(3, 3) rotation whose z axis is ``direction``."""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0., 1., 0.] if abs(z[1]) < 0.9 else [1., 0., 0.], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)
