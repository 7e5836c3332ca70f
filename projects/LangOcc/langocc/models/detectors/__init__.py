"""Other detectors with an occupancy head."""
from .detector_with_occ_head import DetectorWithOccHead
from .multi_view_imvoxelnet import MultiViewImVoxelNet
from .volume_tap import VolumeTap

__all__ = ['DetectorWithOccHead', 'MultiViewImVoxelNet', 'VolumeTap']
