"""The synthetic LiDAR: 32 beams over a full turn, and nuScenes-lidarseg's 32 raw categories.

The sweep is taken at one instant; nuScenes' points are brought to the instant of the sweep's end,
so both look alike but for the distortion of moving objects, which is left out here.

Legend: R beams fired, P points returned. LiDAR frame: x right, y forward, z up, metres.
"""
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import numpy as np

from ..lidarseg import CATEGORY_TO_CLASS, CLASS_TO_CATEGORY, LIDARSEG_CATEGORIES
from ..occ3d import OCC3D_CLASSES

NUM_BEAMS, NUM_AZIMUTHS = 32, 1080
ELEVATIONS = (-30., 10.)  # degrees, lowest and highest beam
MAX_RANGE = 70.
RANGE_NOISE = 0.02  # metres, standard deviation
# Chance of no return: everywhere, more at the end of the range, and for a surface seen edge-on.
_DROPOUT, _FAR_DROPOUT, _GRAZING_DROPOUT = 0.02, 0.25, 0.30

# Share of the light that comes back, by class: dark asphalt, bright signs and plates.
_REFLECTANCE = np.array([.3, .45, .35, .5, .4, .55, .35, .3, .7, .5, .45, .12, .2, .3, .25, .4,
                         .3])


@dataclass(frozen=True)
class Sweep:
    """One turn of the LiDAR.

    Attributes:
        points: (P, 5) float32: x, y, z in metres, intensity 0 ... 255, ring 0 (lowest) ... 31.
        categories: (P,) uint8 index in :data:`LIDARSEG_CATEGORIES`.
        objects: (P,) int32 object ids, -1 for what is no object.
        hits: (P, 3) float64 where the beams met surfaces, global, without range noise.
    """
    points: np.ndarray
    categories: np.ndarray
    objects: np.ndarray
    hits: np.ndarray


def category_to_class(category: str) -> int:
    """Occ3D class of a raw category; 0, 'others', for those that the challenge leaves out."""
    return OCC3D_CLASSES.index(CATEGORY_TO_CLASS.get(category, 'others'))


def category_classes() -> np.ndarray:
    """(32,) uint8 Occ3D class of every raw category, to look labels of points up in."""
    return np.array([category_to_class(name) for name in LIDARSEG_CATEGORIES], dtype=np.uint8)


def beam_directions(num_azimuths: int = NUM_AZIMUTHS) -> Tuple[np.ndarray, np.ndarray]:
    """Unit directions (R, 3) float64 in the LiDAR frame and rings (R,), azimuth by azimuth."""
    azimuths = np.arange(num_azimuths) * (2 * np.pi / num_azimuths)
    elevations = np.deg2rad(np.linspace(*ELEVATIONS, NUM_BEAMS))
    azimuth, elevation = (grid.reshape(-1) for grid in
                          np.meshgrid(azimuths, elevations, indexing='ij'))
    directions = np.stack([np.sin(azimuth) * np.cos(elevation),
                           np.cos(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1)
    return directions, np.tile(np.arange(NUM_BEAMS), num_azimuths)


def scan(snapshot, lidar2global: np.ndarray, rng: np.random.Generator,
         categories: Optional[Dict[int, str]] = None,
         num_azimuths: int = NUM_AZIMUTHS) -> Sweep:
    """Fires all beams into a snapshot of a world.

    Args:
        snapshot: a world at the LiDAR's time, with ``cast``.
        lidar2global: (4, 4).
        rng: random numbers of this sweep.
        categories: object id -> nuScenes category, finer than the class of its hits.
        num_azimuths: directions of a turn.

    Returns:
        The returned points, in the order of firing.
    """
    directions, rings = beam_directions(num_azimuths)
    world_directions = directions @ lidar2global[:3, :3].T
    origins = np.broadcast_to(lidar2global[:3, 3], world_directions.shape)
    hits = snapshot.cast(origins, world_directions)
    distances = np.asarray(hits.distances, dtype=np.float64)
    facing = np.abs(np.einsum('rc,rc->r', world_directions, hits.normals))
    kept = np.flatnonzero(_returns(distances, facing, rng))
    noise = rng.normal(0., RANGE_NOISE, len(directions))[kept]
    points = directions[kept] * (distances[kept] + noise)[:, None]
    classes, objects = hits.classes[kept], np.asarray(hits.objects[kept], dtype=np.int32)
    speckle = rng.uniform(0.8, 1.2, len(directions))[kept]
    intensity = 255 * _REFLECTANCE[classes] * (0.3 + 0.7 * facing[kept]) * speckle
    values = np.column_stack([points, np.clip(np.round(intensity), 0, 255), rings[kept]])
    surface = world_directions[kept] * distances[kept, None] + lidar2global[:3, 3]
    return Sweep(values.astype(np.float32), raw_categories(classes, objects, categories or {}),
                 objects, surface)


def _returns(distances: np.ndarray, facing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(R,) bool: which beams come back."""
    near = distances < MAX_RANGE
    share = np.where(near, distances, 0.) / MAX_RANGE
    chance = _DROPOUT + _FAR_DROPOUT * share**2 + _GRAZING_DROPOUT * (1 - facing)**8
    return near & (rng.uniform(size=len(distances)) >= chance)


def raw_categories(classes: np.ndarray, objects: np.ndarray,
                   categories: Dict[int, str]) -> np.ndarray:
    """(P,) uint8 raw categories: the object's own where it has one, else its class's.

    Args:
        classes: (P,) Occ3D classes of the hits.
        objects: (P,) object ids.
        categories: object id -> nuScenes category.

    Raises:
        ValueError: a class is not one of Occ3D's 17 or a category is not one of the 32.
    """
    if len(classes) and classes.max() >= len(_REFLECTANCE):
        raise ValueError(f'LiDAR hits have class {classes.max()}, expected 0 ... 16')
    by_class = np.array([LIDARSEG_CATEGORIES.index(CLASS_TO_CATEGORY[name])
                         for name in OCC3D_CLASSES[:-1]], dtype=np.uint8)
    raw = by_class[classes]
    for object_id in np.unique(objects[objects >= 0]):
        name = categories.get(int(object_id))
        if name is None:
            continue
        if name not in LIDARSEG_CATEGORIES:
            raise ValueError(f'object {object_id} has category {name!r}, which is none of '
                             "nuScenes-lidarseg's 32")
        mine = objects == object_id
        # A rider on a bicycle, the load of a truck: parts of another class keep it.
        raw[mine & (classes == category_to_class(name))] = LIDARSEG_CATEGORIES.index(name)
    return raw
