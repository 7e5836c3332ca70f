"""Colours: Occ3D's classes, distances and similarities.

Legend: P points or pixels. Colours are RGB uint8.
"""
from typing import Tuple

import matplotlib
import numpy as np

from langocc.occ3d import FREE_CLASS, OCC3D_CLASSES, OCC3D_COLORS

OCC3D_PALETTE = np.array(OCC3D_COLORS, dtype=np.uint8)
OCC3D_PALETTE.setflags(write=False)
CLASS_NAMES = OCC3D_CLASSES
DISTANCE_COLORMAP, SIMILARITY_COLORMAP = 'turbo_r', 'inferno'


def class_colors(labels: np.ndarray, palette: np.ndarray = OCC3D_PALETTE) -> np.ndarray:
    """Colours of classes.

    Args:
        labels: any shape, integer, in [0, len(palette)).
        palette: (K, 3) uint8.

    Returns:
        (..., 3) uint8.

    Raises:
        ValueError: a label has no colour.
    """
    labels = np.asarray(labels)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(palette):
        raise ValueError(f'labels from {labels.min()} to {labels.max()}, expected '
                         f'[0, {len(palette)})')
    return palette[labels.astype(np.int64)]


def map_colors(values: np.ndarray, low: float, high: float, colormap: str) -> np.ndarray:
    """Colours of numbers.

    Args:
        values: any shape; clamped to [low, high]; NaN becomes mid-grey.
        low: value of the first colour.
        high: value of the last colour.
        colormap: a matplotlib name.

    Returns:
        (..., 3) uint8.
    """
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    span = max(high - low, np.finfo(np.float64).tiny)
    scaled = np.clip((np.where(known, values, low) - low) / span, 0., 1.)
    colors = np.asarray(matplotlib.colormaps[colormap](scaled))[..., :3]
    colors = (colors * 255).round().astype(np.uint8)
    return np.where(known[..., None], colors, np.uint8(128))


def distance_colors(depths: np.ndarray, near: float = 0., far: float = 40.) -> np.ndarray:
    """(..., 3) uint8 colours of metres: near red, far blue."""
    return map_colors(depths, near, far, DISTANCE_COLORMAP)


def similarity_colors(similarity: np.ndarray, low: float = 0., high: float = 1.) -> np.ndarray:
    """(..., 3) uint8 colours of similarities: low black, high yellow."""
    return map_colors(similarity, low, high, SIMILARITY_COLORMAP)


def present_classes(labels: np.ndarray) -> Tuple[int, ...]:
    """Occupied classes that occur, in order; for a legend."""
    return tuple(int(c) for c in np.unique(labels) if c != FREE_CLASS)
