"""What moves: vehicles and cycles in the lanes, people on the sidewalks.

For the first ``KEPT_APART`` seconds of a scene nothing meets the ego car, wherever it is on its
route, nor anything else that moves, nor what stands with a box; later, ways may cross. Hedges and
trees have no box: people may brush through them.
"""
from typing import Callable, List

import numpy as np

from . import people, vehicles
from .ground import Road
from .plan import LENGTH, Plan
from .random import generator
from .things import CLEARANCE, Thing

KEPT_APART = 12.  # seconds for which ways are kept apart: 24 key frames
_TIMES = np.arange(-1., KEPT_APART + 0.1, 0.25)
_REACH = 70.


class Traffic:
    """Adds moving things one by one.

    Args:
        keys: seed and index of the scene.
        plan: its plan.
        standing: what it must not run into.
    """

    def __init__(self, keys, plan: Plan, standing: List[Thing]) -> None:
        self.keys, self.plan, self.first_id = keys, plan, len(standing)
        self.things: List[Thing] = []
        self._spots: List[np.ndarray] = []
        self._standing = np.array([thing.place[:2] for thing in standing if thing.category]
                                  or np.zeros((0, 2)))

    def add(self, make: Callable, category: str, attribute: str, road: Road, start: float,
            lateral: float, speed: float, *args) -> bool:
        """Adds a thing if its way is free."""
        object_id = self.first_id + len(self.things)
        solids = make(generator(*self.keys, 'object', object_id), object_id, *args)
        thing = Thing(object_id, solids, np.zeros(3), category, attribute, road.path, start,
                      lateral, speed)
        spots = self._ways(thing)
        if not self._free(thing, spots):
            return False
        self.things.append(thing)
        self._spots.append(spots)
        return True

    def _ways(self, thing: Thing) -> np.ndarray:
        """(T, 3, 2) front, middle and back of the thing over time."""
        lower, upper = thing.extents
        reach = max((upper[0] - lower[0]) / 2 - 0.8, 0.)
        along = thing.start + thing.speed * _TIMES[:, None] + reach * np.array([-1., 0., 1.])
        return thing.path.at(along, thing.lateral)[..., :2]

    def _free(self, thing: Thing, spots: np.ndarray) -> bool:
        """Clear of the route, of what stands with a box and of what moves."""
        width = thing.extents[1][1] - thing.extents[0][1]
        s, lateral = self.plan.route.path.project(spots.reshape(-1, 2))
        near = (s > -10) & (s < self.plan.route.length + 10)
        if (np.abs(lateral[near]) < CLEARANCE + width / 2).any():
            return False
        apart = 0.9 + width / 2
        gaps = np.linalg.norm(spots.reshape(-1, 1, 2) - self._standing, axis=2)
        if gaps.size and gaps.min() < apart:
            return False
        return all(np.linalg.norm(spots[:, :, None] - other[:, None], axis=3).min() > apart + 0.4
                   for other in self._spots)


def moving_things(seed: int, index: int, plan: Plan, standing: List[Thing]) -> List[Thing]:
    """The moving things of a scene."""
    rng = generator(seed, index, 'traffic')
    traffic = Traffic((seed, index), plan, standing)
    for number, road in enumerate(plan.roads):
        last = LENGTH + _REACH if number == 0 else _REACH
        for lane in range(road.lanes):
            for side in (1, -1):
                _fill_lane(rng, traffic, road, side * -road.lane(lane), -side, last)
        for side in (1, -1):
            _fill_sidewalk(rng, traffic, road, side, last)
    return traffic.things


def _fill_lane(rng: np.random.Generator, traffic: Traffic, road: Road, lateral: float,
               direction: int, last: float) -> None:
    """Vehicles of one speed along a lane; traffic keeps to the right."""
    speed = direction * rng.uniform(4., 11.)
    s = -_REACH + rng.uniform(0., 25.)
    while s < last:
        if rng.random() < 0.25 + 0.7 * traffic.plan.character.traffic:
            _add_vehicle(rng, traffic, road, s, lateral, speed)
        s += rng.uniform(14., 32.)


def _add_vehicle(rng: np.random.Generator, traffic: Traffic, road: Road, s: float, lateral: float,
                 speed: float) -> None:
    """One vehicle or cycle, or a lorry with a trailer."""
    form, moving, rider = rng.random(), 'vehicle.moving', 'cycle.with_rider'
    if form < 0.62:
        traffic.add(vehicles.car, 'vehicle.car', moving, road, s, lateral, speed)
    elif form < 0.72:
        if traffic.add(vehicles.truck, 'vehicle.truck', moving, road, s, lateral, speed):
            if rng.random() < 0.4:
                traffic.add(vehicles.trailer, 'vehicle.trailer', moving, road,
                            s - np.sign(speed) * 9.8, lateral, speed)
    elif form < 0.82:
        traffic.add(vehicles.bus, 'vehicle.bus.rigid', moving, road, s, lateral, speed)
    elif form < 0.91:
        traffic.add(people.bicycle, 'vehicle.bicycle', rider, road, s, lateral + np.sign(lateral),
                    speed, True)
    else:
        traffic.add(people.motorcycle, 'vehicle.motorcycle', rider, road, s, lateral, speed, True)


def _fill_sidewalk(rng: np.random.Generator, traffic: Traffic, road: Road, side: int,
                   last: float) -> None:
    """People walking up and down."""
    verges = traffic.plan.ground.verges
    s = -_REACH * 0.6
    while s < last:
        s += rng.uniform(4., 30.) * (1.3 - traffic.plan.character.people)
        kerb = verges.grass + max(verges.sidewalk, 1.) * rng.uniform(0.45, 0.85)
        speed = rng.choice([-1., 1.]) * rng.uniform(0.7, 1.7)
        traffic.add(people.pedestrian, 'human.pedestrian.adult', 'pedestrian.moving', road, s,
                    side * (road.half_width + kerb), speed)
