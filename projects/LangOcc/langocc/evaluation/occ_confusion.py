"""Confusion matrices of occupancy and the scores read from them; pure functions on numpy arrays.

Legend: V voxels; X, Y, Z grid cells; C = 18 classes of Occ3D-nuScenes (17 = free). Every score
comes from one matrix ``H[gt, pred]`` summed over the whole set: ratios are never averaged.

Source: Occ3D (Tian et al., NeurIPS 2023) for classes, camera mask and mIoU. Two published habits
are *not* followed: GaussianFlowOcc also drops truth of class 0 and 12 from its geometric IoU, and
SelfOcc blanks predictions outside the truth's extent in z and scores absent classes 1.
"""
from typing import Dict, Mapping, Optional, Tuple

import numpy as np

from ..occ3d import FREE_CLASS, NUM_CLASSES

IGNORED_CLASSES: Tuple[int, ...] = (0, 12)  # others, other_flat

# variant -> (classes left out of the mean, classes whose truth is dropped before counting)
VARIANTS: Dict[str, Tuple[Tuple[int, ...], Tuple[int, ...]]] = {
    'occ17': ((), ()),
    'occ15': (IGNORED_CLASSES, ()),
    'occ15_gt_ignored': (IGNORED_CLASSES, IGNORED_CLASSES),
}
# mask -> fields of the truth of which all must be set
MASKS: Dict[str, Tuple[str, ...]] = {
    'camera': ('mask_camera', ),
    'lidar': ('mask_lidar', ),
    'camera_lidar': ('mask_camera', 'mask_lidar'),
    'none': (),
}


def observed_voxels(truth: Mapping[str, np.ndarray], mask: str) -> Optional[np.ndarray]:
    """Voxels that a named mask scores.

    Args:
        truth: ``semantics`` and the mask fields, each (X, Y, Z).
        mask: one of :data:`MASKS`.

    Returns:
        (X, Y, Z) bool, or None for ``none`` (every voxel).

    Raises:
        KeyError: unknown mask, or the truth lacks one of its fields.
    """
    if mask not in MASKS:
        raise KeyError(f"mask '{mask}' is unknown, expected one of {list(MASKS)}")
    observed = None
    for field in MASKS[mask]:
        if truth.get(field) is None:
            raise KeyError(f"mask '{mask}' needs '{field}', the truth has {sorted(truth)}")
        values = np.asarray(truth[field]).astype(bool)
        observed = values if observed is None else observed & values
    return observed


def confusion_matrix(gt: np.ndarray,
                     pred: np.ndarray,
                     mask: Optional[np.ndarray] = None,
                     num_classes: int = NUM_CLASSES) -> np.ndarray:
    """Counts voxels by true and predicted class.

    Args:
        gt: true classes, any shape, integer; labels outside [0, num_classes) are dropped.
        pred: predicted classes, same shape, integer.
        mask: voxels to count, same shape, or None for all.
        num_classes: C.

    Returns:
        (C, C) int64, ``H[gt, pred]``.

    Raises:
        ValueError: shapes differ; or a prediction (masked or not) lies outside [0, num_classes).
        TypeError: labels are not integers.
    """
    gt, pred = np.asarray(gt), np.asarray(pred)
    for name, labels in (('truth', gt), ('prediction', pred)):
        if labels.dtype.kind not in 'iu':
            raise TypeError(f'{name} must hold integers, got {labels.dtype}')
    if gt.shape != pred.shape or (mask is not None and mask.shape != gt.shape):
        raise ValueError(f'prediction has shape {pred.shape}, truth {gt.shape}, '
                         f'mask {None if mask is None else mask.shape}')
    if pred.size and not 0 <= pred.min() <= pred.max() < num_classes:
        raise ValueError(f'prediction holds classes from {pred.min()} to {pred.max()}, '
                         f'expected [0, {num_classes})')
    counted = (gt >= 0) & (gt < num_classes)
    if mask is not None:
        counted &= mask.astype(bool)
    pairs = gt[counted].astype(np.int64) * num_classes + pred[counted].astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """IoU of every class: H_cc / (row_c + column_c - H_cc).

    Args:
        matrix: (C, C) counts, ``H[gt, pred]``.

    Returns:
        (C,) float64 in [0, 1]; NaN for a class that is in neither truth nor prediction.
    """
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(ious: np.ndarray) -> float:
    """Mean over the classes that are not NaN; NaN where none is left."""
    present = ious[~np.isnan(ious)]
    return float(present.mean()) if present.size else float('nan')


def variant_ious(matrix: np.ndarray, variant: str) -> np.ndarray:
    """IoUs of the classes a named variant averages.

    Args:
        matrix: (18, 18) counts, ``H[gt, pred]``.
        variant: one of :data:`VARIANTS`.

    Returns:
        (17,) float64 in [0, 1]; free is left out; NaN for classes that are absent or that the
        variant leaves out of its mean.

    Raises:
        KeyError: unknown variant.
    """
    if variant not in VARIANTS:
        raise KeyError(f"variant '{variant}' is unknown, expected one of {list(VARIANTS)}")
    left_out, dropped = VARIANTS[variant]
    matrix = matrix.copy()
    matrix[list(dropped), :] = 0
    ious = class_ious(matrix)[:FREE_CLASS]
    ious[list(left_out)] = np.nan
    return ious


def geometric_iou(matrix: np.ndarray) -> float:
    """IoU of occupied (any class but free, 'others' included) against free.

    Args:
        matrix: (18, 18) counts, ``H[gt, pred]``.

    Returns:
        TP / (TP + FP + FN) in [0, 1]; NaN where nothing is occupied in truth or prediction.
    """
    union = matrix.sum() - matrix[FREE_CLASS, FREE_CLASS]
    hits = matrix[:FREE_CLASS, :FREE_CLASS].sum()
    return float(hits / union) if union > 0 else float('nan')
