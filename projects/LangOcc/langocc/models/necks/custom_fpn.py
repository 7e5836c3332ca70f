"""Image feature pyramid that computes only the outputs asked for (BEVDet's ``CustomFPN``).

Legend: B batch (cameras folded in), C channels, h/w feature height and width.
"""
from typing import Optional, Sequence, Tuple

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class CustomFPN(BaseModule):
    """Lateral 1x1 convolutions, nearest upsampling top-down, one 3x3 convolution an output.

    No normalisation and no activation (as published).

    Args:
        in_channels: channels of each input level, finest first.
        out_channels: channels of every output.
        num_outs: number of outputs; must equal ``len(out_ids)``.
        start_level: first input level that takes part.
        out_ids: levels put out, counted from ``start_level``.

    Raises:
        ValueError: outputs asked for are not there, or ``num_outs`` contradicts ``out_ids``.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: int,
                 num_outs: int = 1,
                 start_level: int = 0,
                 out_ids: Sequence[int] = (0, ),
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        levels = list(in_channels)[start_level:]
        if len(out_ids) != num_outs or not set(out_ids) <= set(range(len(levels))):
            raise ValueError(f'CustomFPN: num_outs={num_outs} and out_ids={list(out_ids)} do not '
                             f'fit in_channels={list(in_channels)} from level {start_level} on')
        self.in_channels = tuple(in_channels)
        self.start_level = start_level
        self.out_ids = tuple(out_ids)
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, act_cfg=None) for channels in levels)
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, act_cfg=None) for _ in out_ids)

    def forward(self, inputs: Sequence[Tensor]) -> Tuple[Tensor, ...]:
        """Merges the levels.

        Args:
            inputs: one (B, C_i, h_i, w_i) an entry of ``in_channels``, finest first.

        Returns:
            One (B, out_channels, h_i, w_i) an entry of ``out_ids``; always a tuple.

        Raises:
            ValueError: the number of inputs differs from ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(f'CustomFPN: expected {len(self.in_channels)} levels with channels '
                             f'{self.in_channels}, got {[tuple(x.shape) for x in inputs]}')
        laterals = [conv(level) for conv, level in
                    zip(self.lateral_convs, inputs[self.start_level:])]
        merged = laterals[-1:]
        for lateral in reversed(laterals[:-1]):
            coarser = F.interpolate(merged[0], size=lateral.shape[-2:], mode='nearest')
            merged.insert(0, lateral + coarser)
        return tuple(conv(merged[level]) for conv, level in zip(self.fpn_convs, self.out_ids))
