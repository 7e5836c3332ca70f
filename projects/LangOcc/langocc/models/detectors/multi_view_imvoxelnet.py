"""mmdet3d's ImVoxelNet for a rig of cameras.

Legend: B batch, N cameras, C channels, V = Z * Y * X voxels.
"""
from typing import Optional, Tuple

import torch
from mmdet3d.models.detectors import ImVoxelNet
from mmdet3d.models.layers.fusion_layers.point_fusion import point_sample
from mmdet3d.registry import MODELS
from torch import Tensor

from ..view_transforms import ego_to_pixels
from ..volumes import volume_grid_of


@MODELS.register_module()
class MultiViewImVoxelNet(ImVoxelNet):
    """ImVoxelNet (arXiv 2106.01178) on surround cameras, as its paper has it for nuScenes.

    mmdet3d's class has one camera. This one reads the images and the rig of this project's data
    sets, projects every voxel into every camera by mmdet3d's own ``point_sample`` (nearest feature,
    as ImVoxelNet) and takes the mean over the cameras that see it; 0 where none does. All else,
    arguments, necks, heads and losses, is ImVoxelNet's. The volume (B, C, X, Y, Z) lies in the
    (augmented) key ego frame, and so must the boxes of a detection head (``LoadEgoBoxes``).

    Args:
        kwargs: see :class:`mmdet3d.models.ImVoxelNet`. ``prior_generator.ranges`` holds the one
            range of the volume, metres, key ego frame; ``n_voxels`` (X, Y, Z).

    Raises:
        ValueError: several ranges.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.n_voxels = list(self.n_voxels)
        ranges = self.prior_generator.ranges
        if len(ranges) != 1:
            raise ValueError(f'MultiViewImVoxelNet: prior_generator has {len(ranges)} ranges, '
                             'expected the one of the volume')
        self.grid = volume_grid_of(self)

    def extract_feat(self, batch_inputs_dict: dict, batch_data_samples: Optional[list] = None
                     ) -> Tuple[Tensor, Tensor]:
        """What ``neck_3d`` makes of the volume (B, C, X, Y, Z), and where a camera sees it.

        Args:
            batch_inputs_dict: ``imgs`` (B, 1, N, 3, H, W), ``rig``, ``bev_aug_matrix`` (B, 4, 4).
            batch_data_samples: not read.

        Returns:
            The neck's output, and a mask (B, 1, X, Y, Z) of 0 and 1.

        Raises:
            ValueError: several frames, which this detector has no use for.
        """
        imgs = batch_inputs_dict['imgs']
        if imgs.dim() != 6 or imgs.shape[1] != 1:
            raise ValueError(f'MultiViewImVoxelNet: imgs must be (B, 1, N, 3, H, W), the key frame '
                             f'alone, got {tuple(imgs.shape)}: set multi_adj_frame_id_cfg=(1, 1, '
                             '1) and stereo=False in the data set')
        batch, _, cameras = imgs.shape[:3]
        feats = self.neck(self.backbone(imgs.flatten(0, 2)))[0].unflatten(0, (batch, cameras))
        matrices = ego_to_pixels(batch_inputs_dict['rig'].frame(0),
                                 batch_inputs_dict['bev_aug_matrix']).to(imgs)
        points = self.prior_generator.grid_anchors([self.n_voxels[::-1]], device=imgs.device)[0]
        volumes, seen = zip(*(self._lift(*item, points[:, :3], imgs.shape[-2:])
                              for item in zip(feats, matrices)))
        return self.neck_3d(torch.stack(volumes)), torch.stack(seen)

    def _lift(self, feats: Tensor, matrices: Tensor, points: Tensor, size: Tuple[int, int]
              ) -> Tuple[Tensor, Tensor]:
        """Volume (C, X, Y, Z) of one sample and its mask (1, X, Y, Z).

        Args:
            feats: (N, C, h, w).
            matrices: (N, 4, 4) of :func:`ego_to_pixels`.
            points: (V, 3) metres, z slowest.
            size: (H, W) of the images.
        """
        total, count = 0., 0.
        for camera_feats, matrix in zip(feats, matrices):
            values, valid = point_sample(
                {}, camera_feats[None], points, matrix, 'LIDAR', img_scale_factor=1,
                img_crop_offset=0, img_flip=False, img_pad_shape=size, img_shape=size,
                aligned=False, valid_flag=True)
            total, count = total + values, count + valid[:, None].to(values)
        total = total / count.clamp(min=1)
        return tuple(values.unflatten(0, self.n_voxels[::-1]).permute(3, 2, 1, 0)
                     for values in (total, (count > 0).to(total)))
