"""Decode only what rays see: rendering as a sparse (rays x voxels) matrix times voxel features.

A rendered feature is sum_s w_s sum_v c_sv f_v with sample weights w and trilinear coefficients c,
which is one sparse row per ray. Merged per (ray, voxel), it tells which voxels need decoding and
replaces the (rays x samples x channels) tensor of the dense computation.

Legend: R rays, S samples, P samples that are rendered, N passages of a ray between eight voxels,
T (ray, voxel) pairs, U voxels that are weighed, V voxels, C channels.
"""
from dataclasses import dataclass, replace
from typing import Callable, Optional, Tuple

import torch
from torch import Tensor

from .marching import RaySamples
from .ops.sparse_product import sparse_product
from .rays import RayBundle
from .voxel_grid import VoxelGrid, corner_shares


@dataclass
class RayVoxelWeights:
    """The (rays x voxels) matrix as sorted, unique pairs.

    Args:
        ray_ids: (T,) long, ascending.
        voxel_ids: (T,) long, flat over (Z, Y, X), ascending within a ray.
        weights: (T,) share of the voxel in the ray, differentiable.
        num_rays: R.
        num_voxels: V.
    """

    ray_ids: Tensor
    voxel_ids: Tensor
    weights: Tensor
    num_rays: int
    num_voxels: int

    def __len__(self) -> int:
        return len(self.ray_ids)

    def unique_voxels(self) -> Tuple[Tensor, Tensor]:
        """Voxels that are weighed, (U,) ascending, and each pair's position among them, (T,)."""
        seen = torch.zeros(self.num_voxels, dtype=torch.bool, device=self.voxel_ids.device)
        seen[self.voxel_ids] = True
        return seen.nonzero()[:, 0], positions(seen)[self.voxel_ids]


@dataclass
class PairLayout:
    """Which (ray, voxel) pairs samples weigh, and by what share: the matrix without its weights.

    Args:
        sample_ids: (P,) long, ascending, flat over (R, S).
        shares: (P, 8) trilinear coefficients of the sample's eight voxels.
        passages: (P,) long, the passage a sample belongs to.
        pairs: (N, 8) long, the pair of each of a passage's voxels; T where there is none.
        ray_ids: (T,) long, ascending.
        voxel_ids: (T,) long, ascending within a ray, distinct there.
        num_rays: R.
        num_voxels: V.
    """

    sample_ids: Tensor
    shares: Tensor
    passages: Tensor
    pairs: Tensor
    ray_ids: Tensor
    voxel_ids: Tensor
    num_rays: int
    num_voxels: int

    def weigh(self, sample_weights: Tensor) -> RayVoxelWeights:
        """The matrix for sample weights (R, S); differentiable."""
        parts = sample_weights.reshape(-1).index_select(0, self.sample_ids)[:, None] * self.shares
        sums = parts.new_zeros(len(self.pairs), 8).index_add(0, self.passages, parts)
        weights = sums.new_zeros(len(self.ray_ids) + 1).index_add(
            0, self.pairs.flatten(), sums.flatten())[:-1]
        return RayVoxelWeights(self.ray_ids, self.voxel_ids, weights, self.num_rays,
                               self.num_voxels)

    def pruned(self, kept: Tensor) -> 'PairLayout':
        """The layout with the pairs of a mask (T,) only."""
        ray_ids = self.ray_ids[kept]
        places = positions(kept).masked_fill(~kept, len(ray_ids))
        places = torch.cat([places, places.new_full((1,), len(ray_ids))])
        return replace(self, pairs=places[self.pairs], ray_ids=ray_ids,
                       voxel_ids=self.voxel_ids[kept])


def positions(mask: Tensor) -> Tensor:
    """Place (V,) of each true entry of a mask (V,) among the true ones; others are undefined."""
    return mask.cumsum(0) - 1


@torch.no_grad()
def pair_layout(grid: VoxelGrid, rays: RayBundle, t_mids: Tensor,
                chosen: Optional[Tensor] = None) -> PairLayout:
    """Finds the (ray, voxel) pairs of samples.

    Args:
        grid: The grid, in whose frame the rays are.
        rays: R rays.
        t_mids: (R, S) metres along the rays.
        chosen: (R, S) bool, samples that count; None for all.

    Returns:
        The layout; samples outside the grid are not in it.
    """
    lows, fractions = grid.low_corners(rays.points(t_mids).reshape(-1, 3))
    inside = ((lows >= -1) & (lows < lows.new_tensor(grid.grid_shape))).all(-1)
    if chosen is not None:
        inside &= chosen.reshape(-1)
    sample_ids = inside.nonzero()[:, 0]
    lows, fractions = lows[sample_ids], fractions[sample_ids]
    ray_ids = sample_ids.div(t_mids.shape[-1], rounding_mode='floor')
    # A ray is between the same eight voxels once, so this merges most duplicates without a sort.
    starts = torch.ones_like(inside[:len(lows)])
    starts[1:] = (lows[1:] != lows[:-1]).any(-1) | (ray_ids[1:] != ray_ids[:-1])
    firsts = starts.nonzero()[:, 0]
    voxels, within = grid.corner_ids(lows[firsts])
    # Voxels outside the grid are one key behind all others, which is then cut off.
    beyond = len(rays) * grid.num_voxels
    keys = (ray_ids[firsts, None] * grid.num_voxels + voxels).masked_fill_(~within, beyond)
    keys, pairs = torch.unique(keys, return_inverse=True)
    keys = keys[:len(keys) - int(not bool(within.all()))]
    pair_rays = keys.div(grid.num_voxels, rounding_mode='floor')
    return PairLayout(sample_ids, corner_shares(fractions), positions(starts), pairs, pair_rays,
                      keys - pair_rays * grid.num_voxels, len(rays), grid.num_voxels)


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
    chosen = None
    if weight_threshold > 0 or not samples.weights.requires_grad:
        chosen = samples.weights.detach() > weight_threshold
    return pair_layout(grid, rays, samples.t_mids.detach(), chosen).weigh(samples.weights)


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
