"""Metrics: occupancy after the protocol of Occ3D-nuScenes."""
from .occ_confusion import (
    IGNORED_CLASSES, MASKS, VARIANTS, class_ious, confusion_matrix, geometric_iou, mean_iou,
    observed_voxels, variant_ious
)
from .occ_metric import OccMetric

__all__ = [
    'IGNORED_CLASSES', 'MASKS', 'VARIANTS',
    'OccMetric', 'class_ious', 'confusion_matrix', 'geometric_iou', 'mean_iou', 'observed_voxels',
    'variant_ious'
]
