"""Data sets and transforms; importing this registers them."""
from .nuscenes_occ_dataset import NUSCENES_CAMERAS, NuScenesOccDataset

from . import transforms  # noqa: F401  isort: skip

__all__ = ['NUSCENES_CAMERAS', 'NuScenesOccDataset', 'transforms']
