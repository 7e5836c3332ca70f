"""Feature vectors as colours: their three main directions are red, green and blue.

Legend: P vectors, E dimensions.
"""
from typing import NamedTuple

import numpy as np

# Share of vectors beyond either end of a colour, so that a few odd ones do not set the scale.
_TAIL = 2.


class FeatureBasis(NamedTuple):
    """An affine map from features to colours.

    Attributes:
        mean: (E,) float64.
        axes: (3, E) float64 orthonormal rows, widest first; the entry of greatest magnitude of
            each is positive, so that equal features get equal colours in every run. Zero rows
            where features span fewer directions.
        low, high: (3,) coordinates of the darkest and brightest colour.
    """
    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fit_feature_basis(feats: np.ndarray) -> FeatureBasis:
    """Principal components of all vectors that share a picture (all cameras of a sample).

    Args:
        feats: (P, E), P >= 1; unit length says that only direction matters.

    Returns:
        The basis; the order of the vectors does not matter.

    Raises:
        ValueError: not (P, E), or no vector, or a value that is not finite.
    """
    feats = np.asarray(feats, dtype=np.float64)
    if feats.ndim != 2 or not feats.size or not np.isfinite(feats).all():
        raise ValueError(f'features must be finite and (P, E) with P, E >= 1, got shape '
                         f'{feats.shape}')
    mean = feats.mean(0)
    centred = feats - mean
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(feats))
    count = min(3, feats.shape[1])
    axes = np.zeros((3, feats.shape[1]))
    axes[:count] = vectors[:, ::-1][:, :count].T
    spanned = np.zeros(3, bool)
    spanned[:count] = variances[::-1][:count] > 1e-12 * max(variances[-1], 1e-300)
    axes[~spanned] = 0
    signs = np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])
    axes *= np.where(signs == 0, 1, signs)[:, None]
    low, high = np.percentile(centred @ axes.T, [_TAIL, 100 - _TAIL], axis=0)
    return FeatureBasis(mean, axes, low, high)


def feature_colors(feats: np.ndarray, basis: FeatureBasis) -> np.ndarray:
    """Colours of features.

    Args:
        feats: (..., E).
        basis: of :func:`fit_feature_basis`.

    Returns:
        (..., 3) uint8; a direction without extent is mid-grey.
    """
    coordinates = (np.asarray(feats, np.float64) - basis.mean) @ basis.axes.T
    span = basis.high - basis.low
    flat = span <= 1e-12
    scaled = (coordinates - basis.low) / np.where(flat, 1, span)
    return (np.where(flat, 0.5, scaled).clip(0, 1) * 255).round().astype(np.uint8)
