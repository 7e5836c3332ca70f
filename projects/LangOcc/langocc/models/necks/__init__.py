"""Feature pyramids in the image and in the voxel grid, and ways between volume, BEV and TPV."""
from .bev_volume import BEVToVolume, VolumeToBEV
from .custom_fpn import CustomFPN
from .fpn_lss import FPN_LSS
from .lss_fpn3d import LSSFPN3D
from .sequential_neck import SequentialNeck
from .tpv_volume import TPVToVolume, VolumeToTPV

__all__ = ['BEVToVolume', 'CustomFPN', 'FPN_LSS', 'LSSFPN3D', 'SequentialNeck', 'TPVToVolume',
           'VolumeToBEV', 'VolumeToTPV']
