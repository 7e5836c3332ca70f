"""One scene of the synthetic street: drawn once, looked at at any time."""
from typing import List

from .furnishing import Furnisher
from .light import Light
from .plan import Plan, street_plan
from .random import generator
from .snapshot import Snapshot
from .solids import Solids
from .things import Thing
from .traffic import moving_things


class World:
    """A street with all that stands and moves in it.

    Args:
        plan: roads, ground and route.
        standing: things that stay.
        moving: things that move.
        light: of the scene.

    Attributes:
        route: the ego car's way: ``pose(s)`` and ``length``.
    """

    def __init__(self, plan: Plan, standing: List[Thing], moving: List[Thing],
                 light: Light) -> None:
        self.plan, self.standing, self.moving, self.light = plan, standing, moving, light
        self.ground, self.route = plan.ground, plan.route
        self._placed = Solids.joined(thing.solids.placed(thing.pose(self.ground))
                                     for thing in standing)
        self._boxed = [thing for thing in standing + moving if thing.category]

    def at(self, time: float) -> Snapshot:
        """The world ``time`` seconds after the scene's start."""
        solids = Solids.joined([self._placed, *(thing.solids.placed(thing.pose(self.ground, time))
                                                for thing in self.moving)])
        boxes = [thing.box(self.ground, time) for thing in self._boxed]
        return Snapshot(solids, self.ground, self.light, boxes)


def make_world(seed: int, index: int) -> World:
    """Scene ``index`` of the streets of ``seed``, the same in every process and order.

    Raises:
        ValueError: a negative number.
    """
    plan = street_plan(seed, index)
    standing = Furnisher(seed, index, plan).furnish()
    moving = moving_things(seed, index, plan, standing)
    return World(plan, standing, moving, Light.drawn(generator(seed, index, 'light')))
