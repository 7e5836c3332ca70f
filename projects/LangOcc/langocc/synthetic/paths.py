"""Paths in the plane: straights and arcs one after the other, straight on beyond both ends.

Metres and radians; s is the arc length from the path's start, lateral is positive to the left.
"""
from dataclasses import dataclass
from typing import Sequence, Tuple

import numpy as np
from numba import njit

BEYOND = 400.  # metres of straight before the start and after the end


@dataclass
class Path:
    """Pieces of constant curvature.

    Attributes:
        starts: (n, 3) x, y, heading at the start of each piece.
        firsts: (n,) arc length at the start of each piece; the first is -BEYOND.
        lengths: (n,) metres.
        curvatures: (n,) 1/m, positive to the left.
        length: arc length at which the last but one piece ends.
    """
    starts: np.ndarray
    firsts: np.ndarray
    lengths: np.ndarray
    curvatures: np.ndarray
    length: float

    @classmethod
    def of(cls, start: Sequence[float], pieces: Sequence[Tuple[float, float]]) -> 'Path':
        """A path from ``start`` (x, y, heading) of pieces (length, curvature).

        Raises:
            ValueError: a length is not positive.
        """
        lengths = np.array([BEYOND, *(length for length, _ in pieces), BEYOND], float)
        if not (lengths > 0).all():
            raise ValueError(f'pieces of a path must have positive lengths, not {pieces}')
        curvatures = np.array([0., *(curvature for _, curvature in pieces), 0.], float)
        x, y, heading = start
        starts = [(x - BEYOND * np.cos(heading), y - BEYOND * np.sin(heading), heading)]
        for length, curvature in zip(lengths, curvatures):
            starts.append(_advance(*starts[-1], length, curvature))
        firsts = np.concatenate([[-BEYOND], np.cumsum(lengths[:-1]) - BEYOND])
        return cls(np.array(starts[:-1], float), firsts, lengths, curvatures, float(firsts[-1]))

    def at(self, s: np.ndarray, lateral: np.ndarray = 0.) -> np.ndarray:
        """(..., 3) x, y, heading at arc lengths ``s``, ``lateral`` metres to the left."""
        s, lateral = np.broadcast_arrays(np.asarray(s, float), np.asarray(lateral, float))
        piece = np.clip(np.searchsorted(self.firsts, s, 'right') - 1, 0, len(self.firsts) - 1)
        x, y, heading = np.moveaxis(self.starts[piece], -1, 0)
        x, y, heading = _advance(x, y, heading, s - self.firsts[piece], self.curvatures[piece])
        return np.stack([x - lateral * np.sin(heading), y + lateral * np.cos(heading), heading], -1)

    def offset(self, lateral: float) -> 'Path':
        """The path ``lateral`` metres to the left, same pieces.

        Raises:
            ValueError: a bend is tighter than the offset.
        """
        stretch = 1 - self.curvatures[1:-1] * lateral
        if not (stretch > 0).all():
            raise ValueError(f'a path cannot be moved {lateral} m: it bends by {self.curvatures}/m')
        start = self.at(0., lateral)
        return Path.of(start, list(zip(self.lengths[1:-1] * stretch,
                                       self.curvatures[1:-1] / stretch)))

    def project(self, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """(P,) arc length and (P,) lateral of the path's point nearest to each point (P, 2)."""
        return _project(self.starts, self.firsts, self.lengths, self.curvatures,
                        np.ascontiguousarray(points, dtype=np.float64))


def _advance(x, y, heading, length, curvature):
    """x, y, heading after ``length`` metres of constant ``curvature``."""
    turn = length * curvature
    chord = length * np.sinc(turn / (2 * np.pi))
    return (x + chord * np.cos(heading + turn / 2), y + chord * np.sin(heading + turn / 2),
            heading + turn)


@njit(cache=True, error_model='numpy')
def _project(starts, firsts, lengths, curvatures, points):
    """Arc lengths and signed distances of the nearest points of all pieces."""
    along, lateral = np.empty(len(points)), np.empty(len(points))
    for p in range(len(points)):
        best = np.inf
        for n in range(len(starts)):
            cos, sin = np.cos(starts[n, 2]), np.sin(starts[n, 2])
            dx, dy = points[p, 0] - starts[n, 0], points[p, 1] - starts[n, 1]
            u, v = dx * cos + dy * sin, dy * cos - dx * sin
            bend = curvatures[n]
            if bend == 0:
                s = min(max(u, 0.), lengths[n])
                x, y, turn = s, 0., 0.
            else:
                side = 1. if bend > 0 else -1.
                angle = np.arctan2(u, 1 / abs(bend) - v * side)
                turn = min(max(angle, 0.), lengths[n] * abs(bend)) * side
                s = turn / bend
                x, y = np.sin(turn) / bend, (1 - np.cos(turn)) / bend
            gap = np.sqrt((u - x) ** 2 + (v - y) ** 2)
            if gap < best:
                best = gap
                left = (v - y) * np.cos(turn) - (u - x) * np.sin(turn)
                along[p] = firsts[n] + s
                lateral[p] = gap if left >= 0 else -gap
    return along, lateral
