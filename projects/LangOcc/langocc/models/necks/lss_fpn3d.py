"""Voxel feature pyramid (BEVDet's ``LSSFPN3D``).

Legend: B batch, C channels, (Z, Y, X) cells.
"""
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as checkpointing
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor


@MODELS.register_module()
class LSSFPN3D(BaseModule):
    """Brings every level to the finest grid, concatenates, and mixes by a 1x1x1 convolution.

    Upsampling is trilinear with ``align_corners=True`` (x2 and x4 in the paper's model); the
    convolution is followed by BatchNorm and ReLU. Channels are concatenated finest level first.

    Args:
        in_channels: sum of the levels' channels.
        out_channels: channels of the output.
        with_cp: recompute the whole neck in the backward pass.
        low_memory: convolve each level before it is upsampled. A 1x1x1 convolution and an
            interpolation commute, so the result is the same up to rounding; the wide
            concatenated volume at full resolution (224 channels, 574 MB in the paper's model) is
            never made.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 with_cp: bool = False,
                 low_memory: bool = False,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        self.low_memory = low_memory
        self.conv = ConvModule(in_channels, out_channels, kernel_size=1, bias=False,
                               conv_cfg=dict(type='Conv3d'), norm_cfg=dict(type='BN3d'))

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Merges the levels.

        Args:
            feats: (B, C_i, Z_i, Y_i, X_i), finest first; each grid divides the first one.

        Returns:
            (B, out_channels, Z_0, Y_0, X_0).

        Raises:
            ValueError: channels do not sum to ``in_channels``, or a coarse grid does not divide
                the finest one.
        """
        self._check(feats)
        merge = self._merge_low_memory if self.low_memory else self._merge
        if self.with_cp and self.training:
            return checkpointing.checkpoint(merge, *feats, use_reentrant=False)
        return merge(*feats)

    def _merge(self, *feats: Tensor) -> Tensor:
        size = feats[0].shape[-3:]
        return self.conv(torch.cat([_upsample(level, size) for level in feats], dim=1))

    def _merge_low_memory(self, *feats: Tensor) -> Tensor:
        size = feats[0].shape[-3:]
        conv = self.conv.conv
        weights = conv.weight.split([level.shape[1] for level in feats], dim=1)
        biases = [conv.bias] + [None] * (len(feats) - 1)  # there is one once the norm is folded
        mixed = sum(_upsample(F.conv3d(level, weight, bias), size)
                    for level, weight, bias in zip(feats, weights, biases))
        return self.conv.activate(self.conv.norm(mixed))

    def _check(self, feats: Sequence[Tensor]) -> None:
        shapes = [tuple(level.shape) for level in feats]
        expected = self.conv.conv.in_channels
        if sum(shape[1] for shape in shapes) != expected:
            raise ValueError(f'LSSFPN3D: levels {shapes} must have {expected} channels together')
        for shape in shapes[1:]:
            for fine, coarse in zip(shapes[0][2:], shape[2:]):
                if fine % coarse:
                    raise ValueError(
                        f'LSSFPN3D: level with grid (Z, Y, X) = {shape[2:]} does not divide the '
                        f'finest grid {shapes[0][2:]}: its stride {fine / coarse:.3g} is no whole '
                        'number; choose a grid that the strides of the 3D backbone divide')


def _upsample(level: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, z, y, x) -> (B, C, *size), trilinear, corners aligned."""
    if tuple(level.shape[-3:]) == tuple(size):
        return level
    return F.interpolate(level, size=tuple(size), mode='trilinear', align_corners=True)
