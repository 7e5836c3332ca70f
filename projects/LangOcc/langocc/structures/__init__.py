"""Data structures that travel between data set, model and metric."""
from .camera_rig import CameraRig
from .occ_data import OccData, check_one_place
from .point_queries import PointQueries
from .ray_images import RayImages

__all__ = ['CameraRig', 'OccData', 'PointQueries', 'RayImages', 'check_one_place']
