"""Predicted occupancy against labels: which voxels count, and where the two differ.

Legend: X, Y, Z grid cells along the key ego frame's x (forward), y (left), z (up).
"""
from typing import NamedTuple, Optional, Tuple

import numpy as np

from voxelrender import VoxelGrid

from ..occ3d import FREE_CLASS
from .occupancy import BACKGROUND, draw_voxels_3d, draw_voxels_bev, paint_from_above
from .palette import class_colors

# Voxels that no camera sees: as the others, mixed with white, or not drawn.
UNSEEN_CHOICES = ('draw', 'pale', 'hide')
# Colours that colour-blind readers can tell apart (Okabe and Ito's).
ERROR_NAMES = ('right', 'right place, wrong class', 'missed', 'false')
ERROR_COLORS = np.array([[205, 205, 205], [240, 228, 66], [0, 114, 178], [213, 94, 0]], np.uint8)
UNSEEN_COLOR = (38, 40, 47)
_PALENESS = 0.65
_SKY = (208, 215, 227)  # behind voxels, dark enough for pale ones


class OccupancyErrors(NamedTuple):
    """Each (X, Y, Z) bool; voxels that no camera sees are in none of them.

    Attributes:
        right: occupied in both, of one class.
        confused: occupied in both, of two classes.
        missed: occupied in the labels alone.
        false: occupied in the prediction alone.
    """
    right: np.ndarray
    confused: np.ndarray
    missed: np.ndarray
    false: np.ndarray

    @property
    def geometric_iou(self) -> float:
        """Occupied against free, in [0, 1]; nan where both are empty."""
        both = self.right.sum() + self.confused.sum()
        either = both + self.missed.sum() + self.false.sum()
        return float(both / either) if either else float('nan')


def compare_occupancy(prediction: np.ndarray, truth: np.ndarray,
                      mask: Optional[np.ndarray] = None) -> OccupancyErrors:
    """Where a prediction is right and where not.

    Args:
        prediction: (X, Y, Z) Occ3D classes, 17 = free.
        truth: (X, Y, Z), the labels.
        mask: (X, Y, Z) bool, voxels that count (Occ3D's ``mask_camera``); None for all.

    Raises:
        ValueError: shapes differ.
    """
    counted = np.ones(truth.shape, bool) if mask is None else np.asarray(mask, bool)
    if not prediction.shape == truth.shape == counted.shape:
        raise ValueError(f'prediction {prediction.shape}, truth {truth.shape} and mask '
                         f'{counted.shape} must have one shape (X, Y, Z)')
    predicted, labelled = prediction != FREE_CLASS, truth != FREE_CLASS
    both, same = counted & predicted & labelled, prediction == truth
    return OccupancyErrors(both & same, both & ~same, counted & labelled & ~predicted,
                           counted & predicted & ~labelled)


def draw_errors_bev(errors: OccupancyErrors, grid: VoxelGrid, mask: Optional[np.ndarray] = None,
                    scale: int = 3) -> np.ndarray:
    """Errors from above: each column in the mean colour of its voxels' fates.

    Args:
        errors: of :func:`compare_occupancy`.
        grid: ranges and voxel size.
        mask: (X, Y, Z) bool, voxels that count; columns without one are drawn darkest.
        scale: pixels a voxel.

    Returns:
        (X * scale, Y * scale, 3): x points up, y left.
    """
    counts = np.stack([kind.sum(2) for kind in errors], axis=-1).astype(float)
    total = counts.sum(-1, keepdims=True)
    colors = counts @ ERROR_COLORS.astype(float) / np.maximum(total, 1)
    colors = np.where(total > 0, colors, np.array(BACKGROUND))
    seen = np.ones(counts.shape[:2], bool) if mask is None else np.asarray(mask, bool).any(2)
    return paint_from_above(colors, seen, grid, scale, UNSEEN_COLOR)


def voxel_colors(semantics: np.ndarray, mask: Optional[np.ndarray] = None, unseen: str = 'pale'
                 ) -> Tuple[np.ndarray, np.ndarray]:
    """What to draw of a volume and in which colours.

    Args:
        semantics: (X, Y, Z) Occ3D classes, 17 = free.
        mask: (X, Y, Z) bool, voxels that a camera sees; None takes all as seen.
        unseen: 'draw' the others as they are, 'pale' (mixed with white) or 'hide' them.

    Returns:
        (X, Y, Z) bool and (X, Y, Z, 3) uint8.

    Raises:
        ValueError: another ``unseen``, or a mask of another shape.
    """
    if unseen not in UNSEEN_CHOICES:
        raise ValueError(f"unseen is {unseen!r}, expected one of {UNSEEN_CHOICES}")
    occupied, colors = semantics != FREE_CLASS, class_colors(semantics)
    if mask is None or unseen == 'draw':
        return occupied, colors
    if mask.shape != semantics.shape:
        raise ValueError(f'mask {mask.shape} and semantics {semantics.shape} differ in shape')
    hidden = ~np.asarray(mask, bool)
    if unseen == 'hide':
        return occupied & ~hidden, colors
    pale = (colors * (1 - _PALENESS) + 255 * _PALENESS).round().astype(np.uint8)
    return occupied, np.where(hidden[..., None], pale, colors)


def draw_masked_bev(semantics: np.ndarray, grid: VoxelGrid, mask: Optional[np.ndarray] = None,
                    unseen: str = 'pale', scale: int = 3) -> np.ndarray:
    """Occupancy from above under a mask; see :func:`voxel_colors` and ``draw_occupancy_bev``."""
    return draw_voxels_bev(*voxel_colors(semantics, mask, unseen), grid, scale)


def draw_masked_3d(semantics: np.ndarray, grid: VoxelGrid, mask: Optional[np.ndarray] = None,
                   unseen: str = 'pale', **view) -> np.ndarray:
    """Occupancy from behind the car under a mask; see :func:`voxel_colors`, ``draw_voxels_3d``."""
    view = dict(background=_SKY, **view)
    return draw_voxels_3d(*voxel_colors(semantics, mask, unseen), grid, **view)
