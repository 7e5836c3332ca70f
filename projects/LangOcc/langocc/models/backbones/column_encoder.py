"""A 3D encoder that works on columns: the layers of height are channels of a 2D network.

Legend: B batch, C channels, Z layers, (Y, X) columns.
"""
from typing import List, Optional

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


class ColumnBlock(BaseModule):
    """Residual block of two 3 x 3 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        norm = dict(type='BN')
        self.conv1 = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm, act_cfg=None)

    def forward(self, feats: Tensor) -> Tensor:
        return torch.relu(feats + self.conv2(self.conv1(feats)))


@MODELS.register_module()
class ColumnEncoder(BaseModule):
    """Volume -> volume by 2D convolutions over columns, as FlashOcc's channel-to-height does.

    Every layer of a column sees all others at once. Whether a wall stands where a voxel is shows at
    the foot of its column, in pixels that a voxel half way up does not look at; 3 x 3 x 3
    convolutions need many layers, and many training steps, to carry it up there.

    Args:
        in_channels: C of the input volume.
        num_layers: Z.
        out_channels: of the output volume.
        channels: of a column inside.
        num_blocks: residual blocks of two 3 x 3 convolutions.
        init_cfg: see mmengine.
    """

    def __init__(self, in_channels: int, num_layers: int, out_channels: int, channels: int = 64,
                 num_blocks: int = 2, init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        self.in_channels, self.num_layers = in_channels, num_layers
        self.out_channels = out_channels
        self.columns_in = ConvModule(in_channels * num_layers, channels, 1,
                                     norm_cfg=dict(type='BN'))
        self.blocks = nn.Sequential(*(ColumnBlock(channels) for _ in range(num_blocks)))
        self.columns_out = nn.Conv2d(channels, out_channels * num_layers, 1)

    def check_grid(self, grid_shape: tuple) -> None:
        """Raises ValueError if a (Z, Y, X) grid has not ``num_layers`` layers; for use at build."""
        if grid_shape[0] != self.num_layers:
            raise ValueError(f'ColumnEncoder: num_layers={self.num_layers}, the grid (Z, Y, X) = '
                             f'{tuple(grid_shape)} has {grid_shape[0]}')

    def forward(self, volume: Tensor) -> List[Tensor]:
        """(B, C, Z, Y, X) -> [(B, out_channels, Z, Y, X)].

        Raises:
            ValueError: another number of channels or layers than configured.
        """
        if tuple(volume.shape[1:3]) != (self.in_channels, self.num_layers):
            raise ValueError(f'ColumnEncoder: volume (B, C, Z, Y, X) = {tuple(volume.shape)}, '
                             f'expected C = {self.in_channels}, Z = {self.num_layers}')
        feats = self.blocks(self.columns_in(volume.flatten(1, 2)))
        return [self.columns_out(feats).unflatten(1, (self.out_channels, self.num_layers))]
