"""Facts of Occ3D-nuScenes that data, metric, vocabulary and pictures share (protocols.md)."""
from typing import Optional, Sequence, Tuple

OCC3D_CLASSES: Tuple[str, ...] = (
    'others', 'barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle',
    'pedestrian', 'traffic_cone', 'trailer', 'truck', 'driveable_surface', 'other_flat', 'sidewalk',
    'terrain', 'manmade', 'vegetation', 'free')
NUM_CLASSES = len(OCC3D_CLASSES)
FREE_CLASS = NUM_CLASSES - 1
# x0, y0, z0, x1, y1, z1 in metres, key ego frame.
OCC3D_RANGE: Tuple[float, ...] = (-40., -40., -1., 40., 40., 5.4)
OCC3D_SHAPE: Tuple[int, ...] = (200, 200, 16)  # X, Y, Z
# RGB the classes are commonly drawn with, in class order; free is white.
OCC3D_COLORS: Tuple[Tuple[int, int, int], ...] = (
    (0, 0, 0), (255, 120, 50), (255, 192, 203), (255, 255, 0), (0, 150, 245), (0, 255, 255),
    (255, 127, 0), (255, 0, 0), (255, 240, 150), (135, 60, 0), (160, 32, 240), (255, 0, 255),
    (139, 137, 137), (75, 0, 75), (150, 240, 80), (230, 230, 250), (0, 175, 0), (255, 255, 255))


def range_of_labels(shape: Sequence[int]) -> Optional[Tuple[float, ...]]:
    """Where labels of a shape (X, Y, Z) lie that do not say so: Occ3D's range, or nobody knows."""
    return OCC3D_RANGE if tuple(shape) == OCC3D_SHAPE else None
