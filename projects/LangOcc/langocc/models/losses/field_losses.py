"""Regularisers of the density volume itself (no rays).

Legend: B batch; volumes are (B, Z, Y, X).
"""
from typing import Optional

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from voxelrender import VoxelGrid

from ..renderer import RenderedRays
from ..voxel_field import VoxelField

# Keeps the logarithm of an opacity of 0 finite.
_EPS = 1e-4


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
        num_voxels: drawn anew in each step, of each batch item, and decoded where rendering does
            not decode the others; None takes all.

    Raises:
        ValueError: ``num_voxels`` is less than 1.
    """
    output = None

    def __init__(self, scale: float = 0.5, loss_weight: float = 0.01,
                 num_voxels: Optional[int] = None):
        super().__init__()
        if num_voxels is not None and num_voxels < 1:
            raise ValueError(f'DensitySparsityLoss: num_voxels is {num_voxels}, expected at least '
                             '1 or None')
        self.scale, self.loss_weight, self.num_voxels = scale, loss_weight, num_voxels
        self.needs_volume = num_voxels is None

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        if self.num_voxels is None:
            densities = field.densities
        else:
            densities = torch.cat(field.densities_at(
                [_draw(field.grid.num_voxels, self.num_voxels, field.device).unique()
                 for _ in range(len(field))]))
        return self.loss_weight * torch.log1p((densities / self.scale).square()).mean()


@MODELS.register_module()
class FlatRoadLoss(nn.Module):
    """A flat road to start from: the ego frame stands on the ground, and the ground goes on.

    Rendering can only place what rays see where there are surfaces, and surfaces come from rays
    that agree: a field that begins as thin fog takes long to decide. This loss is a geometric
    initialisation that fades. In the layer through ``height`` it draws opacities to 1, elsewhere
    densities down to ``free_density``, which is still enough for rendering to raise them. It knows
    calibration only, no label and no LiDAR.

    Args:
        height: of the road, metres in the ego frame (0 by nuScenes' convention).
        half_life: training steps in which the weight halves.
        free_density: 1/m that counts as free.
        num_voxels: drawn in the road's layer, and as many in the whole grid, of each batch item.
        loss_weight: at the first step.

    Raises:
        ValueError: in the forward pass, ``height`` is not within the grid.
    """
    output = None

    def __init__(self, height: float = 0., half_life: float = 100., free_density: float = 0.02,
                 num_voxels: int = 4096, loss_weight: float = 1.):
        super().__init__()
        self.height = height
        self.half_life = half_life
        self.free_density = free_density
        self.num_voxels = num_voxels
        self.loss_weight = loss_weight
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))  # a resumed run goes on

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        weight = self.loss_weight * 0.5**(int(self.steps) / self.half_life)
        if self.training:
            self.steps += 1
        layer = self._layer(field.grid)
        ids = [self._draw(field.grid, layer, field.device) for _ in range(len(field))]
        total = 0
        for chosen, densities in zip(ids, field.densities_at(ids)):
            road = chosen.div(_plane(field.grid), rounding_mode='floor') == layer
            opacities = -torch.expm1(-densities[road] * field.grid.voxel_size[2])
            excess = (densities[~road] - self.free_density).clamp(min=0)
            total = total - (opacities + _EPS).log().mean() + excess.mean()
        return weight * total / len(field)

    def _layer(self, grid: VoxelGrid) -> int:
        low, high = grid.point_cloud_range[2], grid.point_cloud_range[5]
        if not low <= self.height < high:
            raise ValueError(f'FlatRoadLoss: height={self.height} is outside the grid, whose z is '
                             f'{low} ... {high} m')
        return int((self.height - low) / grid.voxel_size[2])

    def _draw(self, grid: VoxelGrid, layer: int, device: torch.device) -> Tensor:
        """Distinct voxels (U,), flat over (Z, Y, X)."""
        plane = _plane(grid)
        anywhere = _draw(grid.num_voxels, self.num_voxels, device)
        road = layer * plane + _draw(plane, self.num_voxels, device)
        return torch.unique(torch.cat([anywhere, road]))


def _draw(end: int, num: int, device: torch.device) -> Tensor:
    """Numbers (num,) below ``end``, long."""
    return torch.randint(end, (num,), device=device)


def _plane(grid: VoxelGrid) -> int:
    """Voxels of a layer."""
    return grid.volume_shape[1] * grid.volume_shape[2]
