"""Heads on a voxel volume."""
from .langocc_head import LangOccHead

__all__ = ['LangOccHead']
