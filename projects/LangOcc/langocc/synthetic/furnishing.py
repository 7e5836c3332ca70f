"""What stands in a street: buildings, greenery, furniture, parked vehicles, road works."""
from typing import Callable, List, Optional

import numpy as np

from . import buildings, people, street_things, vehicles
from .ground import Road
from .plan import LENGTH, Plan
from .random import generator
from .solids import Solids
from .things import Places, Thing

_REACH = 85.  # metres beyond the main road's ends, and along the others, that are furnished
PARKED = 'vehicle.parked'


class Furnisher:
    """Puts things into a street one after the other.

    Args:
        seed, index: of the scene.
        plan: its plan.

    Attributes:
        things: what has been placed.
    """

    def __init__(self, seed: int, index: int, plan: Plan) -> None:
        self.keys, self.plan = (seed, index), plan
        self.places = Places(plan.ground, plan.route.path)
        self.things: List[Thing] = []

    def furnish(self) -> List[Thing]:
        """Everything that stands, large things first."""
        self._parked()
        if self.plan.character.works:
            self._road_works()
        self._buildings()
        self._fronts()
        self._kerbside()
        self._greenery()
        return self.things

    def put(self, make: Callable[..., Solids], place: np.ndarray, *args, category: str = '',
            attribute: str = '', margin: float = 0.2, kerb: float = -np.inf) -> Optional[Thing]:
        """Makes an object and places it if there is room; ``args`` go to ``make``."""
        object_id = len(self.things)
        solids = make(generator(*self.keys, 'object', object_id), object_id, *args)
        thing = Thing(object_id, solids, np.asarray(place, float), category, attribute)
        if not self.places.take(thing.place, thing.extents, margin, kerb):
            return None
        self.things.append(thing)
        return thing

    def _sides(self):
        """Every road with its two sides (+1 left, -1 right) and the arc lengths to furnish."""
        for number, road in enumerate(self.plan.roads):
            first, last = (-_REACH, LENGTH + _REACH) if number == 0 else (-_REACH, _REACH)
            for side in (1, -1):
                yield road, side, first, last

    def _parked(self) -> None:
        """Vehicles in the parking strips, facing as traffic beside them does."""
        rng = generator(*self.keys, 'parked')
        for road, side, s, last in self._sides():
            while s < last:
                form = rng.random()
                step = 6.3
                if road.parking and rng.random() < self.plan.character.parked:
                    place = road.path.at(s, side * (road.half_width - road.parking / 2 - 0.05))
                    place[2] += np.pi if side > 0 else 0.
                    step = self._park(form, place)
                s += step + rng.uniform(0., 1.5)

    def _park(self, form: float, place: np.ndarray) -> float:
        """Parks a vehicle at a kerb and returns the metres that it takes."""
        kinds = ((0.8, vehicles.car, 'vehicle.car', 6.3),
                 (0.87, vehicles.truck, 'vehicle.truck', 9.5),
                 (0.92, vehicles.trailer, 'vehicle.trailer', 11.),
                 (0.95, vehicles.bus, 'vehicle.bus.rigid', 13.))
        for limit, make, category, length in kinds:
            if form < limit:
                self._on_road(make, place, category, PARKED)
                return length
        self._on_road(people.motorcycle, place, 'vehicle.motorcycle', 'cycle.without_rider', False)
        return 2.5

    def _on_road(self, make, place, category: str, attribute: str, *args) -> None:
        """Places something on the road, unless it is where roads cross."""
        sample = self.plan.ground.sample(place[None, :2])[0]
        lateral, s = sample[1], sample[2]
        clear = min(abs(lateral), abs(sample[3]))
        road = self.plan.roads[0] if abs(lateral) <= abs(sample[3]) else self.plan.roads[1]
        other = max(abs(lateral), abs(sample[3])) - 12.
        if clear <= road.half_width and other > 0 and np.isfinite(s):
            self.put(make, place, *args, category=category, attribute=attribute, margin=0.25)

    def _road_works(self) -> None:
        """An excavator fenced off by barriers and cones on an outer lane away from the route.

        Where it finds no room, barriers and cones stand alone, at the last place tried.
        """
        rng = generator(*self.keys, 'works')
        road = self.plan.roads[0]
        side = rng.choice([-1., 1.])
        edge = road.half_width - 0.5
        for _ in range(12):
            s, side = rng.uniform(5., LENGTH - 5.), -side
            place = road.path.at(s, side * (edge if road.parking else road.half_width + 2.2))
            place[2] += rng.uniform(-0.08, 0.08) + (np.pi if side > 0 else 0.)
            if self.put(vehicles.construction_vehicle, place, category='vehicle.construction',
                        attribute='vehicle.stopped', margin=0.1):
                break
        inner = side * (road.half_width + (-2.2 if road.parking else 0.4))
        for number in range(-4, 5):
            place = road.path.at(s + 2.4 * number, inner + rng.uniform(-0.05, 0.05))
            if abs(number) < 3:
                self.put(street_things.barrier, place, category='movable_object.barrier',
                         margin=0.05)
            else:
                self.put(street_things.cone, place, category='movable_object.trafficcone',
                         margin=0.05)
        for number in (-4, -3, 3, 4):
            place = road.path.at(s + 2.9 * number, inner + side * abs(abs(number) - 2) * 0.6)
            self.put(street_things.cone, place, category='movable_object.trafficcone', margin=0.05)

    def _buildings(self) -> None:
        """Fronts of houses along all roads."""
        rng = generator(*self.keys, 'buildings')
        character, verges = self.plan.character, self.plan.ground.verges
        for road, side, s, last in self._sides():
            setback = character.setback * rng.uniform(0.7, 1.4)
            while s < last:
                width, depth = rng.uniform(8., 20.), rng.uniform(8., 13.)
                floors = max(1, character.floors + int(rng.integers(-1, 3)))
                gap = rng.choice([0.3, 0.3, 4.]) if character.floors > 4 else rng.uniform(2., 7.)
                kerb = verges.grass + verges.sidewalk + setback * rng.uniform(0.8, 1.3)
                if rng.random() < character.buildings:
                    place = road.path.at(s + width / 2, side * (road.half_width + kerb + depth / 2))
                    place[2] += 0. if side > 0 else np.pi
                    self.put(buildings.building, place, width, depth, floors, margin=0.1,
                             kerb=kerb - 0.5 - setback / 2)
                s += width + gap

    def _fronts(self) -> None:
        """Fences, walls and hedges between sidewalk and lots."""
        rng = generator(*self.keys, 'fronts')
        verges = self.plan.ground.verges
        outer = verges.grass + verges.sidewalk + 0.6
        for road, side, s, last in self._sides():
            make = street_things.fence
            while s < last:
                length = rng.uniform(4., 9.)
                if rng.random() < 0.3:
                    make = (street_things.fence, street_things.hedge)[rng.integers(2)]
                if rng.random() < 0.45:
                    place = road.path.at(s + length / 2, side * (road.half_width + outer))
                    self.put(make, place, length, margin=0., kerb=outer - 0.5)
                s += length + rng.choice([0., 1.5])

    def _kerbside(self) -> None:
        """Lamps, trees, signs, bins, standing cycles and people near the kerb."""
        rng = generator(*self.keys, 'kerbside')
        character = self.plan.character
        for road, side, first, last in self._sides():
            inward = np.pi if side > 0 else 0.
            near = max(0.55, self.plan.ground.verges.grass / 2)
            for s in np.arange(first + rng.uniform(0., 20.), last, rng.uniform(24., 34.)):
                self._at(road, side, s, near, street_things.lamp, inward)
            spacing = rng.uniform(8., 14.)
            for s in np.arange(first + rng.uniform(0., 8.), last, spacing):
                if rng.random() < character.trees:
                    self._at(road, side, s + rng.uniform(-1., 1.), near + 0.3, street_things.tree,
                             rng.uniform(0., 6.), margin=-1.5)
            for s in np.arange(first + rng.uniform(0., 15.), last, 13.):
                self._furniture(rng, road, side, s + rng.uniform(-4., 4.), near)

    def _furniture(self, rng: np.random.Generator, road: Road, side: int, s: float,
                   near: float) -> None:
        """One small thing at the kerb."""
        ahead = 0. if side < 0 else np.pi
        form = rng.random()
        if form < 0.3:
            self._at(road, side, s, near, street_things.sign, ahead)
        elif form < 0.38:
            self._at(road, side, s, near, street_things.traffic_light, ahead)
        elif form < 0.55:
            self._at(road, side, s, near, street_things.bin_or_bench, ahead)
        elif form < 0.75:
            for number in range(rng.integers(1, 4)):
                self._at(road, side, s + 0.9 * number, near + 0.5, people.bicycle,
                         np.pi / 2 + rng.uniform(-0.3, 0.3), False, category='vehicle.bicycle',
                         attribute='cycle.without_rider')
        elif form < 0.85:
            self._at(road, side, s, near + 0.6, people.motorcycle, np.pi / 3, False,
                     category='vehicle.motorcycle', attribute='cycle.without_rider')
        elif rng.random() < self.plan.character.people:
            self._at(road, side, s, near + rng.uniform(0.4, 1.), people.pedestrian,
                     rng.uniform(0., 6.), category='human.pedestrian.adult',
                     attribute='pedestrian.standing')

    def _at(self, road: Road, side: int, s: float, kerb: float, make, yaw: float, *args,
            margin: float = 0.1, **names) -> None:
        """Places something ``kerb`` metres from the kerb of a road."""
        place = road.path.at(s, side * (road.half_width + kerb))
        place[2] += yaw
        self.put(make, place, *args, margin=margin, kerb=0.05, **names)

    def _greenery(self) -> None:
        """Trees and bushes on the lots and beyond the houses."""
        rng = generator(*self.keys, 'greenery')
        verges = self.plan.ground.verges
        outer = verges.grass + verges.sidewalk
        for road, side, first, last in self._sides():
            for _ in range(int(18 + 45 * self.plan.character.trees)):
                place = road.path.at(rng.uniform(first, last),
                                     side * (road.half_width + outer + rng.uniform(1., 40.)))
                make = street_things.tree if rng.random() < 0.6 else street_things.bush
                self.put(make, place + (0, 0, rng.uniform(0., 6.)), margin=-0.3, kerb=outer + 0.5)
