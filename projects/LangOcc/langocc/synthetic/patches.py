"""Patches of an image: shares of classes, thickness of segments, blur and correlated noise.

Legend: H, W image; h, w patches; C classes; S segments.
"""
from typing import Tuple

import numpy as np


def thickness(segments: np.ndarray, count: int) -> np.ndarray:
    """(S,) mean thickness in pixels: twice the area over the length of the boundary.

    About half the side of a square and the width of a long bar; the image's border is no boundary.
    """
    area = np.bincount(segments.ravel(), minlength=count)
    edges = np.zeros(count)
    for first, second in ((segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:])):
        differ = first != second
        for side in (first, second):
            edges += np.bincount(side[differ], minlength=count)
    return 2 * area / np.maximum(edges, 1)


def patch_shares(channels: np.ndarray, confused: np.ndarray, strength: np.ndarray,
                 thick: np.ndarray, size: Tuple[int, int], count: int) -> np.ndarray:
    """What patches cover, thick and thin things apart.

    Args:
        channels: (H, W) int64 true channel of each pixel.
        confused: (H, W) int64 channel that it is taken for.
        strength: (H, W) in [0, 1], how much of it is.
        thick: (H, W) thickness of what the pixel belongs to; at 1 half of it counts as thin.
        size: (h, w).
        count: C.

    Returns:
        (2, h, w, C) shares; both layers together sum to 1 over C.
    """
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(np.int64)
                     for n, m in zip(channels.shape, size))
    patch = rows[:, None] * size[1] + columns
    area = np.bincount(patch.ravel(), minlength=size[0] * size[1])
    thin = 1 / (1 + thick ** 2)
    layers = []
    for share in (1 - thin, thin):
        mass = np.zeros(size[0] * size[1] * count)
        for channel, part in ((channels, 1 - strength), (confused, strength)):
            index = (patch * count + channel).ravel()
            mass += np.bincount(index, (share * part).ravel(), minlength=len(mass))
        layers.append(mass.reshape(*size, count) / area.reshape(*size, 1))
    return np.stack(layers)


def blur_matrix(count: int, sigma: float) -> np.ndarray:
    """(count, count) Gaussian blur whose rows sum to 1; the identity for sigma 0."""
    if sigma == 0:
        return np.eye(count)
    steps = np.arange(count)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / sigma) ** 2)
    return kernel / kernel.sum(axis=1, keepdims=True)


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """(h, w, C) values after a Gaussian blur over patches."""
    rows, columns = (blur_matrix(n, sigma) for n in values.shape[:2])
    return np.einsum('ab,bcd,ec->aed', rows, values, columns, optimize=True)


def correlated_noise(rng: np.random.Generator, shape: Tuple[int, int, int], sigma: float
                     ) -> np.ndarray:
    """(h, w, C) normal noise of variance 1, correlated over patches by a Gaussian kernel."""
    rows, columns = (blur_matrix(n, sigma) for n in shape[:2])
    scale = np.sqrt((rows ** 2).sum(1))[:, None] * np.sqrt((columns ** 2).sum(1))
    return blur(rng.standard_normal(shape), sigma) / scale[..., None]
