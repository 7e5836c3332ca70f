"""Regularisers of the density volume itself (no rays).

Legend: B batch; volumes are (B, Z, Y, X).
"""
import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ..renderer import RenderedRays
from ..voxel_field import VoxelField


@MODELS.register_module()
class TotalVariationLoss(nn.Module):
    """Mean absolute difference of neighbouring densities, summed over the three axes."""
    output = None
    needs_volume = True  # of densities, decoded in every voxel

    def __init__(self, loss_weight: float = 0.01):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        densities = field.densities
        axes = [axis for axis in (1, 2, 3) if densities.shape[axis] > 1]
        steps = [densities.diff(dim=axis).abs().mean() for axis in axes]
        return self.loss_weight * (sum(steps) if steps else densities.sum() * 0)


@MODELS.register_module()
class DensitySparsityLoss(nn.Module):
    """Mean of ``log(1 + density^2 / scale^2)`` (Cauchy prior of SNeRG): most space is free.

    Args:
        scale: density in 1/m from which the pull towards zero weakens.
    """
    output = None
    needs_volume = True  # of densities, decoded in every voxel

    def __init__(self, scale: float = 0.5, loss_weight: float = 0.01):
        super().__init__()
        self.scale, self.loss_weight = scale, loss_weight

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        return self.loss_weight * torch.log1p((field.densities / self.scale).square()).mean()
