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
        grid_shape: (Z, Y, X) cells, or (Y, X).
        stride: total stride of the coarsest level.
        owner: name of the module that complains.

    Raises:
        ValueError: names the grid, the stride and the axes that do not fit.
    """
    axes = 'ZYX'[-len(grid_shape):]
    wrong = [f'{axis}={size}' for axis, size in zip(axes, grid_shape) if size % stride]
    if wrong:
        raise ValueError(f'{owner}: grid ({", ".join(axes)}) = {tuple(grid_shape)} is not '
                         f'divisible by the total stride {stride} along {", ".join(wrong)}; '
                         f'expected multiples of {stride} (change point_cloud_range, voxel_size '
                         'or the strides)')


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


class StagedResNet(BaseModule):
    """Stages of residual blocks over a grid; the first block of each stage projects its shortcut.

    Args:
        numC_input: channels of the input (BEVDet's key).
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
        name = type(self).__name__
        if num_channels is None:
            num_channels = [numC_input * 2**(i + 1) for i in range(len(num_layer))]
        if not len(num_layer) == len(num_channels) == len(stride) > 0:
            raise ValueError(f'{name}: num_layer, num_channels and stride must have one entry a '
                             f'stage, got {list(num_layer)}, {list(num_channels)}, {list(stride)}')
        ids = range(len(num_layer)) if backbone_output_ids is None else backbone_output_ids
        self.backbone_output_ids = tuple(ids)
        if not set(self.backbone_output_ids) <= set(range(len(num_layer))):
            raise ValueError(f'{name}: backbone_output_ids {self.backbone_output_ids} '
                             f'name stages beyond the {len(num_layer)} there are')
        self.with_cp = with_cp
        self.strides = _cumulative(stride)
        stages, channels = [], numC_input
        for blocks, width, step in zip(num_layer, num_channels, stride):
            first = self.make_block(channels, width, step, first=True)
            stages.append(nn.Sequential(
                first, *(self.make_block(width, width) for _ in range(blocks - 1))))
            channels = width
        self.layers = nn.Sequential(*stages)

    def make_block(self, in_channels: int, channels: int, stride: int = 1, first: bool = False
                   ) -> nn.Module:
        """A residual block; the ``first`` of a stage projects its shortcut."""
        raise NotImplementedError

    def check_grid(self, grid_shape: Sequence[int]) -> None:
        """Raises ValueError if the strides do not divide a (Z, Y, X) grid; for use at build."""
        check_grid_shape(grid_shape, self.strides[-1], type(self).__name__)

    def forward(self, feats: Tensor) -> List[Tensor]:
        """Computes the features of the chosen stages.

        Args:
            feats: (B, numC_input, ..., Y, X).

        Returns:
            One (B, C_i, ..., Y/s_i, X/s_i) a chosen stage, s_i its total stride.

        Raises:
            ValueError: the grid is not divisible by the total stride.
        """
        self.check_grid(feats.shape[2:])
        outputs = []
        for index, stage in enumerate(self.layers):
            if self.with_cp and self.training:
                feats = checkpointing.checkpoint(stage, feats, use_reentrant=False)
            else:
                feats = stage(feats)
            if index in self.backbone_output_ids:
                outputs.append(feats)
        return outputs


@MODELS.register_module()
class CustomResNet3D(StagedResNet):
    """Residual network over voxel volumes (B, C, Z, Y, X): see :class:`StagedResNet`."""

    def make_block(self, in_channels: int, channels: int, stride: int = 1, first: bool = False
                   ) -> nn.Module:
        return BasicBlock3D(in_channels, channels, stride, downsample=first)


def _cumulative(strides: Sequence[int]) -> Tuple[int, ...]:
    """Stride of each stage -> total stride of each stage."""
    totals, total = [], 1
    for stride in strides:
        total *= stride
        totals.append(total)
    return tuple(totals)
