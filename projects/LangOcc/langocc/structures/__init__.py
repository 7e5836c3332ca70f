"""Data structures that travel between data set, model and metric."""
from .camera_rig import CameraRig
from .occ_data import OccData

__all__ = ['CameraRig', 'OccData']
