"""The ground: heights and what covers it, from the roads that cross it.

Fields are sampled at the nodes of a square raster and are bilinear between them, so that kerbs and
markings are sharp although the raster is coarse. P: points. Metres, world frame.
"""
from dataclasses import dataclass
from typing import List, NamedTuple

import numpy as np
from numba import njit

from .casting import GroundArrays
from .paths import Path

DRIVEABLE, OTHER_FLAT, SIDEWALK, TERRAIN = 11, 12, 13, 14
FIELD_CELL, HEIGHT_CELL = 0.5, 0.25
FIELDS = ('edge', 'main_lateral', 'main_s', 'cross_lateral', 'cross_s', 'paved', 'island')
KERB, _KERB_WIDTH = 0.14, 0.35  # metres; the step is wider than the raster's cell
ISLAND_HALF_WIDTH = 0.9
_FILLET = 8.  # metres: how far about a corner kerbs are rounded
_MARGIN = 110.


@dataclass
class Road:
    """A road of even width.

    Attributes:
        path: centre line.
        half_width: to the kerb.
        lanes: a direction.
        lane_width: metres.
        parking: width of the parking strip at either kerb; 0 for none.
    """
    path: Path
    lanes: int
    lane_width: float
    parking: float
    median: float = 0.

    @property
    def half_width(self) -> float:
        return self.median + self.lanes * self.lane_width + self.parking

    def lane(self, number: int) -> float:
        """Lateral of a lane's centre on the right, counted from the middle."""
        return -(self.median + (number + 0.5) * self.lane_width)


class Verges(NamedTuple):
    """What lies beside the roads: widths in metres from the kerb outwards."""
    grass: float
    sidewalk: float
    paved: float       # level of noise above which lots are paved; > 1 never
    relief: float      # height of hills away from the roads


class Ground:
    """Heights and fields of one scene.

    Args:
        roads: the main road first, then those that cross it.
        verges: what lies beside them.
        rng: slopes and hills are drawn from it.
        center: (x, y) of the raster's middle.
        half_extent: metres from there to the raster's borders; constant beyond.
    """

    def __init__(self, roads: List[Road], verges: Verges, rng: np.random.Generator,
                 center: np.ndarray, half_extent: float) -> None:
        self.roads, self.verges = roads, verges
        self.origin = np.asarray(center, float) - half_extent
        nodes = int(np.ceil(2 * half_extent / FIELD_CELL)) + 1
        axis = np.arange(nodes) * FIELD_CELL
        x, y = np.meshgrid(self.origin[0] + axis, self.origin[1] + axis)
        points = np.stack([x.ravel(), y.ravel()], 1)
        paved = _waves(points, rng, 45., 4) - verges.paved
        self.fields = self._fields(points, paved).reshape(nodes, nodes, len(FIELDS))
        base = self._base(points, rng).reshape(nodes, nodes)
        fine = _refined(np.concatenate([self.fields[:, :, [0, 6]], base[:, :, None]], 2))
        heights = fine[:, :, 2] + self._kerbs(fine[:, :, 0], fine[:, :, 1])
        self.arrays = GroundArrays(np.ascontiguousarray(heights, np.float32), *self.origin,
                                   HEIGHT_CELL, float(heights.max()))

    def sample(self, points: np.ndarray) -> np.ndarray:
        """(P, len(FIELDS)) float32 fields at points (P, 2 or more)."""
        return _sample(self.fields, *self.origin, FIELD_CELL, np.ascontiguousarray(points))

    def classes(self, samples: np.ndarray) -> np.ndarray:
        """(P,) uint8 Occ3D classes from samples of the fields."""
        edge, paved, island = samples[:, 0], samples[:, 5], samples[:, 6]
        outer = self.verges.grass + self.verges.sidewalk
        classes = np.where(paved > 0, OTHER_FLAT, TERRAIN)
        classes[(edge <= outer) & (edge > self.verges.grass)] = SIDEWALK
        classes[(edge <= self.verges.grass) & (edge > 0)] = TERRAIN
        classes[edge <= 0] = DRIVEABLE
        classes[(edge <= 0) & (island < 0)] = OTHER_FLAT
        return classes.astype(np.uint8)

    def _fields(self, points: np.ndarray, paved: np.ndarray) -> np.ndarray:
        main, *crossing = self.roads
        main_s, main_lateral = main.path.project(points)
        edge = np.abs(main_lateral) - main.half_width
        cross_s = np.full(len(points), 1e3)
        cross_lateral = np.full(len(points), 1e3)
        cross_edge = np.full(len(points), 1e3)
        for road in crossing:
            s, lateral = road.path.project(points)
            nearer = np.abs(lateral) < np.abs(cross_lateral)
            cross_s = np.where(nearer, s, cross_s)
            cross_lateral = np.where(nearer, lateral, cross_lateral)
            cross_edge = np.minimum(cross_edge, np.abs(lateral) - road.half_width)
            edge = _smooth_minimum(edge, np.abs(lateral) - road.half_width)
        island = np.full(len(points), 1e3)
        if main.median:
            island = np.maximum(np.abs(main_lateral) - ISLAND_HALF_WIDTH, 9 - cross_edge)
        values = edge, main_lateral, main_s, cross_lateral, cross_s, paved, island
        return np.stack(values, 1).astype(np.float32)

    def _base(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Heights without kerbs: a slope, long waves, and hills away from the roads."""
        slope = rng.uniform(-0.025, 0.025, 2)
        height = points @ slope + rng.uniform(0.1, 0.5) * _waves(points, rng, 130., 3)
        edge = self.fields[:, :, 0].ravel()
        beyond = edge - self.verges.grass - self.verges.sidewalk - 1
        away = np.clip(beyond / 25, 0, 1) ** 2 * (3 - 2 * np.clip(beyond / 25, 0, 1))
        hills = self.verges.relief * (0.4 + _waves(points, rng, 60., 4))
        return height + away * hills

    def _kerbs(self, edge: np.ndarray, island: np.ndarray) -> np.ndarray:
        raised = np.maximum(edge, -island) / _KERB_WIDTH
        return KERB * np.clip(raised, 0, 1)


def _smooth_minimum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Minimum with a fillet where both are about equal."""
    blend = np.clip(0.5 + 0.5 * (second - first) / _FILLET, 0, 1)
    return second * (1 - blend) + first * blend - _FILLET * blend * (1 - blend)


def _waves(points: np.ndarray, rng: np.random.Generator, wavelength: float,
           count: int) -> np.ndarray:
    """(P,) a smooth random field of about -1 to 1: plane waves of near ``wavelength``."""
    angles, phases = rng.uniform(0, np.pi, count), rng.uniform(0, 2 * np.pi, count)
    lengths = wavelength * rng.uniform(0.7, 1.4, count)
    numbers = 2 * np.pi / lengths * np.stack([np.cos(angles), np.sin(angles)])
    return np.sin(points @ numbers + phases).sum(1) / np.sqrt(count)


def _refined(values: np.ndarray) -> np.ndarray:
    """Bilinear values (2 n - 1, 2 n - 1, c) between those of nodes (n, n, c)."""
    rows = np.empty((2 * len(values) - 1, *values.shape[1:]))
    rows[::2], rows[1::2] = values, (values[1:] + values[:-1]) / 2
    both = np.empty((len(rows), 2 * values.shape[1] - 1, values.shape[2]))
    both[:, ::2], both[:, 1::2] = rows, (rows[:, 1:] + rows[:, :-1]) / 2
    return both


@njit(cache=True, error_model='numpy')
def _sample(fields, x0, y0, cell, points):
    """Bilinear values of the fields at points."""
    rows, columns, channels = fields.shape
    values = np.empty((len(points), channels), np.float32)
    for p in range(len(points)):
        u = min(max((points[p, 0] - x0) / cell, 0.), columns - 1.000001)
        v = min(max((points[p, 1] - y0) / cell, 0.), rows - 1.000001)
        i, j = int(u), int(v)
        u, v = u - i, v - j
        for c in range(channels):
            low = fields[j, i, c] * (1 - u) + fields[j, i + 1, c] * u
            high = fields[j + 1, i, c] * (1 - u) + fields[j + 1, i + 1, c] * u
            values[p, c] = low * (1 - v) + high * v
    return values
