"""Heads on a voxel volume."""
from .bev_occ_head import BEVOccHead
from .langocc_head import LangOccHead
from .voxel_head import VoxelHead

__all__ = ['BEVOccHead', 'LangOccHead', 'VoxelHead']
