"""Boxes for a detection head beside an occupancy head.

Legend: M boxes.
"""
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes

from ..geometry import homogeneous, lidar_to_global


@TRANSFORMS.register_module()
class LoadEgoBoxes(BaseTransform):
    """Annotated boxes in the (augmented) key ego frame, where volumes lie.

    mmdet3d's ``LoadAnnotations3D`` leaves them in the LiDAR frame, which is turned against the ego
    frame and lies some two metres above the road. Reads ``ann_info`` and, where it is there,
    ``bev_aug_matrix``, so it comes after :class:`BEVAug`; adds ``gt_bboxes_3d``
    (LiDARInstance3DBoxes (M, 9): bottom centre, size, yaw, velocity; x ahead, y left, z up) and
    ``gt_labels_3d`` (M,) int64, as mmdet3d's range and name filters take them.

    Labels are indices into the data set's ``metainfo.classes``; boxes of other classes are dropped.

    Args:
        valid_only: drop boxes without LiDAR or radar points (mmdet3d's ``use_valid_flag``).

    Raises:
        KeyError: the sample has no ``ann_info``.
    """

    def __init__(self, valid_only: bool = True) -> None:
        self.valid_only = valid_only

    def transform(self, results: dict) -> dict:
        """Adds ``gt_bboxes_3d`` and ``gt_labels_3d``."""
        if 'ann_info' not in results:
            raise KeyError(f'LoadEgoBoxes: sample {results.get("token")} has no ann_info; a data '
                           'set in test mode has none')
        annotations = results['ann_info']
        keep = annotations['gt_labels_3d'] >= 0
        if self.valid_only:
            keep &= annotations['bbox_3d_isvalid']
        lidar2global = homogeneous(results['ego2global'])  # no LiDAR: boxes are in the ego frame
        if 'lidar_points' in results:
            lidar2global = lidar_to_global(results)
        lidar2key = np.linalg.inv(results['key_ego2global']) @ lidar2global
        matrix = results.get('bev_aug_matrix', np.eye(4)) @ lidar2key
        boxes = annotations['gt_bboxes_3d'].tensor[torch.from_numpy(keep)]
        results['gt_bboxes_3d'] = move_boxes(boxes, torch.from_numpy(matrix))
        results['gt_labels_3d'] = annotations['gt_labels_3d'][keep]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(valid_only={self.valid_only})'


def move_boxes(boxes: torch.Tensor, matrix: torch.Tensor) -> LiDARInstance3DBoxes:
    """Boxes under a rigid motion, with flips and scale if need be.

    They stay upright: what tilt the motion has moves their centres only.

    Args:
        boxes: (M, 9) bottom centre, size, yaw, velocity (vx, vy).
        matrix: (4, 4) from their frame to the new one, metres.
    """
    boxes, linear = boxes.double(), matrix[:3, :3].double()
    centres = boxes[:, :3] + boxes[:, 5:6] / 2 * boxes.new_tensor([0., 0, 1])
    centres = centres @ linear.T + matrix[:3, 3]
    sizes = boxes[:, 3:6] * torch.linalg.det(linear).abs() ** (1 / 3)
    flat = torch.zeros_like(boxes[:, :1])
    ahead = torch.cat([boxes[:, 6:7].cos(), boxes[:, 6:7].sin(), flat], dim=1) @ linear.T
    velocities = (torch.cat([boxes[:, 7:9], flat], dim=1) @ linear.T)[:, :2]
    yaws = torch.atan2(ahead[:, 1:2], ahead[:, :1])
    moved = torch.cat([centres, sizes, yaws, velocities], dim=1).float()
    return LiDARInstance3DBoxes(moved, box_dim=9, origin=(0.5, 0.5, 0.5))
