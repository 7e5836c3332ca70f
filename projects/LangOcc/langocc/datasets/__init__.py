"""Data sets and transforms; importing this registers them."""
from .depth_maps import DepthMaps, DepthStore, depth_directions
from .label_source import LidarLabelSource
from .mixed_source import MixedSource
from .nuscenes_occ_dataset import NUSCENES_CAMERAS, NuScenesOccDataset

from . import transforms  # noqa: F401  isort: skip

__all__ = ['DepthMaps', 'DepthStore', 'LidarLabelSource', 'MixedSource', 'NUSCENES_CAMERAS',
           'NuScenesOccDataset', 'depth_directions', 'transforms']
