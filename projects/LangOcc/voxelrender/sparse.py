"""Decode only what rays see: rendering as a sparse (rays x voxels) matrix times voxel features.

A rendered feature is sum_s w_s sum_v c_sv f_v with sample weights w and trilinear coefficients c,
which is one sparse row per ray. Merged per (ray, voxel), it tells which voxels need decoding and
replaces the (rays x samples x channels) tensor of the dense computation.

Legend: R rays, S samples, T (ray, voxel) pairs, U voxels that are weighed, V voxels, C channels.
"""
from dataclasses import dataclass
from typing import Callable, Tuple

import torch
from torch import Tensor

from .marching import RaySamples
from .ops.sparse_product import sparse_product
from .rays import RayBundle
from .voxel_grid import VoxelGrid


@dataclass
class RayVoxelWeights:
    """The (rays x voxels) matrix as sorted, unique pairs.

    Args:
        ray_ids: (T,) long, ascending.
        voxel_ids: (T,) long, flat over (Z, Y, X), ascending within a ray.
        weights: (T,) share of the voxel in the ray, differentiable.
        num_rays: R.
    """

    ray_ids: Tensor
    voxel_ids: Tensor
    weights: Tensor
    num_rays: int

    def __len__(self) -> int:
        return len(self.ray_ids)

    def unique_voxels(self) -> Tuple[Tensor, Tensor]:
        """Voxels that are weighed, (U,) ascending, and each pair's position among them, (T,)."""
        return torch.unique(self.voxel_ids, return_inverse=True)


def ray_voxel_weights(grid: VoxelGrid, rays: RayBundle, samples: RaySamples,
                      weight_threshold: float = 0.) -> RayVoxelWeights:
    """Turns weighted samples into weights per (ray, voxel).

    Args:
        grid: The grid, in whose frame the rays are.
        rays: R rays.
        samples: Their samples.
        weight_threshold: Samples whose weight is at most this are left out (the rendered feature
            lacks them, opacity and distance do not). 0 is exact in value and gradient: a sample
            of weight 0 is then left out only where no gradient is asked, since its density
            still has one.

    Returns:
        Merged pairs. Samples outside the grid have none.
    """
    flat_weights = samples.weights.reshape(-1)
    with torch.no_grad():
        if weight_threshold > 0 or not flat_weights.requires_grad:
            kept = (flat_weights > weight_threshold).nonzero()[:, 0]
        else:
            kept = torch.arange(len(flat_weights), device=flat_weights.device)
        points = rays.points(samples.t_mids.detach()).reshape(-1, 3)[kept]
        corners, coefficients = grid.corners(points)
        inside = coefficients.sum(-1) > 0
        if not bool(inside.all()):
            kept, corners, coefficients = kept[inside], corners[inside], coefficients[inside]
        ray_ids = kept.div(samples.weights.shape[-1], rounding_mode='floor')
        runs, firsts = _runs_of_equal_cells(ray_ids, corners)
        keys = ray_ids[firsts, None] * grid.num_voxels + corners[firsts]
        pairs, columns = torch.unique(keys, return_inverse=True)
        pair_rays = pairs.div(grid.num_voxels, rounding_mode='floor')
    shares = flat_weights[kept, None] * coefficients
    run_shares = shares.new_zeros(len(firsts), 8).index_add(0, runs, shares)
    weights = shares.new_zeros(len(pairs)).index_add(0, columns.flatten(), run_shares.flatten())
    return RayVoxelWeights(pair_rays, pairs - pair_rays * grid.num_voxels, weights, len(rays))


def render_features(pairs: RayVoxelWeights, decode: Callable[[Tensor], Tensor],
                    backend: str = 'auto') -> Tensor:
    """Rendered features (R, C); zero for rays that weigh no voxel.

    Args:
        pairs: The (rays x voxels) matrix.
        decode: Flat voxel ids (U,) -> features (U, C). Called once, with the weighed voxels
            only; U may be 0, so that the decoder's parameters stay in the graph.
        backend: See `voxelrender.ops`.

    Raises:
        ValueError: If the decoder returns something else than one row per voxel.
    """
    voxels, columns = pairs.unique_voxels()
    feats = decode(voxels)
    if feats.dim() != 2 or len(feats) != len(voxels):
        raise ValueError(f'decode returned shape {tuple(feats.shape)}, expected '
                         f'({len(voxels)}, C)')
    return sparse_product(pairs.ray_ids, columns, pairs.weights, feats, pairs.num_rays, backend)


def _runs_of_equal_cells(ray_ids: Tensor, corners: Tensor) -> Tuple[Tensor, Tensor]:
    """Groups neighbouring samples of a ray between the same eight voxels.

    A ray passes each such cell once, so this merges nearly all duplicates without sorting them.

    Args:
        ray_ids: (P,) ascending.
        corners: (P, 8) flat voxel ids; the first and the last determine the others.

    Returns:
        Number of each sample's run (P,), and each run's first sample.
    """
    starts = torch.ones_like(ray_ids, dtype=torch.bool)
    first, last = corners[:, 0], corners[:, 7]
    starts[1:] = ((ray_ids[1:] != ray_ids[:-1]) | (first[1:] != first[:-1])
                  | (last[1:] != last[:-1]))
    return starts.cumsum(0) - 1, starts.nonzero()[:, 0]
