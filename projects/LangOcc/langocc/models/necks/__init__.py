"""Feature pyramids in the image and in the voxel grid."""
from .custom_fpn import CustomFPN
from .lss_fpn3d import LSSFPN3D

__all__ = ['CustomFPN', 'LSSFPN3D']
