"""Depth net of BEVDepth and BEVStereo: features and camera -> depth logits and context.

Written from the architecture (Li et al., BEVDepth, AAAI 2023; BEVStereo, AAAI 2023) with the module
names of the published checkpoint (``cost_volumn_net`` included), so that its weights load.

Legend: B batch, N cameras (folded: BN), C channels, D depth bins, h/w feature height and width.
"""
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as checkpointing
from mmcv.cnn import build_conv_layer
from mmdet.models.backbones.resnet import BasicBlock
from mmengine.model import BaseModule
from torch import Tensor, nn

from .batch_norm import SingleValueBatchNorm1d, SingleValueBatchNorm2d
from .frustum import NUM_CAMERA_PARAMETERS


class Mlp(nn.Module):
    """Linear, ReLU, Linear.

    Args:
        in_features, hidden_features, out_features: widths.
    """

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self.fc2(F.relu(self.fc1(x)))


class SELayer(nn.Module):
    """Camera-aware squeeze-and-excitation: channel gates computed from a code, not from features.

    Args:
        channels: of the features and of the code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, feats: Tensor, code: Tensor) -> Tensor:
        """Gates (BN, C, h, w) features by a (BN, C) code."""
        gates = self.conv_expand(F.relu(self.conv_reduce(code[..., None, None])))
        return feats * gates.sigmoid()


class _AtrousConv(nn.Module):
    """Atrous convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, channels: int, dilation: int) -> None:
        super().__init__()
        size, padding = (1, 0) if dilation == 1 else (3, dilation)
        self.atrous_conv = nn.Conv2d(in_channels, channels, size, padding=padding,
                                     dilation=dilation, bias=False)
        self.bn = SingleValueBatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.atrous_conv(x)))


class ASPP(BaseModule):
    """Atrous spatial pyramid pooling (Chen et al., DeepLab v3): four dilations and a global pool.

    Args:
        in_channels: of input and output.
        mid_channels: of each branch.
        dilations: of the four branches; 1 is a 1x1 convolution.
        dropout: probability at the end.
    """

    def __init__(self, in_channels: int, mid_channels: int,
                 dilations: Sequence[int] = (1, 6, 12, 18), dropout: float = 0.5) -> None:
        super().__init__(dict(type='Kaiming', layer='Conv2d'))
        branches = [_AtrousConv(in_channels, mid_channels, d) for d in dilations]
        self.aspp1, self.aspp2, self.aspp3, self.aspp4 = branches
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, mid_channels, 1, bias=False),
            SingleValueBatchNorm2d(mid_channels), nn.ReLU())
        self.conv1 = nn.Conv2d(5 * mid_channels, in_channels, 1, bias=False)
        self.bn1 = SingleValueBatchNorm2d(in_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(BN, C, h, w) -> (BN, C, h, w)."""
        pooled = self.global_avg_pool(x).expand(-1, -1, *x.shape[-2:])
        branches = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x), pooled]
        return self.dropout(F.relu(self.bn1(self.conv1(torch.cat(branches, dim=1)))))


class DepthNet(BaseModule):
    """Predicts a depth distribution and a context vector for every feature cell.

    Args:
        in_channels: of the image features.
        mid_channels: inside.
        context_channels: C of the context that is splatted.
        depth_channels: D.
        use_dcn: a deformable convolution (mmcv's) after the ASPP.
        use_aspp: the ASPP.
        aspp_mid_channels: of each ASPP branch; ``mid_channels`` by default.
        stereo: concatenate a cost volume to the depth branch.
        num_cost_stages: stride-2 convolutions that bring the cost volume (stride 4) down to the
            features; 2 for stride 16.
        with_cp: recompute the depth branch in the backward pass.
    """

    def __init__(self,
                 in_channels: int,
                 mid_channels: int,
                 context_channels: int,
                 depth_channels: int,
                 use_dcn: bool = False,
                 use_aspp: bool = True,
                 aspp_mid_channels: Optional[int] = None,
                 stereo: bool = False,
                 num_cost_stages: int = 2,
                 with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.depth_channels = depth_channels
        self.num_cost_stages = num_cost_stages
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1), nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True))
        self.context_conv = nn.Conv2d(mid_channels, context_channels, 1)
        self.bn = SingleValueBatchNorm1d(NUM_CAMERA_PARAMETERS)
        self.depth_mlp = Mlp(NUM_CAMERA_PARAMETERS, mid_channels, mid_channels)
        self.depth_se = SELayer(mid_channels)
        self.context_mlp = Mlp(NUM_CAMERA_PARAMETERS, mid_channels, mid_channels)
        self.context_se = SELayer(mid_channels)
        self.cost_volumn_net = None
        if stereo:
            self.cost_volumn_net = _cost_net(depth_channels, num_cost_stages)
        blocks = _residual_blocks(mid_channels, depth_channels if stereo else 0)
        if use_aspp:
            blocks.append(ASPP(mid_channels, aspp_mid_channels or mid_channels))
        if use_dcn:
            blocks.append(build_conv_layer(dict(type='DCN'), mid_channels, mid_channels, 3,
                                           padding=1, groups=4, im2col_step=128))
        blocks.append(nn.Conv2d(mid_channels, depth_channels, 1))
        self.depth_conv = nn.Sequential(*blocks)

    def forward(self, feats: Tensor, parameters: Tensor,
                cost_volume: Optional[Tensor] = None) -> tuple:
        """Predicts depth logits and context.

        Args:
            feats: (BN, in_channels, h, w) image features.
            parameters: (BN, 27) of :func:`~.frustum.camera_parameters`.
            cost_volume: (BN, D, h', w') at ``2**num_cost_stages`` times the resolution, in
                [0, 1]; zeros without a previous frame (as published). Read by a stereo net
                only.

        Returns:
            logits (BN, D, h, w) and context (BN, context_channels, h, w).

        Raises:
            ValueError: the cost volume does not come down to the features' size.
        """
        feats = self.reduce_conv(feats)
        return self.decode(feats, self.match(feats, cost_volume), parameters)

    def match(self, feats: Tensor, cost_volume: Optional[Tensor]) -> Optional[Tensor]:
        """Brings a cost volume down to the features' stride.

        Args:
            feats: (BN, mid_channels, h, w) after ``reduce_conv``.
            cost_volume: as in :meth:`forward`.

        Returns:
            (BN, D, h, w); None in a net without stereo.

        Raises:
            ValueError: as in :meth:`forward`.
        """
        if self.cost_volumn_net is None:
            return None
        size = feats.shape[-2:]
        if cost_volume is None:
            scale = 2**self.num_cost_stages
            cost_volume = feats.new_zeros(
                feats.shape[0], self.depth_channels, size[0] * scale, size[1] * scale)
        matching = self.cost_volumn_net(cost_volume)
        if matching.shape[-2:] != size:
            raise ValueError(f'DepthNet: a cost volume of {tuple(cost_volume.shape[-2:])} comes '
                             f'down to {tuple(matching.shape[-2:])} in {self.num_cost_stages} '
                             f'halvings, but the features are {tuple(size)}')
        return matching

    def decode(self, feats: Tensor, matching: Optional[Tensor], parameters: Tensor) -> tuple:
        """The part that knows the cameras, which the key frame is one of.

        Args:
            feats: (BN, mid_channels, h, w) after ``reduce_conv``.
            matching: (BN, D, h, w) of :meth:`match`.
            parameters: (BN, 27).

        Returns:
            As :meth:`forward`.
        """
        parameters = self.bn(parameters)
        context = self.context_conv(self.context_se(feats, self.context_mlp(parameters)))
        depth = self.depth_se(feats, self.depth_mlp(parameters))
        if matching is not None:
            depth = torch.cat([depth, matching], dim=1)
        if self.with_cp and self.training:
            return checkpointing.checkpoint(self.depth_conv, depth, use_reentrant=False), context
        return self.depth_conv(depth), context


def _cost_net(channels: int, stages: int) -> nn.Sequential:
    """Stride-2 3x3 convolutions with BatchNorm and no activation."""
    layers = []
    for _ in range(stages):
        layers += [nn.Conv2d(channels, channels, 3, stride=2, padding=1),
                   SingleValueBatchNorm2d(channels)]
    return nn.Sequential(*layers)


def _residual_blocks(channels: int, extra_channels: int) -> list:
    """Three residual blocks; the first takes ``extra_channels`` more and projects its shortcut."""
    shortcut = None
    if extra_channels:
        shortcut = nn.Conv2d(channels + extra_channels, channels, 1)
    return [BasicBlock(channels + extra_channels, channels, downsample=shortcut),
            BasicBlock(channels, channels), BasicBlock(channels, channels)]
