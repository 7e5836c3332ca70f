"""Pyramid of BEV features (BEVDet's ``FPN_LSS``).

Legend: B batch, C channels, (Y, X) cells.
"""
from typing import Optional, Sequence

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class FPN_LSS(BaseModule):
    """Upsamples a coarse level, concatenates a fine one, convolves, and upsamples once more.

    Two 3x3 convolutions on the concatenation (fine level first), then, with ``extra_upsample``, one
    behind the upsampling and a 1x1; BatchNorm and ReLU after all but the last. Upsampling is
    bilinear with ``align_corners=True``. Parameter names are BEVDet's.

    Args:
        in_channels: channels of both levels together.
        out_channels: channels of the output.
        scale_factor: of the coarse level's cells to the fine one's.
        input_feature_index: which levels are the fine and the coarse one.
        extra_upsample: factor by which the result is finer than the fine level; None or 1: not.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 scale_factor: int = 4,
                 input_feature_index: Sequence[int] = (0, 2),
                 extra_upsample: Optional[int] = 2,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.input_feature_index = tuple(input_feature_index)
        self.up = _upsample(scale_factor)
        extra = extra_upsample is not None and extra_upsample != 1
        width = out_channels * 2 if extra else out_channels
        self.conv = nn.Sequential(*_conv_bn_relu(in_channels, width), *_conv_bn_relu(width, width))
        self.up2 = nn.Sequential(
            _upsample(extra_upsample), *_conv_bn_relu(width, out_channels),
            nn.Conv2d(out_channels, out_channels, 1)) if extra else None

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Merges two of the levels.

        Args:
            feats: (B, C_i, Y_i, X_i).

        Returns:
            (B, out_channels, Y, X).

        Raises:
            ValueError: the levels' channels do not sum to ``in_channels``, or the coarse one does
                not come to the fine one's size.
        """
        fine, coarse = (feats[index] for index in self.input_feature_index)
        coarse = self.up(coarse)
        if coarse.shape[2:] != fine.shape[2:] or (
                fine.shape[1] + coarse.shape[1] != self.in_channels):
            raise ValueError(
                f'FPN_LSS: levels {self.input_feature_index} are {tuple(fine.shape)} and, '
                f'upsampled, {tuple(coarse.shape)}, expected one size and {self.in_channels} '
                'channels together (in_channels, scale_factor, input_feature_index)')
        merged = self.conv(torch.cat([fine, coarse], dim=1))
        return merged if self.up2 is None else self.up2(merged)


def _upsample(factor: int) -> nn.Module:
    return nn.Upsample(scale_factor=factor, mode='bilinear', align_corners=True)


def _conv_bn_relu(in_channels: int, out_channels: int) -> Sequence[nn.Module]:
    return (nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
