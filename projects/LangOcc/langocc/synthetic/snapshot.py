"""The world at one moment: what rays meet, how it looks, what fills voxels, which boxes there are.

R: rays, P: points, K: solids. Metres, world frame (z up); distances are along the ray.
"""
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np

from ..occ3d import FREE_CLASS
from .acceleration import TILE, picture_tiles, solid_grid
from .casting import (
    GROUND, NOTHING, SolidArrays, cast_pixels, cast_rays, ground_heights, hit_normals
)
from .ground import Ground
from .light import Light
from .overlap import solids_in_voxels
from .shading import Shader, picture
from .solids import Solids

SKY = 255
# Where else than at its centre a pixel with an outline is looked at, pixels from there.
_SHIFTS = np.array([[-0.35, 0.25], [0.35, -0.25]])


@dataclass
class Box:
    """The bounding box of an object.

    Attributes:
        object_id: as in hits.
        category: full nuScenes name.
        center: (3,) global.
        size: width, length, height, metres.
        yaw: radians about z; the length is along it.
        velocity: (2,) m/s, global.
        attribute: nuScenes name, or ''.
    """
    object_id: int
    category: str
    center: np.ndarray
    size: Tuple[float, float, float]
    yaw: float
    velocity: np.ndarray
    attribute: str


@dataclass
class Hits:
    """What rays meet: distances (R,) inf for sky, classes (R,) uint8, objects (R,) int32 with -1
    for ground and sky, normals (R, 3) zero for sky, points (R, 3) nan for sky."""
    distances: np.ndarray
    classes: np.ndarray
    objects: np.ndarray
    normals: np.ndarray
    points: np.ndarray


@dataclass
class View:
    """A picture with its truth: image (H, W, 3) uint8, distances (H, W) along the ray with inf for
    sky, classes (H, W) uint8, objects (H, W) int32 with -1 for ground and sky."""
    image: np.ndarray
    distances: np.ndarray
    classes: np.ndarray
    objects: np.ndarray


class Snapshot:
    """Solids, ground and light at one moment.

    Args:
        solids: all solids, standing and moving, in the world.
        ground: the ground.
        light: sun, sky and haze.
        boxes: of the objects that have one.
    """

    def __init__(self, solids: Solids, ground: Ground, light: Light, boxes: Sequence[Box]) -> None:
        self.solids, self.ground, self.light = solids, ground, light
        self.boxes: List[Box] = list(boxes)
        lower, upper = solids.bounds()
        self.arrays = SolidArrays(solids.kinds, solids.to_unit, solids.tapers, lower, upper)
        self.grid = solid_grid(lower, upper)
        self._shader = Shader(solids, ground, light, self.arrays, self.grid)

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """What rays meet first.

        Args:
            origins: (R, 3). A ray from inside a solid does not see that solid.
            directions: (R, 3) unit.

        Raises:
            ValueError: the arrays are not both (R, 3).
        """
        origins, directions = _rays(origins, directions)
        distances, indices = cast_rays(self.arrays, self.grid, self.ground.arrays, origins,
                                       directions)
        with np.errstate(invalid='ignore'):
            points = origins + distances[:, None] * directions
        points[indices == NOTHING] = np.nan
        classes, objects = self._names(indices, points)
        return Hits(distances, classes, objects,
                    hit_normals(self.arrays, self.ground.arrays, points, indices), points)

    def render(self, cam2img: np.ndarray, cam2global: np.ndarray, size: Tuple[int, int]) -> View:
        """The picture of a pinhole camera, with the hits of ``cast`` at pixel centres.

        Args:
            cam2img: (3, 3) intrinsics; integer coordinates are pixel centres.
            cam2global: (4, 4), camera x right, y down, z forward.
            size: (W, H) pixels.
        """
        width, height = size
        tiles = picture_tiles(self.solids, cam2img, cam2global, size)
        v, u = np.divmod(np.arange(width * height), width)
        pixels = np.stack([u, v], 1).astype(np.float64)
        angle = 1 / cam2img[0, 0]

        def look(chosen, shift):
            directions = pixel_directions(cam2img, cam2global, pixels[chosen] + shift)
            tile = v[chosen] // TILE * tiles.columns + u[chosen] // TILE
            origin = np.ascontiguousarray(cam2global[:3, 3], dtype=np.float64)
            distances, indices = cast_pixels(self.arrays, self.ground.arrays, *tiles[:3], origin,
                                             directions, tile)
            with np.errstate(invalid='ignore'):
                points = origin + distances[:, None] * directions
            colors = self._shader.colors(points, directions, distances, indices, angle)
            return points, distances, indices, colors

        points, distances, indices, colors = look(slice(None), 0.)
        chosen = _outlines(indices.reshape(height, width))
        colors[chosen] += sum(look(chosen, shift)[3] for shift in _SHIFTS)
        colors[chosen] /= len(_SHIFTS) + 1
        classes, objects = self._names(indices, points)
        return View(picture(colors).reshape(height, width, 3), distances.reshape(height, width),
                    classes.reshape(height, width), objects.reshape(height, width))

    def occupancy(self, points: np.ndarray, half: float) -> np.ndarray:
        """Class of what reaches into voxels, 17 (free) where nothing does.

        Solids are filled, the ground is the shell of voxels that its surface passes through. Solids
        win over the ground, and of several solids the last one: moving over parked over standing.

        Args:
            points: (P, 3) centres of voxels with axes along the world's.
            half: half the voxel's edge, metres.

        Returns:
            (P,) uint8 Occ3D classes.
        """
        points = np.ascontiguousarray(points, dtype=np.float64)
        found = solids_in_voxels(self.arrays, self.solids.from_unit, self.solids.half_sizes,
                                 self.grid, points, float(half))
        classes = np.full(len(points), FREE_CLASS, np.uint8)
        shell = self._shell(points, half) & (found < 0)
        classes[shell] = self.ground.classes(self.ground.sample(points[shell]))
        classes[found >= 0] = self.solids.classes[found[found >= 0]]
        return classes

    def _shell(self, points: np.ndarray, half: float) -> np.ndarray:
        """(P,) bool: the ground passes through the voxel, as its corners and centre tell."""
        lowest, highest = np.full(len(points), np.inf), np.full(len(points), -np.inf)
        for dx, dy in ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            height = ground_heights(self.ground.arrays, points[:, :2] + half * np.array([dx, dy]))
            lowest, highest = np.minimum(lowest, height), np.maximum(highest, height)
        return (lowest <= points[:, 2] + half) & (highest >= points[:, 2] - half)

    def _names(self, indices: np.ndarray, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Classes (R,) uint8 and objects (R,) int32 of hits."""
        classes, objects = np.full(len(indices), SKY, np.uint8), np.full(len(indices), -1, np.int32)
        solid, ground = indices >= 0, indices == GROUND
        classes[solid], objects[solid] = (self.solids.classes[indices[solid]],
                                          self.solids.objects[indices[solid]])
        classes[ground] = self.ground.classes(self.ground.sample(points[ground]))
        return classes, objects


def pixel_directions(cam2img: np.ndarray, cam2global: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(R, 3) unit directions, global, of the rays through pixel coordinates (R, 2)."""
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
    directions = homogeneous @ (cam2global[:3, :3] @ np.linalg.inv(cam2img)).T
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _outlines(indices: np.ndarray) -> np.ndarray:
    """Numbers, row by row, of pixels beside one that shows another solid; indices (H, W)."""
    other = np.zeros(indices.shape, bool)
    rows, columns = indices[1:] != indices[:-1], indices[:, 1:] != indices[:, :-1]
    other[1:] |= rows
    other[:-1] |= rows
    other[:, 1:] |= columns
    other[:, :-1] |= columns
    return np.flatnonzero(other)


def _rays(origins: np.ndarray, directions: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Both as contiguous float64 (R, 3)."""
    origins = np.ascontiguousarray(origins, dtype=np.float64)
    directions = np.ascontiguousarray(directions, dtype=np.float64)
    if origins.ndim != 2 or origins.shape[1] != 3 or directions.shape != origins.shape:
        raise ValueError(f'origins and directions of rays must both be (R, 3), not '
                         f'{origins.shape} and {directions.shape}')
    return origins, directions
