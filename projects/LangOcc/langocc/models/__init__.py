"""Models: detector, backbones, necks, view transformers, decoders, head, losses, renderer."""
from . import backbones, decoders, detectors, heads, losses, necks, view_transforms
from .constant_occupancy import ConstantOccupancy, PriorOccupancy
from .data_preprocessor import OccDataPreprocessor
from .detectors import DetectorWithOccHead, MultiViewImVoxelNet
from .inference import optimize_for_inference
from .langocc import LangOcc
from .renderer import RenderedRays, VolumeRenderer
from .streaming import StreamState
from .voxel_field import VoxelField

__all__ = ['ConstantOccupancy', 'DetectorWithOccHead', 'LangOcc', 'MultiViewImVoxelNet',
           'OccDataPreprocessor', 'PriorOccupancy', 'RenderedRays', 'StreamState',
           'VolumeRenderer', 'VoxelField', 'optimize_for_inference']
