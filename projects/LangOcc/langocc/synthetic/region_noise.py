"""A smooth random field over a scene: where a place is taken for another class.

Legend: P points, K waves.
"""
from statistics import NormalDist
from typing import Tuple

import numpy as np

from .confusions import SYNTHETIC_CLASSES, Confusion

_WAVES = 8


class RegionNoise:
    """Two independent fields, each a sum of plane waves, about normally distributed.

    Args:
        key: integers that seed it.
        extent: metres; about the size of the regions where the field is high.
    """

    def __init__(self, key: Tuple[int, ...], extent: float) -> None:
        rng = np.random.default_rng(key)
        directions = rng.standard_normal((2 * _WAVES, 3))
        self._waves = (directions * (1.5 / extent)).astype(np.float32)
        self._phases = (2 * np.pi * rng.random(2 * _WAVES)).astype(np.float32)

    def values(self, points: np.ndarray) -> np.ndarray:
        """(2, P) float32 values of both fields at (P, 3) points in metres; mean 0, variance 1."""
        waves = np.cos(self._waves @ np.asarray(points, np.float32).T + self._phases[:, None])
        return waves.reshape(2, _WAVES, -1).sum(axis=1) * np.float32((2 / _WAVES) ** 0.5)

    def confuse(self, points: np.ndarray, table: Confusion, rate: float):
        """What places are taken for.

        Args:
            points: (P, 3) global, metres.
            table: mistakes of the class that is there.
            rate: share of all places that are confused.

        Returns:
            (P,) int64 channel of the other class; (P,) strength in [0, 1], 0.5 at the edge of a
            confused region.
        """
        normal = NormalDist()
        first, second = self.values(points)
        threshold = normal.inv_cdf(1 - min(max(rate, 1e-6), 1 - 1e-6))
        strength = np.clip(0.5 + (first - threshold) / 0.8, 0, 0.95)
        names = list(table.others)
        shares = np.cumsum([table.others[name] for name in names])
        borders = [normal.inv_cdf(share / shares[-1]) for share in shares[:-1]]
        chosen = np.searchsorted(borders, second)
        channels = np.array([SYNTHETIC_CLASSES.index(name) for name in names])
        return channels[chosen], strength
