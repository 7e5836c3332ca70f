"""Metrics: occupancy after the protocol of Occ3D-nuScenes."""
from .occ_confusion import (
    FREE_CLASS, IGNORED_CLASSES, MASKS, NUM_CLASSES, OCC3D_CLASSES, VARIANTS, class_ious,
    confusion_matrix, geometric_iou, mean_iou, observed_voxels, variant_ious
)
from .occ_metric import OccMetric

__all__ = [
    'FREE_CLASS', 'IGNORED_CLASSES', 'MASKS', 'NUM_CLASSES', 'OCC3D_CLASSES', 'VARIANTS',
    'OccMetric', 'class_ious', 'confusion_matrix', 'geometric_iou', 'mean_iou', 'observed_voxels',
    'variant_ious'
]
