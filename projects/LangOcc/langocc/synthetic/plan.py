"""The plan of a street: its roads, what lies beside them, and the way the ego car takes.

Metres and radians, world frame.
"""
from dataclasses import dataclass
from typing import List

import numpy as np

from .casting import ground_heights
from .ground import ISLAND_HALF_WIDTH, Ground, Road, Verges
from .paths import Path
from .random import generator

LENGTH = 130.  # metres of the main road between its ends
_BORDER = 105.  # metres of world beyond them


@dataclass
class Character:
    """How a street differs from others; densities are from 0 to 1.

    Attributes:
        buildings: share of the street's front that is built up.
        floors: usual number of floors.
        setback: metres from the sidewalk to the houses.
        trees, parked, traffic, people: densities.
        works: there are road works.
    """
    buildings: float
    floors: int
    setback: float
    trees: float
    parked: float
    traffic: float
    people: float
    works: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> 'Character':
        """From villages to inner cities."""
        urban = rng.uniform()
        return cls(buildings=rng.uniform(0.35, 0.6) + 0.35 * urban,
                   floors=1 + int(rng.integers(1, 3)) + int(4 * urban * rng.uniform()),
                   setback=rng.uniform(0.5, 3.) + 5. * (1 - urban) * rng.uniform(),
                   trees=rng.uniform(0.15, 1.), parked=rng.uniform(0.1, 0.85),
                   traffic=rng.uniform(0.2, 1.), people=rng.uniform(0.15, 0.5) + 0.5 * urban,
                   works=bool(rng.uniform() < 0.55))


class Route:
    """The way of the ego car.

    Args:
        path: in the plane.
        ground: it drives on.

    Attributes:
        length: metres.
    """

    def __init__(self, path: Path, ground: Ground) -> None:
        self.path, self.length, self._ground = path, path.length, ground

    def pose(self, s: float) -> np.ndarray:
        """(4, 4) ego pose: rear axle on the road at arc length ``s``, x forward along the slope.

        Raises:
            ValueError: ``s`` is not on the route.
        """
        if not 0 <= s <= self.length:
            raise ValueError(f'arc length {s} is not on the route of {self.length:.1f} m')
        x, y, heading = self.path.at(s)
        along = np.array([np.cos(heading), np.sin(heading)])
        left = np.array([-along[1], along[0]])
        # Slopes over the car's length and width: a road's height is smooth at that scale.
        points = np.array([x, y]) + np.stack([0 * along, 1.5 * along, -1.5 * along, 0.7 * left,
                                              -0.7 * left])
        heights = ground_heights(self._ground.arrays, points)
        forward = np.array([*along, (heights[1] - heights[2]) / 3.])
        forward /= np.linalg.norm(forward)
        side = np.array([*left, (heights[3] - heights[4]) / 1.4])
        up = np.cross(forward, side)
        up /= np.linalg.norm(up)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([forward, np.cross(up, forward), up], 1)
        pose[:3, 3] = x, y, heights[0]
        return pose


@dataclass
class Plan:
    """Roads (main first), ground, route and character of a scene."""
    roads: List[Road]
    ground: Ground
    route: Route
    character: Character


def street_plan(seed: int, index: int) -> Plan:
    """Draws the plan of a scene."""
    rng = generator(seed, index, 'plan')
    form = ('straight', 'curve', 'double', 'turn', 'turn')[rng.integers(5)]
    lanes = 1 + int(rng.random() < 0.4)
    median = ISLAND_HALF_WIDTH + 0.3 if lanes == 2 and rng.random() < 0.5 else 0.
    parking = 2.3 if rng.random() < 0.6 else 0.
    main = Road(_main_path(rng, form), lanes, rng.uniform(3.2, 3.6), parking, median)
    roads = [main] + _crossing(rng, main, form)
    if form == 'turn':
        path = _turning_path(rng, main, roads[1])
    else:
        path = main.path.offset(main.lane(int(rng.integers(lanes))))
    verges = Verges(grass=rng.uniform(1.2, 2.2) if rng.random() < 0.45 else 0.,
                    sidewalk=rng.uniform(1.7, 3.6) if rng.random() < 0.9 else 0.,
                    paved=rng.uniform(-0.6, 1.2), relief=rng.uniform(0.2, 2.2))
    center = main.path.at(LENGTH / 2)[:2]
    ground = Ground(roads, verges, rng, center, LENGTH / 2 + _BORDER)
    return Plan(roads, ground, Route(path, ground), Character.drawn(rng))


def _main_path(rng: np.random.Generator, form: str) -> Path:
    """The centre line, about the origin."""
    heading = rng.uniform(-np.pi, np.pi)
    side = rng.choice([-1., 1.])
    if form in ('straight', 'turn'):
        pieces = [(LENGTH, 0.)]
    elif form == 'curve':
        arc, radius = rng.uniform(40., 70.), rng.uniform(38., 80.)
        first = rng.uniform(20., LENGTH - arc - 20.)
        pieces = [(first, 0.), (arc, side / radius), (LENGTH - arc - first, 0.)]
    else:
        arc, radius = rng.uniform(30., 45.), rng.uniform(35., 70.)
        pieces = [(15., 0.), (arc, side / radius), (LENGTH - 30. - 2 * arc, 0.),
                  (arc, -side / radius), (15., 0.)]
    start = -LENGTH / 2 * np.array([np.cos(heading), np.sin(heading)])
    return Path.of((*start, heading), pieces)


def _crossing(rng: np.random.Generator, main: Road, form: str) -> List[Road]:
    """Roads across the main one, all of one width: where the ego car turns, else none to two."""
    width = rng.uniform(3.1, 3.5)
    if form == 'turn':
        places = [LENGTH / 2 + rng.uniform(-6., 6.)]
    else:
        places = [[], [rng.uniform(5., 125.)], [rng.uniform(5., 40.), rng.uniform(90., 125.)]][
            rng.integers(3)]
    roads = []
    for s in places:
        x, y, heading = main.path.at(s)
        heading += np.pi / 2 + rng.uniform(-0.2, 0.2)
        roads.append(Road(Path.of((x, y, heading), [(1., 0.)]), 1, width, 0.))
    return roads


def _turning_path(rng: np.random.Generator, main: Road, cross: Road) -> Path:
    """Along the main road's inner (left turn) or outer (right turn) lane, then along the other."""
    left = bool(rng.random() < 0.5)
    center = cross.path.at(0.)
    first = main.path.at(main.path.project(center[None, :2])[0][0])[2]
    second = center[2] if left else center[2] + np.pi
    ahead, after = _unit(first), _unit(second)
    lane = main.lane(0 if left else main.lanes - 1)
    start = center[:2] + lane * _unit(first + np.pi / 2)
    end = center[:2] + cross.lane(0) * _unit(second + np.pi / 2)
    # The lanes meet at start + u ahead = end + v after.
    u = np.linalg.solve(np.stack([ahead, -after], 1), end - start)[0]
    angle = (second - first + np.pi) % (2 * np.pi) - np.pi
    radius = 10. if left else 6.5
    tangent = radius * np.tan(abs(angle) / 2)
    before = rng.uniform(38., 48.)
    begin = start + (u - tangent - before) * ahead
    return Path.of((*begin, first), [(before, 0.), (radius * abs(angle), np.sign(angle) / radius),
                                     (96. - before, 0.)])


def _unit(heading: float) -> np.ndarray:
    return np.array([np.cos(heading), np.sin(heading)])
