"""Triton kernels of ray marching: trilinear reads, importance samples and compositing.

Import this module through the dispatcher only: it needs triton. All in float32. All are
deterministic but `scatter_volume`, whose atomic additions come in any order.

Legend: P points, R rays, S proposal bins, M samples; X, Y, Z cells.
"""
from typing import Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..voxel_grid import VoxelGrid

_BLOCK_P = 64


def point_corners(grid: VoxelGrid, points: Tensor) -> Tuple[Tensor, Tensor]:
    """As `VoxelGrid.corners`: points (P, 3) -> flat voxels (P, 8) long, coefficients (P, 8)."""
    voxels = torch.empty(len(points), 8, dtype=torch.long, device=points.device)
    shares = torch.empty(len(points), 8, dtype=torch.float32, device=points.device)
    if len(points):
        with torch.cuda.device_of(points):
            _corners_kernel[(triton.cdiv(len(points), _BLOCK_P),)](
                points.contiguous(), voxels, shares, len(points), *_grid_numbers(grid),
                EDGES=grid.alignment == 'edges', BLOCK_P=_BLOCK_P)
    return voxels, shares


def read_volume(grid: VoxelGrid, volume: Tensor, points: Tensor) -> Tensor:
    """Values (P,) of a volume (Z, Y, X) at points (P, 3), 0 outside."""
    values = torch.empty(len(points), dtype=torch.float32, device=points.device)
    if len(points):
        with torch.cuda.device_of(points):
            _read_kernel[(triton.cdiv(len(points), _BLOCK_P),)](
                volume.contiguous(), points.contiguous(), values, len(points),
                *_grid_numbers(grid), EDGES=grid.alignment == 'edges', BLOCK_P=_BLOCK_P)
    return values


def scatter_volume(grid: VoxelGrid, values: Tensor, points: Tensor) -> Tensor:
    """Transpose of `read_volume`: values (P,) at points (P, 3) -> volume (Z, Y, X).

    Additions are atomic: equal runs differ by rounding.
    """
    volume = torch.zeros(grid.volume_shape, dtype=torch.float32, device=points.device)
    if len(points):
        with torch.cuda.device_of(points):
            _scatter_kernel[(triton.cdiv(len(points), _BLOCK_P),)](
                volume, points.contiguous(), values.contiguous(), len(points),
                *_grid_numbers(grid), EDGES=grid.alignment == 'edges', BLOCK_P=_BLOCK_P)
    return volume


def importance_samples(t_edges: Tensor, sigmas: Tensor, num_samples: int) -> Tensor:
    """As `sampling.importance_samples`: (R, S + 1), (R, S) -> (R, M), metres along the ray."""
    num_rays, bins = sigmas.shape
    t_mids = torch.empty(num_rays, num_samples, dtype=torch.float32, device=sigmas.device)
    if num_rays:
        with torch.cuda.device_of(sigmas):
            _importance_kernel[(num_rays,)](
                t_edges.contiguous(), sigmas.contiguous(), t_mids, bins, num_samples,
                BLOCK_S=triton.next_power_of_2(bins + 1), BLOCK_M=32)
    return t_mids


def composite(sigmas: Tensor, t_starts: Tensor, t_ends: Tensor) -> Tuple[Tensor, Tensor]:
    """As `compositing.weights_from_densities`: (R, M) each -> weights and transmittance (R, M)."""
    weights, trans = (torch.empty(sigmas.shape, dtype=torch.float32, device=sigmas.device)
                      for _ in range(2))
    if sigmas.numel():
        with torch.cuda.device_of(sigmas):
            _composite_kernel[(len(sigmas),)](
                sigmas.contiguous(), t_starts.contiguous(), t_ends.contiguous(), weights, trans,
                sigmas.shape[1], BLOCK_M=triton.next_power_of_2(sigmas.shape[1]))
    return weights, trans


def composite_backward(sigmas: Tensor, t_starts: Tensor, t_ends: Tensor, weights: Tensor,
                       trans: Tensor, grad_weights: Tensor, grad_trans: Tensor) -> Tensor:
    """Gradient (R, M) towards the densities; all arguments (R, M)."""
    grad = torch.empty_like(weights)
    if sigmas.numel():
        with torch.cuda.device_of(sigmas):
            _composite_backward_kernel[(len(sigmas),)](
                sigmas.contiguous(), t_starts.contiguous(), t_ends.contiguous(), weights, trans,
                grad_weights.contiguous(), grad_trans.contiguous(), grad, sigmas.shape[1],
                BLOCK_M=triton.next_power_of_2(sigmas.shape[1]))
    return grad


def _grid_numbers(grid: VoxelGrid) -> Tuple[float, ...]:
    """Lower corner and extent in metres, then cells; x, y, z each."""
    extent = (high - low for low, high in zip(grid.lower, grid.upper))
    return (*grid.lower, *extent, *grid.grid_shape)


@triton.jit
def _axis(points, there, low, extent, cells, step, EDGES: tl.constexpr):
    """Along one axis: the nearest cells inside of a neighbour, and its share, 0 outside."""
    place = (tl.load(points, mask=there, other=0.) - low) / extent
    if EDGES:
        place = place * (cells - 1)
    else:
        place = place * cells - 0.5
    floor = tl.floor(place)
    fraction = place - floor
    # Two cells beyond is as far outside as any, and safe to convert to an integer.
    cell = tl.minimum(tl.maximum(floor, -2.), cells + 0.).to(tl.int32)[:, None] + step
    share = tl.where(step == 1, fraction[:, None], 1 - fraction[:, None])
    share = tl.where((cell >= 0) & (cell < cells), share, 0.)
    return tl.minimum(tl.maximum(cell, 0), cells - 1), share


@triton.jit
def _corners(points, point, count, low_x, low_y, low_z, extent_x, extent_y, extent_z, cells_x,
             cells_y, cells_z, EDGES: tl.constexpr):
    """Flat voxels (BLOCK_P, 8), x fastest, and coefficients, 0 outside the grid."""
    corner = tl.arange(0, 8)[None, :]
    there = point < count
    x, share_x = _axis(points + point * 3, there, low_x, extent_x, cells_x, corner % 2, EDGES)
    y, share_y = _axis(points + point * 3 + 1, there, low_y, extent_y, cells_y, corner // 2 % 2,
                       EDGES)
    z, share_z = _axis(points + point * 3 + 2, there, low_z, extent_z, cells_z, corner // 4,
                       EDGES)
    share = tl.where(there[:, None], share_z * share_y * share_x, 0.)
    return (z.to(tl.int64) * cells_y + y) * cells_x + x, share


@triton.jit
def _corners_kernel(points, voxels, shares, count, low_x, low_y, low_z, extent_x, extent_y,
                    extent_z, cells_x, cells_y, cells_z, EDGES: tl.constexpr,
                    BLOCK_P: tl.constexpr):
    point = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    voxel, share = _corners(points, point, count, low_x, low_y, low_z, extent_x, extent_y,
                            extent_z, cells_x, cells_y, cells_z, EDGES)
    place = point[:, None] * 8 + tl.arange(0, 8)[None, :]
    tl.store(voxels + place, voxel, mask=(point < count)[:, None])
    tl.store(shares + place, share, mask=(point < count)[:, None])


@triton.jit
def _read_kernel(volume, points, values, count, low_x, low_y, low_z, extent_x, extent_y, extent_z,
                 cells_x, cells_y, cells_z, EDGES: tl.constexpr, BLOCK_P: tl.constexpr):
    point = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    voxel, share = _corners(points, point, count, low_x, low_y, low_z, extent_x, extent_y,
                            extent_z, cells_x, cells_y, cells_z, EDGES)
    value = tl.load(volume + voxel, mask=share != 0, other=0.).to(tl.float32)
    tl.store(values + point, tl.sum(value * share, axis=1), mask=point < count)


@triton.jit
def _scatter_kernel(volume, points, values, count, low_x, low_y, low_z, extent_x, extent_y,
                    extent_z, cells_x, cells_y, cells_z, EDGES: tl.constexpr,
                    BLOCK_P: tl.constexpr):
    point = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    voxel, share = _corners(points, point, count, low_x, low_y, low_z, extent_x, extent_y,
                            extent_z, cells_x, cells_y, cells_z, EDGES)
    part = tl.load(values + point, mask=point < count, other=0.)[:, None] * share
    tl.atomic_add(volume + voxel, part, mask=part != 0, sem='relaxed')


@triton.jit
def _importance_kernel(t_edges, sigmas, t_mids, bins, samples, BLOCK_S: tl.constexpr,
                       BLOCK_M: tl.constexpr):
    """One program takes one ray; the bin of a sample is the last that starts at its CDF."""
    ray = tl.program_id(0).to(tl.int64)
    t_edges += ray * (bins + 1)
    edge = tl.arange(0, BLOCK_S)
    passed = (edge > 0) & (edge < bins)
    length = (tl.load(t_edges + edge, mask=passed, other=0.)
              - tl.load(t_edges + edge - 1, mask=passed, other=0.))
    depth = length * tl.load(sigmas + ray * bins + edge - 1, mask=passed, other=0.)
    cdf = 1 - tl.exp(-tl.cumsum(depth, axis=0))
    # What nothing stops falls into the last bin; what is behind its end is never reached.
    cdf = tl.where(edge < bins, cdf, tl.where(edge == bins, 1., 2.))
    for first in range(0, samples, BLOCK_M):
        sample = first + tl.arange(0, BLOCK_M)
        u = (sample + 0.5) / samples
        low = tl.max(tl.where(cdf[:, None] <= u[None, :], edge[:, None], 0), axis=0)
        low = tl.minimum(low, bins - 1)
        cdf_low = tl.sum(tl.where(edge[:, None] == low[None, :], cdf[:, None], 0.), axis=0)
        cdf_high = tl.sum(tl.where(edge[:, None] == low[None, :] + 1, cdf[:, None], 0.), axis=0)
        t_low, t_high = tl.load(t_edges + low), tl.load(t_edges + low + 1)
        share = (u - cdf_low) / tl.maximum(cdf_high - cdf_low, 1e-37)
        share = tl.minimum(tl.maximum(share, 0.), 1.)
        tl.store(t_mids + ray * samples + sample, t_low + share * (t_high - t_low),
                 mask=sample < samples)


@triton.jit
def _alpha(depth):
    """``1 - exp(-depth)`` to full relative precision."""
    series = depth * (1 - depth / 2 * (1 - depth / 3 * (1 - depth / 4 * (1 - depth / 5 * (
        1 - depth / 6 * (1 - depth / 7))))))
    return tl.where(depth < 0.25, series, 1 - tl.exp(-depth))


@triton.jit
def _optical_depth(sigmas, t_starts, t_ends, place, there):
    """Density times length at chosen samples, 0 at others."""
    length = tl.load(t_ends + place, mask=there, other=0.) - tl.load(t_starts + place, mask=there,
                                                                     other=0.)
    return tl.load(sigmas + place, mask=there, other=0.) * length


@triton.jit
def _composite_kernel(sigmas, t_starts, t_ends, weights, trans, samples, BLOCK_M: tl.constexpr):
    """One program takes one ray; each sample reads what is before it, so sums are exclusive."""
    sample = tl.arange(0, BLOCK_M)
    place = tl.program_id(0).to(tl.int64) * samples + sample
    there = sample < samples
    before = _optical_depth(sigmas, t_starts, t_ends, place - 1, there & (sample > 0))
    passed = tl.exp(-tl.cumsum(before, axis=0))
    alpha = _alpha(_optical_depth(sigmas, t_starts, t_ends, place, there))
    tl.store(trans + place, passed, mask=there)
    tl.store(weights + place, passed * alpha, mask=there)


@triton.jit
def _composite_backward_kernel(sigmas, t_starts, t_ends, weights, trans, grad_weights, grad_trans,
                               grad, samples, BLOCK_M: tl.constexpr):
    """One program takes one ray, last sample first, to sum what lies behind each sample."""
    step = tl.arange(0, BLOCK_M)
    place = tl.program_id(0).to(tl.int64) * samples + samples - 1 - step
    there, has_next = step < samples, (step > 0) & (step < samples)
    behind = (tl.load(grad_weights + place + 1, mask=has_next, other=0.)
              * tl.load(weights + place + 1, mask=has_next, other=0.)
              + tl.load(grad_trans + place + 1, mask=has_next, other=0.)
              * tl.load(trans + place + 1, mask=has_next, other=0.))
    behind = tl.cumsum(behind, axis=0)
    depth = _optical_depth(sigmas, t_starts, t_ends, place, there)
    here = (tl.load(grad_weights + place, mask=there, other=0.)
            * tl.load(trans + place, mask=there, other=0.) * tl.exp(-depth))
    length = tl.load(t_ends + place, mask=there, other=0.) - tl.load(t_starts + place, mask=there,
                                                                     other=0.)
    tl.store(grad + place, (here - behind) * length, mask=there)
