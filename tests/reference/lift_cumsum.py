"""Lift-splat pooling the classic way, sort and running sum, and the inputs to time it on.

The way of Lift, Splat, Shoot (Philion and Fidler, 2020): a feature for every frustum point, points
sorted by voxel, a running sum over all of them, differences at the voxels' last points. Written
plainly in torch; what `voxelrender.lift_splat` is compared with.

Legend: B batch, N cameras, D depth bins, C channels, h w feature map; T points, U voxels hit.
"""
import math
from dataclasses import dataclass
from typing import Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from voxelrender import VoxelGrid


class _RunningSum(torch.autograd.Function):
    """Sums (U, C) of feature rows (T, C) over runs of equal ranks (T,)."""

    @staticmethod
    def forward(ctx, feats, ranks):
        last = torch.ones(len(ranks), dtype=torch.bool, device=ranks.device)
        last[:-1] = ranks[1:] != ranks[:-1]
        ctx.save_for_backward(last)
        sums = feats.cumsum(0)[last]
        return torch.cat([sums[:1], sums[1:] - sums[:-1]])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        last, = ctx.saved_tensors
        return grad[last.cumsum(0) - last.long()], None


def lift_splat_cumsum(depth: Tensor, context: Tensor, points: Tensor, grid: VoxelGrid,
                      truncate: bool = False) -> Tensor:
    """As `voxelrender.lift_splat`, with D * C numbers for each pixel and a sort at every call."""
    batch, cameras, bins, height, width = depth.shape
    channels = context.shape[2]
    feats = (depth[..., None] * context.permute(0, 1, 3, 4, 2)[:, :, None]).reshape(-1, channels)
    indices = grid.to_indices(points, truncate).view(-1, 3)
    item = torch.arange(len(feats), device=depth.device).div(
        cameras * bins * height * width, rounding_mode='floor')
    kept = grid.contains(points, truncate).view(-1)
    feats, ranks = feats[kept], (item * grid.num_voxels + grid.flat_indices(indices))[kept]
    order = ranks.argsort()
    feats, ranks = feats[order], ranks[order]
    volume = feats.new_zeros(batch, channels, grid.num_voxels)
    if len(ranks):
        sums = _RunningSum.apply(feats, ranks)
        voxels = ranks.unique_consecutive()
        item = voxels.div(grid.num_voxels, rounding_mode='floor')
        volume[item, :, voxels - item * grid.num_voxels] = sums
    return volume.view(batch, channels, *grid.volume_shape)


@dataclass
class LiftCase:
    """One frame to lift.

    Args:
        depth: (1, N, D, h, w) probabilities.
        context: (1, N, C, h, w).
        points: (1, N, D, h, w, 3) metres.
        grid: The grid they fall into.
    """

    depth: Tensor
    context: Tensor
    points: Tensor
    grid: VoxelGrid


def lift_case(bins: int = 88, feature_size: Tuple[int, int] = (16, 44), channels: int = 32,
              voxel_size: float = 0.4, moved: float = 0., seed: int = 0) -> LiftCase:
    """A frame of six cameras around a car, as in the paper's recipe, with random features.

    Args:
        bins: Depth bins of 0.5 m from 1 m.
        feature_size: (h, w) for an image of 256 x 704 pixels.
        channels: Context channels.
        voxel_size: Metres; the range is the paper's, [-40, 40]^2 x [-1, 5.4] m.
        moved: Metres that the car drove on since this frame.
        seed: Of the features.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = feature_size
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (voxel_size,) * 3)
    u, v = torch.linspace(0, 703, width), torch.linspace(0, 255, height)
    v, u = torch.meshgrid(v, u, indexing='ij')
    depths = 1 + 0.5 * torch.arange(bins)[:, None, None]
    focal = [557., 557., 557., 557., 356., 557.]
    points = []
    for camera, yaw in enumerate((55., 0., -55., 110., 180., -110.)):
        right = (u - 352) / focal[camera] * depths
        down = (v - 115) / focal[camera] * depths
        ahead = depths.expand_as(right) + 1.
        cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        points.append(torch.stack([cos * ahead + sin * right - moved, sin * ahead - cos * right,
                                   1.5 - down], dim=-1))
    logits = torch.randn(1, 6, bins, height, width, generator=generator) * 3
    context = torch.randn(1, 6, channels, height, width, generator=generator)
    return LiftCase(logits.softmax(2), context, torch.stack(points)[None], grid)
