"""Lift-splat pooling: image features spread along their rays into a voxel volume.

Lift, Splat, Shoot (Philion and Fidler, 2020), with z kept as in LangOcc. Which point falls into
which voxel depends on the rig alone: a `LiftGeometry`, computed at every call or once.

Legend: B batch, N cameras, D depth bins, C channels, h w feature map; X, Y, Z cells; T points
inside the grid, U voxels they hit.
"""
import math
from dataclasses import dataclass
from functools import cached_property
from typing import List, Optional, Tuple, Union

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..voxel_grid import VoxelGrid, full_precision
from .dispatch import resolve_backend
from .segments import entry_dots, entry_segments, segment_starts, segment_sums


@dataclass(frozen=True)
class LiftGeometry:
    """Which frustum point adds to which voxel; see `from_points`.

    For a rig that stands still in the grid's frame it is worth keeping: making it is a quarter of
    a pooling on a CPU. It holds T x 2 + U x 2 integers, and T + B * N * h * w more after the first
    backward pass.

    Args:
        point_ids: (T,) long, flat over (B, N, D, h, w), grouped by voxel.
        voxel_ids: (U,) long, flat over (B, Z, Y, X), ascending.
        starts: (U + 1,) long: the points of voxel u are ``point_ids[starts[u]:starts[u + 1]]``.
        frustum_shape: (B, N, D, h, w).
        volume_shape: (Z, Y, X).
    """

    point_ids: Tensor
    voxel_ids: Tensor
    starts: Tensor
    frustum_shape: Tuple[int, int, int, int, int]
    volume_shape: Tuple[int, int, int]

    @classmethod
    @torch.no_grad()
    def from_points(cls, points: Tensor, grid: VoxelGrid, truncate: bool = False) -> 'LiftGeometry':
        """Sorts frustum points into the voxels of a grid.

        Args:
            points: (B, N, D, h, w, 3) in the grid's frame, metres.
            grid: The voxel grid.
            truncate: Cells by truncation, as published (see `VoxelGrid.to_indices`).

        Raises:
            ValueError: If the points are not of that shape.
        """
        if points.dim() != 6 or points.shape[-1] != 3:
            raise ValueError(f'points {tuple(points.shape)}: expected (B, N, D, h, w, 3)')
        frustum_shape = tuple(points.shape[:-1])
        voxels, inside = _flat_voxels(points.flatten(1, 4), grid, truncate)
        kept = inside.flatten().nonzero()[:, 0]
        voxels, order = torch.sort(voxels.flatten()[kept], stable=True)
        voxel_ids, counts = torch.unique_consecutive(voxels, return_counts=True)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(kept[order], voxel_ids.long(), starts, frustum_shape, grid.volume_shape)

    @cached_property
    def pixel_ids(self) -> Tensor:
        """The pixel of each point: (T,) long, flat over (B, N, h, w)."""
        _, _, bins, height, width = self.frustum_shape
        area = height * width
        image = self.point_ids.div(bins * area, rounding_mode='floor')
        return image * area + self.point_ids % area

    @cached_property
    def by_pixel(self) -> Tuple[Tensor, Tensor]:
        """An order (T,) that groups points by pixel; each pixel's start, (B * N * h * w + 1,)."""
        batch, cameras, _, height, width = self.frustum_shape
        pixels, order = torch.sort(self.pixel_ids, stable=True)
        return order, segment_starts(pixels, batch * cameras * height * width)

    def to(self, device: torch.device) -> 'LiftGeometry':
        """The same on another device."""
        return LiftGeometry(self.point_ids.to(device), self.voxel_ids.to(device),
                            self.starts.to(device), self.frustum_shape, self.volume_shape)

    @cached_property
    def item_starts(self) -> List[int]:
        """Where the voxels of each batch item start among ``voxel_ids``: B + 1 numbers."""
        firsts = torch.arange(self.frustum_shape[0] + 1, device=self.voxel_ids.device)
        return torch.searchsorted(self.voxel_ids, firsts * math.prod(self.volume_shape)).tolist()

    def place(self, rows: Tensor) -> Tensor:
        """A volume (B, C, Z, Y, X) with the rows (U, C) at the voxels and 0 elsewhere."""
        volume = rows.new_zeros(self.frustum_shape[0], rows.shape[1], *self.volume_shape)
        for voxels, part, item in zip(*self._per_item(rows), volume):
            item.flatten(1).t()[voxels] = part
        return volume

    def gather(self, volume: Tensor) -> Tensor:
        """The rows (U, C) of a volume (B, C, Z, Y, X) at the voxels."""
        rows = volume.new_empty(len(self.voxel_ids), volume.shape[1])
        for voxels, part, item in zip(*self._per_item(rows), volume):
            part.copy_(item.flatten(1).t()[voxels])
        return rows

    def _per_item(self, rows: Tensor) -> Tuple[List[Tensor], List[Tensor]]:
        """For each batch item its voxels, flat over (Z, Y, X), and its part of rows (U, ...)."""
        spans = [slice(*span) for span in zip(self.item_starts, self.item_starts[1:])]
        cells = math.prod(self.volume_shape)
        voxels = [self.voxel_ids[span] - item * cells for item, span in enumerate(spans)]
        return voxels, [rows[span] for span in spans]


def lift_splat(depth: Tensor, context: Tensor, geometry: Union[LiftGeometry, Tensor],
               grid: Optional[VoxelGrid] = None, truncate: bool = False,
               backend: str = 'auto') -> Tensor:
    """Sums ``depth probability * context`` over the frustum points in each voxel.

    It is a sparse (voxels x pixels) matrix of depth probabilities times the pixels' context, so
    nothing of size D * C * h * w is stored. Computed in float32 (float64 where either input is).

    Args:
        depth: (B, N, D, h, w) probabilities.
        context: (B, N, C, h, w).
        geometry: Frustum points (B, N, D, h, w, 3) in the grid's frame, metres; or the
            `LiftGeometry` made of them, which then stands for ``grid`` and ``truncate`` too.
        grid: The voxel grid, with points.
        truncate: Cells by truncation, as published (see `VoxelGrid.to_indices`).
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (B, C, Z, Y, X), differentiable in ``depth`` and ``context``.

    Raises:
        ValueError: If shapes do not agree, or points come without a grid.
        RuntimeError: If the backend cannot be used.
    """
    cached = isinstance(geometry, LiftGeometry)
    backend = resolve_backend('lift_splat', backend, depth, context)
    frustum = geometry.frustum_shape if cached else tuple(geometry.shape[:-1])
    batch, cameras, _, height, width = depth.shape
    expected = (batch, cameras, context.shape[2], height, width)
    if tuple(context.shape) != expected or frustum != tuple(depth.shape):
        raise ValueError(f'depth {tuple(depth.shape)}, context {tuple(context.shape)}, frustum '
                         f'{frustum}: expected (B, N, D, h, w), (B, N, C, h, w) and points '
                         '(B, N, D, h, w, 3) or their geometry')
    if not cached:
        if grid is None:
            raise ValueError('frustum points need a grid; only a LiftGeometry comes without')
        geometry = LiftGeometry.from_points(geometry, grid, truncate)
    dtype = torch.promote_types(full_precision(depth).dtype, full_precision(context).dtype)
    with torch.autocast(depth.device.type, enabled=False):
        return _LiftSplat.apply(depth.to(dtype), context.to(dtype), geometry, backend)


class _LiftSplat(torch.autograd.Function):
    """The pooling for a known geometry."""

    @staticmethod
    def forward(ctx, depth, context, geometry, backend):
        ctx.save_for_backward(depth, context)
        ctx.geometry, ctx.backend = geometry, backend
        sums = segment_sums(geometry.starts, geometry.pixel_ids,
                            depth.flatten()[geometry.point_ids], _pixel_rows(context), backend)
        return geometry.place(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        depth, context = ctx.saved_tensors
        geometry, backend = ctx.geometry, ctx.backend
        rows = geometry.gather(grad)
        grad_depth = grad_context = None
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_depth = torch.zeros_like(depth).flatten()
                grad_depth[geometry.point_ids] = entry_dots(
                    geometry.starts, geometry.pixel_ids, rows, _pixel_rows(context), backend)
                grad_depth = grad_depth.view_as(depth)
            if ctx.needs_input_grad[1]:
                order, starts = geometry.by_pixel
                voxels = entry_segments(geometry.starts, len(order))[order]
                values = depth.flatten()[geometry.point_ids[order]]
                sums = segment_sums(starts, voxels, values, rows, backend)
                batch, cameras, channels, height, width = context.shape
                sums = sums.view(batch, cameras, height, width, channels)
                grad_context = sums.permute(0, 1, 4, 2, 3).contiguous()
        return grad_depth, grad_context, None, None


def _pixel_rows(context: Tensor) -> Tensor:
    """(B, N, C, h, w) -> (B * N * h * w, C), contiguous."""
    return context.permute(0, 1, 3, 4, 2).reshape(-1, context.shape[2])


def _flat_voxels(points: Tensor, grid: VoxelGrid, truncate: bool) -> Tuple[Tensor, Tensor]:
    """Flat voxels over (B, Z, Y, X) of points (B, P, 3), (B, P), and which are in the grid.

    As `VoxelGrid.contains` and `VoxelGrid.flat_indices`, but axis by axis, four times as fast on
    a CPU as rows of three, and in int32 where that holds them: a sort takes a third of the time.
    """
    points = full_precision(points)
    dtype = torch.int32 if len(points) * grid.num_voxels < 2**31 else torch.int64
    low, size = points.new_tensor(grid.lower), points.new_tensor(grid.voxel_size)
    flat, inside = None, None
    for axis in (2, 1, 0):
        cells = grid.grid_shape[axis]
        place = (points[..., axis] - low[axis]) / size[axis]
        place = place.trunc_() if truncate else place.floor_()
        within = (place >= 0) & (place < cells)
        place = place.clamp_(0, cells - 1).to(dtype)
        flat = place if flat is None else flat.mul_(cells).add_(place)
        inside = within if inside is None else inside.logical_and_(within)
    items = torch.arange(len(points), dtype=dtype, device=points.device)[:, None]
    return flat.add_(items * grid.num_voxels), inside
