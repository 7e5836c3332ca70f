"""Objects in their places, and the search for free places.

Metres and radians, world frame.
"""
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import numpy as np

from .casting import ground_heights
from .ground import Ground
from .paths import Path
from .snapshot import Box
from .solids import Solids, pose_at

CLEARANCE = 1.3  # metres to either side of the route that solids leave to the ego car


@dataclass
class Thing:
    """An object of the world.

    Attributes:
        object_id: id.
        solids: in the object's frame.
        place: (3,) x, y, yaw at time 0; not used by what moves.
        category: full nuScenes name; '' for what has no box.
        attribute: nuScenes name or ''.
        path: what moves goes along it.
        start: arc length at time 0.
        lateral: metres to the left of the path.
        speed: m/s along the path; negative is against it.
    """
    object_id: int
    solids: Solids
    place: np.ndarray
    category: str = ''
    attribute: str = ''
    path: Optional[Path] = None
    start: float = 0.
    lateral: float = 0.
    speed: float = 0.
    extents: Tuple[np.ndarray, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        lower, upper = self.solids.bounds()
        self.extents = lower.min(0), upper.max(0)

    def place_at(self, time: float) -> np.ndarray:
        """(3,) x, y, yaw."""
        if self.path is None:
            return self.place
        x, y, heading = self.path.at(self.start + self.speed * time, self.lateral)
        return np.array([x, y, heading + (np.pi if self.speed < 0 else 0.)])

    def pose(self, ground: Ground, time: float = 0.) -> np.ndarray:
        """(4, 4) upright on the ground."""
        x, y, yaw = self.place_at(time)
        z = ground_heights(ground.arrays, np.array([[x, y]]))[0]
        return pose_at((x, y, z), yaw)

    def box(self, ground: Ground, time: float) -> Box:
        """The bounding box at a time."""
        pose = self.pose(ground, time)
        lower, upper = self.extents
        length, width, height = upper - lower
        yaw = self.place_at(time)[2]
        velocity = abs(self.speed) * np.array([np.cos(yaw), np.sin(yaw)])
        yaw = (yaw + np.pi) % (2 * np.pi) - np.pi
        center = pose[:3, :3] @ ((lower + upper) / 2) + pose[:3, 3]
        return Box(self.object_id, self.category, center, (width, length, height), float(yaw),
                   velocity, self.attribute)


class Places:
    """Footprints taken so far; finds out whether another is free.

    Args:
        ground: of the scene.
        route: the ego car's path.
    """

    def __init__(self, ground: Ground, route: Path) -> None:
        self.ground, self.route = ground, route
        self._rows: List[np.ndarray] = []

    def take(self, place: np.ndarray, extents: Tuple[np.ndarray, np.ndarray], margin: float = 0.2,
             kerb: float = -np.inf) -> bool:
        """Takes a footprint if it is free.

        Args:
            place: (3,) x, y, yaw.
            extents: lower and upper corner in the object's frame, x and y first.
            margin: metres of free space around it; negative where it may reach over others, as
                the crown of a tree.
            kerb: least distance from the kerb, outwards, of all that the footprint less a negative
                margin covers.
        """
        lower, upper = extents[0][:2], extents[1][:2]
        axes = np.array([[np.cos(place[2]), np.sin(place[2])],
                         [-np.sin(place[2]), np.cos(place[2])]])
        center, half = place[:2] + (lower + upper) / 2 @ axes, (upper - lower) / 2
        row = np.concatenate([center, axes[0], half + margin])
        stem = _grid(np.maximum(half + min(margin, 0.), 0.1)) @ axes + center
        if self.ground.sample(stem)[:, 0].min() < kerb:
            return False
        points = _grid(half) @ axes + center
        s, lateral = self.route.project(points)
        near_route = (s > -8) & (s < self.route.length + 8)
        if (np.abs(lateral)[near_route] < CLEARANCE).any():
            return False
        if self._rows and _overlaps(row, np.array(self._rows)).any():
            return False
        row[4:] = half
        self._rows.append(row)
        return True


def _grid(half: np.ndarray) -> np.ndarray:
    """(n, 2) points over a rectangle, its corners included, at most about 1.5 m apart."""
    axes = [np.linspace(-h, h, int(2 * h / 1.5) + 2) for h in half]
    return np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)


def _overlaps(row: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) bool: a rectangle (x, y, cos, sin, half length, half width) meets others (n, 6)."""
    apart = np.zeros(len(rows), bool)
    offset = rows[:, :2] - row[:2]
    cos = rows[:, 2] * row[2] + rows[:, 3] * row[3]
    sin = np.abs(rows[:, 3] * row[2] - rows[:, 2] * row[3])
    cos = np.abs(cos)
    for axis in range(2):
        mine = (row[2], row[3]) if axis == 0 else (-row[3], row[2])
        gap = np.abs(offset @ np.array(mine))
        other = (rows[:, 4] * (cos if axis == 0 else sin)
                 + rows[:, 5] * (sin if axis == 0 else cos))
        apart |= gap > row[4 + axis] + other
        theirs = rows[:, 2:4] if axis == 0 else np.stack([-rows[:, 3], rows[:, 2]], 1)
        gap = np.abs((offset * theirs).sum(1))
        other = row[4] * (cos if axis == 0 else sin) + row[5] * (sin if axis == 0 else cos)
        apart |= gap > rows[:, 4 + axis] + other
    return ~apart
