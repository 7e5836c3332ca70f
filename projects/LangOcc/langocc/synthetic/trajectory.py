"""How the ego car drives along a route: a smooth speed between 5 and 10 m/s.

Times are seconds since the start of the scene, arc lengths metres, poses (4, 4) ego -> global.
"""
from typing import Protocol

import numpy as np

MIN_SPEED, MAX_SPEED = 5., 10.
# Key frames are at START + k / KEY_FRAME_RATE; a camera fires a little before its key frame.
START = 0.1
KEY_FRAME_RATE = 2.
_MARGIN = 0.1
_SLOWEST = 0.5


class AnyRoute(Protocol):
    """A path through a world.

    Attributes:
        length: metres.
    """
    length: float

    def pose(self, s: float) -> np.ndarray:
        """(4, 4) ego pose at arc length ``s``."""


def key_frame_time(frame: int) -> float:
    """Seconds of a key frame since the start of its scene, counted from 0."""
    return START + frame / KEY_FRAME_RATE


class Drive:
    """The car's place at any time of a scene.

    Speed is v(t) = mean + swing sin(w t + phase), whose integral is exact, so that each sensor gets
    the very pose of its own time. A route too short for the speed is driven more slowly.

    Args:
        route: the path; the whole drive lies in it, begun somewhere at random.
        num_frames: key frames.
        rng: random numbers of this scene's drive.

    Attributes:
        scale: factor on the speed: 1, or less where the route is too short for it.

    Raises:
        ValueError: the route is so short that the car would creep under 0.5 m/s.
    """

    def __init__(self, route: AnyRoute, num_frames: int, rng: np.random.Generator) -> None:
        self.route = route
        self.end = key_frame_time(num_frames - 1) + _MARGIN
        self._mean = rng.uniform(MIN_SPEED + 1, MAX_SPEED - 1)
        self._swing = rng.uniform(0., min(self._mean - MIN_SPEED, MAX_SPEED - self._mean))
        self._pace = 2 * np.pi / rng.uniform(6., 12.)
        self._phase = rng.uniform(0., 2 * np.pi)
        distance = self._driven(self.end)
        self.scale = min(1., route.length / distance)
        if self.scale * distance < _SLOWEST * self.end:
            raise ValueError(f'a route of {route.length:.1f} m is too short for {num_frames} key '
                             f'frames, {self.end:.1f} s at {_SLOWEST} m/s or more')
        self._first = rng.uniform(0., max(route.length - self.scale * distance, 0.))

    def _driven(self, time: float) -> float:
        """Integral of the speed from 0 to ``time``, metres, before any slowing down."""
        wave = np.cos(self._phase) - np.cos(self._pace * time + self._phase)
        return self._mean * time + self._swing / self._pace * wave

    def arc_length(self, time: float) -> float:
        """Metres along the route.

        Raises:
            ValueError: a time outside the scene.
        """
        if not 0 <= time <= self.end:
            raise ValueError(f'time {time} s is outside the drive, 0 ... {self.end} s')
        return min(self._first + self.scale * self._driven(time), self.route.length)

    def speed(self, time: float) -> float:
        """Metres per second."""
        wave = np.sin(self._pace * time + self._phase)
        return self.scale * (self._mean + self._swing * wave)

    def pose(self, time: float) -> np.ndarray:
        """(4, 4) float64 ego -> global."""
        return np.asarray(self.route.pose(self.arc_length(time)), dtype=np.float64)
