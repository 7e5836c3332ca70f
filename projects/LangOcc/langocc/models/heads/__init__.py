"""Heads on a voxel volume, and a part of one of mmdet3d's."""
from .bev_occ_head import BEVOccHead
from .bev_occ_head_2d import BEVOccHead2D
from .biased_separate_head import BiasedSeparateHead
from .image_feature_head import ImageFeatureHead
from .langocc_head import LangOccHead
from .voxel_head import VoxelHead

__all__ = ['BEVOccHead', 'BEVOccHead2D', 'BiasedSeparateHead', 'ImageFeatureHead', 'LangOccHead',
           'VoxelHead']
