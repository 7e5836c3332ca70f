"""Pixels at which a labelled LiDAR point projects: 2D labels of class and distance (RenderOcc).

Labels are nuScenes-lidarseg's, one byte a point; their classes are Occ3D's, by the challenge's
mapping (:mod:`langocc.lidarseg`).

Legend: P points.
"""
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
from mmdet3d.registry import TASK_UTILS

from ..lidarseg import CATEGORY_TO_CLASS, LIDARSEG_CATEGORIES
from ..occ3d import FREE_CLASS, OCC3D_CLASSES
from ..teachers.class_names import ClassNames
from .ray_sources import LidarPixelSource

# Categories that name no surface of the street.
UNKNOWN_CATEGORIES = ('noise', 'vehicle.ego')
MOVING_CLASSES = ('bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian',
                  'trailer', 'truck')


@TASK_UTILS.register_module()
class LidarLabelSource(LidarPixelSource):
    """:class:`LidarPixelSource` whose pixels have the class of their point.

    RenderOcc (Pan et al., arXiv 2309.09502) supervises rays so, of the key frame and, as auxiliary
    rays, of its neighbours. Classes are Occ3D's 17 without free; categories outside the challenge
    are 'others' (0), noise and the ego vehicle are unknown (-1): such rays keep their distance.

    Args:
        categories: Names of the numbers in the label files; nuScenes-lidarseg's 32 by default.
        dynamic_classes: What ``mask_dynamic`` of PrepareRays leaves out of other frames than the
            key frame.
        kwargs: See :class:`LidarPixelSource`.
    """

    def __init__(self,
                 categories: Sequence[str] = LIDARSEG_CATEGORIES,
                 dynamic_classes: Sequence[str] = MOVING_CLASSES,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.labels = ClassNames(OCC3D_CLASSES[:FREE_CLASS], dynamic_classes,
                                 owner=type(self).__name__)
        self.table = np.array([_class_of(name) for name in categories], dtype=np.int64)

    def _columns(self, info: Dict[str, Any], num_points: int) -> List[np.ndarray]:
        numbers = read_lidarseg(info, num_points)
        if len(numbers) and numbers.max() >= len(self.table):
            raise ValueError(f'{info["pts_semantic_mask_path"]} has the category '
                             f'{numbers.max()}, expected 0 ... {len(self.table) - 1}: set '
                             'categories of LidarLabelSource')
        return [self.table[numbers]]


def read_lidarseg(info: Dict[str, Any], num_points: int) -> np.ndarray:
    """Raw categories (P,) uint8 of a frame's LiDAR points.

    Args:
        info: of the frame, with ``pts_semantic_mask_path``.
        num_points: P, of the LiDAR file.

    Raises:
        ValueError: the frame has no LiDAR labels, or their number is not that of the points.
        FileNotFoundError: no such file.
    """
    token, path = info.get('token'), info.get('pts_semantic_mask_path')
    if not path:
        raise ValueError(f'sample {token} has no LiDAR labels (pts_semantic_mask_path)')
    if not Path(path).is_file():
        raise FileNotFoundError(f'LiDAR labels {path} of sample {token} do not exist')
    labels = np.fromfile(path, dtype=np.uint8)
    if len(labels) != num_points:
        raise ValueError(f'{path} labels {len(labels)} points, the LiDAR file of sample {token} '
                         f'has {num_points}')
    return labels


def _class_of(category: str) -> int:
    if category in UNKNOWN_CATEGORIES:
        return -1
    return OCC3D_CLASSES.index(CATEGORY_TO_CLASS.get(category, 'others'))
