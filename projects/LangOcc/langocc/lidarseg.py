"""Facts of nuScenes-lidarseg: raw categories of LiDAR points and the classes they count as."""
from typing import Dict, Tuple

from .occ3d import FREE_CLASS, OCC3D_CLASSES

# Raw categories, in the order of their numbers in the label files.
LIDARSEG_CATEGORIES: Tuple[str, ...] = (
    'noise', 'animal', 'human.pedestrian.adult', 'human.pedestrian.child',
    'human.pedestrian.construction_worker', 'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer', 'human.pedestrian.stroller', 'human.pedestrian.wheelchair',
    'movable_object.barrier', 'movable_object.debris', 'movable_object.pushable_pullable',
    'movable_object.trafficcone', 'static_object.bicycle_rack', 'vehicle.bicycle',
    'vehicle.bus.bendy', 'vehicle.bus.rigid', 'vehicle.car', 'vehicle.construction',
    'vehicle.emergency.ambulance', 'vehicle.emergency.police', 'vehicle.motorcycle',
    'vehicle.trailer', 'vehicle.truck', 'flat.driveable_surface', 'flat.other', 'flat.sidewalk',
    'flat.terrain', 'static.manmade', 'static.other', 'static.vegetation', 'vehicle.ego')
# The raw category of a hit whose object has no box, Occ3D class -> category.
CLASS_TO_CATEGORY: Dict[str, str] = {
    'others': 'static.other', 'barrier': 'movable_object.barrier', 'bicycle': 'vehicle.bicycle',
    'bus': 'vehicle.bus.rigid', 'car': 'vehicle.car',
    'construction_vehicle': 'vehicle.construction', 'motorcycle': 'vehicle.motorcycle',
    'pedestrian': 'human.pedestrian.adult', 'traffic_cone': 'movable_object.trafficcone',
    'trailer': 'vehicle.trailer', 'truck': 'vehicle.truck',
    'driveable_surface': 'flat.driveable_surface', 'other_flat': 'flat.other',
    'sidewalk': 'flat.sidewalk', 'terrain': 'flat.terrain', 'manmade': 'static.manmade',
    'vegetation': 'static.vegetation'}
# Occ3D's classes of raw categories that are not 'others' (0), by nuScenes' challenge mapping.
CATEGORY_TO_CLASS: Dict[str, str] = {
    **{category: name for name, category in CLASS_TO_CATEGORY.items()},
    'static.other': 'others', 'vehicle.bus.bendy': 'bus',
    'human.pedestrian.child': 'pedestrian', 'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian'}
# Classes of nuScenes' LiDAR segmentation challenge: without and with the ignored class, number 0.
LIDARSEG_16: Tuple[str, ...] = OCC3D_CLASSES[1:FREE_CLASS]
LIDARSEG_17: Tuple[str, ...] = ('noise', *LIDARSEG_16)
