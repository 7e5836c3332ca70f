"""3D residual network over voxel volumes (BEVDet's ``CustomResNet3D``).

Legend: B batch, C channels, (Z, Y, X) cells.
"""
from typing import List, Optional, Sequence, Tuple

import torch.utils.checkpoint as checkpointing
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


def check_grid_shape(grid_shape: Sequence[int], stride: int, owner: str) -> None:
    """Raises unless a stride divides every axis of a grid.

    Args:
        grid_shape: (Z, Y, X) cells.
        stride: total stride of the coarsest level.
        owner: name of the module that complains.

    Raises:
        ValueError: names the grid, the stride and the axes that do not fit.
    """
    wrong = [f'{axis}={size}' for axis, size in zip('ZYX', grid_shape) if size % stride]
    if wrong:
        raise ValueError(f'{owner}: grid (Z, Y, X) = {tuple(grid_shape)} is not divisible by the '
                         f'total stride {stride} along {", ".join(wrong)}; expected multiples of '
                         f'{stride} (change point_cloud_range, voxel_size or the strides)')


class BasicBlock3D(BaseModule):
    """Two 3x3x3 convolutions with a shortcut.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: of the first convolution.
        downsample: project the shortcut by a 3x3x3 convolution; needed where shapes change.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1,
                 downsample: bool = False) -> None:
        super().__init__()
        common = dict(kernel_size=3, padding=1, bias=False, conv_cfg=dict(type='Conv3d'),
                      norm_cfg=dict(type='BN3d'))
        self.conv1 = ConvModule(in_channels, channels, stride=stride, **common)
        self.conv2 = ConvModule(channels, channels, act_cfg=None, **common)
        self.downsample = None
        if downsample:
            self.downsample = ConvModule(
                in_channels, channels, stride=stride, act_cfg=None, **common)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, C_in, Z, Y, X) -> (B, C, Z/stride, Y/stride, X/stride)."""
        shortcut = volume if self.downsample is None else self.downsample(volume)
        return self.relu(self.conv2(self.conv1(volume)) + shortcut)


@MODELS.register_module()
class CustomResNet3D(BaseModule):
    """Stages of 3D residual blocks; the first block of each stage projects its shortcut.

    Args:
        numC_input: channels of the input volume (BEVDet's key).
        num_layer: blocks of each stage.
        num_channels: channels of each stage; doubled from stage to stage by default.
        stride: stride of each stage.
        backbone_output_ids: stages returned; all by default.
        with_cp: recompute each stage in the backward pass instead of keeping its activations.

    Raises:
        ValueError: the lists differ in length or name a stage that is not there.
    """

    def __init__(self,
                 numC_input: int,
                 num_layer: Sequence[int] = (2, 2, 2),
                 num_channels: Optional[Sequence[int]] = None,
                 stride: Sequence[int] = (2, 2, 2),
                 backbone_output_ids: Optional[Sequence[int]] = None,
                 with_cp: bool = False,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        if num_channels is None:
            num_channels = [numC_input * 2**(i + 1) for i in range(len(num_layer))]
        if not len(num_layer) == len(num_channels) == len(stride) > 0:
            raise ValueError('CustomResNet3D: num_layer, num_channels and stride must have one '
                             f'entry a stage, got {list(num_layer)}, {list(num_channels)}, '
                             f'{list(stride)}')
        ids = range(len(num_layer)) if backbone_output_ids is None else backbone_output_ids
        self.backbone_output_ids = tuple(ids)
        if not set(self.backbone_output_ids) <= set(range(len(num_layer))):
            raise ValueError(f'CustomResNet3D: backbone_output_ids {self.backbone_output_ids} '
                             f'name stages beyond the {len(num_layer)} there are')
        self.with_cp = with_cp
        self.strides = _cumulative(stride)
        stages, channels = [], numC_input
        for blocks, width, step in zip(num_layer, num_channels, stride):
            first = BasicBlock3D(channels, width, step, downsample=True)
            stages.append(nn.Sequential(
                first, *(BasicBlock3D(width, width) for _ in range(blocks - 1))))
            channels = width
        self.layers = nn.Sequential(*stages)

    def check_grid(self, grid_shape: Sequence[int]) -> None:
        """Raises ValueError if the strides do not divide a (Z, Y, X) grid; for use at build."""
        check_grid_shape(grid_shape, self.strides[-1], type(self).__name__)

    def forward(self, volume: Tensor) -> List[Tensor]:
        """Computes the feature volumes of the chosen stages.

        Args:
            volume: (B, numC_input, Z, Y, X).

        Returns:
            One (B, C_i, Z/s_i, Y/s_i, X/s_i) a chosen stage, s_i its total stride.

        Raises:
            ValueError: the grid is not divisible by the total stride.
        """
        self.check_grid(volume.shape[-3:])
        outputs = []
        for index, stage in enumerate(self.layers):
            if self.with_cp and self.training:
                volume = checkpointing.checkpoint(stage, volume, use_reentrant=False)
            else:
                volume = stage(volume)
            if index in self.backbone_output_ids:
                outputs.append(volume)
        return outputs


def _cumulative(strides: Sequence[int]) -> Tuple[int, ...]:
    """Stride of each stage -> total stride of each stage."""
    totals, total = [], 1
    for stride in strides:
        total *= stride
        totals.append(total)
    return tuple(totals)
