"""Batching and normalisation of multi-frame surround images.

Legend: B batch, F frames, N cameras.
"""
from typing import Sequence

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseDataPreprocessor

from ..structures import CameraRig


@MODELS.register_module()
class OccDataPreprocessor(BaseDataPreprocessor):
    """Collated samples -> batch on the model's device, images normalised.

    Args:
        mean, std: per channel, in RGB order, of images in [0, 255].
        bgr: parity: the published network sees BGR channels normalised with these RGB-order
            statistics; ours sees RGB.
        non_blocking: see mmengine.
    """

    def __init__(self, mean: Sequence[float] = (123.675, 116.28, 103.53),
                 std: Sequence[float] = (58.395, 57.12, 57.375), bgr: bool = False,
                 non_blocking: bool = False):
        super().__init__(non_blocking)
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f'mean and std need 3 numbers each, std positive: {mean}, {std}')
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), False)
        self.bgr = bgr

    def forward(self, data: dict, training: bool = False) -> dict:
        """See mmengine. Gives imgs (B, F, N, 3, H, W), rig (B, F, N, 4, 4), bev_aug_matrix."""
        inputs = data['inputs']
        shapes = sorted({tuple(imgs.shape) for imgs in inputs['imgs']})
        if len(shapes) != 1:
            raise ValueError(f'samples of one batch have images of different shapes: {shapes}')
        imgs = torch.stack(self.cast_data(list(inputs['imgs']))).float()
        if self.bgr:
            imgs = imgs.flip(3)
        matrices = torch.stack(list(inputs['bev_aug_matrix'])).float()
        batch = dict(
            imgs=(imgs - self.mean) / self.std,
            rig=CameraRig.stack(list(inputs['rig'])).to(self.device),
            bev_aug_matrix=self.cast_data(matrices))
        if 'points' in inputs:
            batch['points'] = self.cast_data(list(inputs['points']))
        return dict(inputs=batch, data_samples=self.cast_data(data.get('data_samples')))
