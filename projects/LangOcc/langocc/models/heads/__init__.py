"""Heads on a voxel volume."""
from .bev_occ_head import BEVOccHead
from .bev_occ_head_2d import BEVOccHead2D
from .image_feature_head import ImageFeatureHead
from .langocc_head import LangOccHead
from .voxel_head import VoxelHead

__all__ = ['BEVOccHead', 'BEVOccHead2D', 'ImageFeatureHead', 'LangOccHead', 'VoxelHead']
