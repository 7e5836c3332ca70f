"""Metrics: occupancy after Occ3D-nuScenes and SparseOcc (RayIoU), retrieval after POP-3D."""
from .occ_confusion import (
    IGNORED_CLASSES, MASKS, VARIANTS, class_ious, confusion_matrix, geometric_iou, mean_iou,
    observed_voxels, variant_ious
)
from .occ_files import load_occupancy, save_prediction
from .occ_metric import OccMetric
from .occ_prior import OccupancyPrior, fit_prior
from .point_seg_metric import PointSegOccMetric
from .ray_iou_metric import RayIoUMetric
from .retrieval_metric import RetrievalMetric

__all__ = [
    'IGNORED_CLASSES', 'MASKS', 'VARIANTS',
    'OccMetric', 'OccupancyPrior', 'PointSegOccMetric', 'RayIoUMetric', 'RetrievalMetric',
    'class_ious', 'confusion_matrix', 'fit_prior', 'geometric_iou', 'load_occupancy', 'mean_iou',
    'observed_voxels', 'save_prediction', 'variant_ious'
]
