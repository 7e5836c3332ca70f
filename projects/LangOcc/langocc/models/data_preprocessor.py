"""Batching and normalisation of multi-frame surround images; targets of an online teacher.

Legend: B batch, F frames, N cameras.
"""
from typing import List, Sequence, Union

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseDataPreprocessor

from ..structures import CameraRig
from ..teachers import DenseTeacher, OnlineTeacher


@MODELS.register_module()
class OccDataPreprocessor(BaseDataPreprocessor):
    """Collated samples -> batch on the model's device, images normalised.

    Args:
        mean, std: per channel, in RGB order, of images in [0, 255].
        bgr: parity: the published network sees BGR channels normalised with these RGB-order
            statistics; ours sees RGB.
        online_teacher: config of a :class:`~langocc.teachers.DenseTeacher` (or one) that makes the
            targets of rays from images, on the model's device, for ``PrepareRays`` with
            ``teacher='online'``. It is no part of the model: its weights are neither trained nor
            averaged nor in checkpoints, and it is built when training begins, so that a trained
            model predicts without them.
        non_blocking: see mmengine.
    """

    def __init__(self, mean: Sequence[float] = (123.675, 116.28, 103.53),
                 std: Sequence[float] = (58.395, 57.12, 57.375), bgr: bool = False,
                 online_teacher: Union[DenseTeacher, dict, None] = None,
                 non_blocking: bool = False):
        super().__init__(non_blocking)
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f'mean and std need 3 numbers each, std positive: {mean}, {std}')
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), False)
        self.bgr = bgr
        self.online_teacher = None if online_teacher is None else OnlineTeacher(online_teacher)

    def train(self, mode: bool = True) -> 'OccDataPreprocessor':
        """See torch; weights that an online teacher lacks are found before the first batch."""
        if mode and self.online_teacher is not None:
            self.online_teacher.build()
        return super().train(mode)

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
        samples = self.cast_data(data.get('data_samples'))  # copies, where there are any
        self._look_up(samples or [])
        return dict(inputs=batch, data_samples=samples)

    def _look_up(self, samples: List) -> None:
        """Gives rays the online teacher's targets; RayImages are done with then."""
        samples = [sample for sample in samples if 'gt_rays' in sample]
        waiting = [sample for sample in samples if 'ray_images' in sample]
        if self.online_teacher is None and waiting:
            raise ValueError("PrepareRays has teacher='online', but model.data_preprocessor has no "
                             'online_teacher: set it to the config of a DenseTeacher')
        if self.online_teacher is not None and len(waiting) < len(samples):
            raise ValueError("model.data_preprocessor has an online_teacher, but PrepareRays has "
                             f'another teacher for {len(samples) - len(waiting)} of {len(samples)} '
                             "samples: set its teacher to 'online'")
        if waiting:
            rays = self.online_teacher([sample.gt_rays for sample in waiting],
                                       [sample.pop('ray_images') for sample in waiting])
            for sample, bundle in zip(waiting, rays):
                sample.gt_rays = bundle
