"""Feature vectors as colours: by their three main directions, or by colours that some should have.

Legend: P vectors, E dimensions.
"""
from typing import NamedTuple

import numpy as np

# Share of vectors beyond either end of a colour, so that a few odd ones do not set the scale.
_TAIL = 2.
# Where features that are given colours differ by less than this share of the most, it is noise.
_LEAST_SPREAD = 0.1


class FeatureBasis(NamedTuple):
    """An affine map from features to colours.

    Attributes:
        mean: (E,) float64.
        axes: (3, E) float64, whose products with a feature less the mean are coordinates of red,
            green and blue.
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
        The basis; the order of the vectors does not matter. Its axes are orthonormal, widest first;
        the entry of greatest magnitude of each is positive, so that equal features get equal
        colours in every run. Zero rows where features span fewer directions.

    Raises:
        ValueError: not (P, E), or no vector, or a value that is not finite.
    """
    feats = _checked(feats)
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


def fit_color_basis(feats: np.ndarray, colors: np.ndarray) -> FeatureBasis:
    """The flattest map that gives features the colours they should have; others mix them.

    Args:
        feats: (P, E), P >= 1, as text embeddings of classes.
        colors: (P, 3) uint8.

    Returns:
        The basis of least norm. Directions in which ``feats`` hardly differ are left out, or their
        noise would be all that is seen: then colours are not quite those asked for.

    Raises:
        ValueError: as :func:`fit_feature_basis`; other shapes of ``colors``.
    """
    feats = _checked(feats)
    colors = np.asarray(colors, dtype=np.float64) / 255
    if colors.shape != (len(feats), 3):
        raise ValueError(f'colors have shape {colors.shape}, expected ({len(feats)}, 3)')
    mean, middle = feats.mean(0), colors.mean(0)
    axes = (np.linalg.pinv(feats - mean, rcond=_LEAST_SPREAD) @ (colors - middle)).T
    return FeatureBasis(mean, axes, -middle, 1 - middle)


def _checked(feats: np.ndarray) -> np.ndarray:
    """(P, E) float64, P, E >= 1; else ValueError."""
    feats = np.asarray(feats, dtype=np.float64)
    if feats.ndim != 2 or not feats.size or not np.isfinite(feats).all():
        raise ValueError(f'features must be finite and (P, E) with P, E >= 1, got shape '
                         f'{feats.shape}')
    return feats


def feature_colors(feats: np.ndarray, basis: FeatureBasis) -> np.ndarray:
    """Colours of features.

    Args:
        feats: (..., E).
        basis: of :func:`fit_feature_basis` or :func:`fit_color_basis`.

    Returns:
        (..., 3) uint8; a direction without extent is mid-grey.
    """
    coordinates = (np.asarray(feats, np.float64) - basis.mean) @ basis.axes.T
    span = basis.high - basis.low
    flat = span <= 1e-12
    scaled = (coordinates - basis.low) / np.where(flat, 1, span)
    return (np.where(flat, 0.5, scaled).clip(0, 1) * 255).round().astype(np.uint8)
