"""Packing a sample for the model."""
from typing import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData

# results key -> field of the data sample
_TARGETS = {'rays': 'gt_rays', 'image_rays': 'gt_image_rays', 'ray_images': 'ray_images',
            'gt_occ': 'gt_occ', 'gt_depth': 'gt_depth', 'point_queries': 'point_queries'}


@TRANSFORMS.register_module()
class PackOccInputs(BaseTransform):
    """``inputs`` and ``data_samples`` of a sample.

    inputs: ``imgs`` (F, N, 3, H, W) uint8, ``rig`` CameraRig (F, N, 4, 4), ``bev_aug_matrix``
    (4, 4) float32 (identity where none was drawn) and, where loaded, ``points`` (P, C), LiDAR
    frame.
    data_samples: Det3DDataSample with, where made, ``gt_rays`` and ``gt_image_rays`` (RayBundle),
    ``ray_images`` (RayImages, for an online teacher), ``gt_occ`` (OccData), ``gt_depth`` (N, H, W),
    ``point_queries`` (PointQueries) and ``gt_instances_3d`` (``bboxes_3d``, ``labels_3d``, of
    LoadEgoBoxes); metainfo ``meta_keys``.

    Args:
        meta_keys: keys of results that become metainfo; those that a sample lacks (LiDAR, labels:
            optional in nuScenes format) are left out, as mmdet3d's packing does.
    """
    META_KEYS = ('sample_idx', 'token', 'timestamp', 'scene_name', 'scene_token', 'frame_idx',
                 'camera_names', 'ego2global', 'key_ego2global', 'bev_aug_matrix', 'images',
                 'lidar_points', 'lidar_origins', 'pts_semantic_mask_path', 'occ_path',
                 'data_root', 'box_type_3d', 'box_mode_3d')

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Packs; raises KeyError where ``imgs`` or ``rig`` is not there."""
        for key in ('imgs', 'rig'):
            if key not in results:
                raise KeyError(f'PackOccInputs needs {key!r}: put PrepareImageInputs before it; '
                               f'results have {sorted(results)}')
        matrix = np.asarray(results.get('bev_aug_matrix', np.eye(4)), dtype=np.float32)
        inputs = dict(imgs=results['imgs'].contiguous(), rig=results['rig'],
                      bev_aug_matrix=torch.from_numpy(matrix.copy()))
        if 'points' in results:
            inputs['points'] = results['points'].tensor.contiguous()
        metainfo = {key: results[key] for key in self.meta_keys if key in results}
        data_sample = Det3DDataSample(metainfo=metainfo)
        for key, name in _TARGETS.items():
            if key in results:
                setattr(data_sample, name, results[key])
        if 'gt_bboxes_3d' in results:
            data_sample.gt_instances_3d = InstanceData(
                bboxes_3d=results['gt_bboxes_3d'],
                labels_3d=torch.as_tensor(results['gt_labels_3d'], dtype=torch.long))
        return dict(inputs=inputs, data_samples=data_sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
