"""Lift-splat pooling: image features spread along their rays into a voxel volume.

Lift, Splat, Shoot (Philion and Fidler, 2020), with z kept as in LangOcc.

Legend: B batch, N cameras, D depth bins, C channels, h w feature map; X, Y, Z cells.
"""
import torch
from torch import Tensor

from ..voxel_grid import VoxelGrid
from .dispatch import resolve_backend
from .sparse_product import sparse_product


def lift_splat(depth: Tensor, context: Tensor, points: Tensor, grid: VoxelGrid,
               truncate: bool = False, backend: str = 'auto') -> Tensor:
    """Sums ``depth probability * context`` over the frustum points in each voxel.

    It is a sparse (voxels x pixels) matrix of depth probabilities times the pixels' context, so
    nothing of size D * C * h * w is stored.

    Args:
        depth: (B, N, D, h, w) probabilities.
        context: (B, N, C, h, w).
        points: (B, N, D, h, w, 3) frustum points in the grid's frame, metres.
        grid: The voxel grid.
        truncate: Cells by truncation, as published (see `VoxelGrid.to_indices`).
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (B, C, Z, Y, X), differentiable in ``depth`` and ``context``.

    Raises:
        ValueError: If shapes do not agree.
    """
    backend = resolve_backend('lift_splat', backend)
    batch, cameras, bins, height, width = depth.shape
    channels = context.shape[2]
    if tuple(context.shape) != (batch, cameras, channels, height, width) or \
            tuple(points.shape) != (*depth.shape, 3):
        raise ValueError(f'depth {tuple(depth.shape)}, context {tuple(context.shape)}, points '
                         f'{tuple(points.shape)}: expected (B, N, D, h, w), (B, N, C, h, w) and '
                         '(B, N, D, h, w, 3)')
    with torch.no_grad():
        kept = grid.contains(points, truncate).flatten().nonzero()[:, 0]
        indices = grid.to_indices(points.reshape(-1, 3)[kept], truncate)
        area = height * width
        image = kept.div(bins * area, rounding_mode='floor')
        voxels = grid.flat_indices(indices)
        voxels += image.div(cameras, rounding_mode='floor') * grid.num_voxels
        pixels = image * area + kept % area
    feats = context.permute(0, 1, 3, 4, 2).reshape(-1, channels)
    volume = sparse_product(voxels, pixels, depth.flatten()[kept], feats,
                            batch * grid.num_voxels, backend)
    volume = volume.view(batch, *grid.volume_shape, channels)
    return volume.permute(0, 4, 1, 2, 3).contiguous()
