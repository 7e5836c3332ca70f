"""The pieces of ray marching behind the dispatcher: reads, importance samples, compositing.

Each is defined by the torch function it names and takes the same arguments; Triton does it in one
pass over the rays.

Legend: R rays, S proposal bins, M samples; X, Y, Z cells. Distances in metres along the ray.
"""
from typing import Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import compositing, sampling
from ..voxel_grid import VoxelGrid, full_precision
from .dispatch import resolve_backend


def sample_volume(grid: VoxelGrid, volume: Tensor, points: Tensor, backend: str = 'auto') -> Tensor:
    """Trilinear interpolation of one volume, as `VoxelGrid.sample`: zero padding, float32.

    Triton's gradient is summed by atomic additions, in any order; with
    ``torch.use_deterministic_algorithms(True)`` in torch, in a fixed one.

    Args:
        grid: The grid of the volume.
        volume: (Z, Y, X).
        points: (..., 3) in metres.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``; Triton has no gradient towards points.

    Returns:
        (...,), differentiable in the volume.

    Raises:
        ValueError: If shapes do not agree.
        RuntimeError: If the backend cannot be used.
    """
    if tuple(volume.shape) != grid.volume_shape or points.shape[-1] != 3:
        raise ValueError(f'volume {tuple(volume.shape)}, points {tuple(points.shape)}: expected '
                         f'{grid.volume_shape} and (..., 3)')
    if _backend('sample_volume', backend, (volume,), points=points) == 'torch':
        return grid.sample(volume[None, None], points[None])[0, ..., 0]
    places = full_precision(points).reshape(-1, 3)
    return _SampleVolume.apply(volume, places, grid).view(points.shape[:-1])


@torch.no_grad()
def point_corners(grid: VoxelGrid, points: Tensor, backend: str = 'auto') -> Tuple[Tensor, Tensor]:
    """The eight voxels around points (P, 3) and their coefficients: `VoxelGrid.corners`.

    Returns:
        Flat voxels (P, 8) long, and coefficients (P, 8), without gradient.

    Raises:
        RuntimeError: If the backend cannot be used.
    """
    if resolve_backend('point_corners', backend, points) == 'torch':
        return grid.corners(points)
    from . import triton_marching
    return triton_marching.point_corners(grid, full_precision(points))


@torch.no_grad()
def importance_samples(t_edges: Tensor, sigmas: Tensor, num_samples: int,
                       backend: str = 'auto') -> Tensor:
    """Distances (R, M) where proposal densities stop light: `sampling.importance_samples`.

    Args:
        t_edges: (R, S + 1), increasing.
        sigmas: (R, S) in 1/m, at least 0.
        num_samples: M, at least 1.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Raises:
        ValueError: If shapes do not agree.
        RuntimeError: If the backend cannot be used.
    """
    backend = resolve_backend('importance_samples', backend, t_edges, sigmas)
    expected = (len(sigmas), sigmas.shape[-1] + 1)
    if backend == 'torch' or num_samples < 1 or tuple(t_edges.shape) != expected:
        return sampling.importance_samples(t_edges, sigmas, num_samples)
    from . import triton_marching
    return triton_marching.importance_samples(full_precision(t_edges), full_precision(sigmas),
                                              num_samples)


def composite(sigmas: Tensor, t_starts: Tensor, t_ends: Tensor,
              backend: str = 'auto') -> Tuple[Tensor, Tensor]:
    """Weights and transmittance (R, M): `compositing.weights_from_densities`.

    Args:
        sigmas: (R, M) in 1/m; both results are differentiable in them.
        t_starts: (R, M).
        t_ends: (R, M).
        backend: ``'auto'``, ``'torch'`` or ``'triton'``; Triton has no gradient towards distances.

    Raises:
        ValueError: If shapes do not agree.
        RuntimeError: If the backend cannot be used.
    """
    if not sigmas.shape == t_starts.shape == t_ends.shape or sigmas.dim() != 2:
        raise ValueError(f'sigmas {tuple(sigmas.shape)}, t_starts {tuple(t_starts.shape)}, t_ends '
                         f'{tuple(t_ends.shape)}: expected three times (R, M)')
    backend = _backend('composite', backend, (sigmas,), t_starts=t_starts, t_ends=t_ends)
    if backend == 'torch':
        return compositing.weights_from_densities(sigmas, t_starts, t_ends)
    return _Composite.apply(*map(full_precision, (sigmas, t_starts, t_ends)))


def _backend(op: str, backend: str, inputs: Tuple[Tensor, ...], **fixed: Tensor) -> str:
    """As `resolve_backend`, for kernels without a gradient towards the ``fixed`` inputs."""
    resolved = resolve_backend(op, backend, *inputs, *fixed.values())
    moving = [name for name, tensor in fixed.items() if tensor.requires_grad]
    if resolved == 'torch' or not moving or not torch.is_grad_enabled():
        return resolved
    if backend == 'triton':
        raise RuntimeError(f"{op}: backend 'triton' has no gradient towards {' and '.join(moving)}"
                           "; use 'auto' or 'torch'")
    return 'torch'


class _SampleVolume(torch.autograd.Function):
    """Triton's reads of a volume (Z, Y, X) at points (P, 3)."""

    @staticmethod
    def forward(ctx, volume, points, grid):
        from . import triton_marching
        ctx.save_for_backward(points)
        ctx.grid, ctx.dtype = grid, volume.dtype
        return triton_marching.read_volume(grid, volume, points)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from . import triton_marching
        points, = ctx.saved_tensors
        if torch.are_deterministic_algorithms_enabled():
            voxels, shares = triton_marching.point_corners(ctx.grid, points)
            volume = grad.new_zeros(ctx.grid.num_voxels)
            volume.index_add_(0, voxels.flatten(), (grad[:, None] * shares).flatten())
            volume = volume.view(ctx.grid.volume_shape)
        else:
            volume = triton_marching.scatter_volume(ctx.grid, grad, points)
        return volume.to(ctx.dtype), None, None


class _Composite(torch.autograd.Function):
    """Triton's compositing of densities (R, M)."""

    @staticmethod
    def forward(ctx, sigmas, t_starts, t_ends):
        from . import triton_marching
        weights, trans = triton_marching.composite(sigmas, t_starts, t_ends)
        ctx.save_for_backward(sigmas, t_starts, t_ends, weights, trans)
        return weights, trans

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_weights, grad_trans):
        from . import triton_marching
        return triton_marching.composite_backward(*ctx.saved_tensors, grad_weights,
                                                  grad_trans), None, None
