"""Ray marching: a density volume and rays to weighted samples along the rays.

Legend: R rays, S samples; X, Y, Z cells. Distances in metres along the ray.
"""
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from .compositing import expected_distances, opacities, weights_from_densities
from .rays import RayBundle
from .sampling import edges_from_mids, importance_samples, uniform_edges
from .voxel_grid import VoxelGrid, full_precision


@dataclass
class RaySamples:
    """Samples along rays and how much each of them is seen.

    Args:
        t_starts: (R, S) start of each sample's interval, metres.
        t_ends: (R, S) end of each sample's interval, metres.
        t_mids: (R, S) where density and features are read, metres.
        weights: (R, S) in [0, 1]; the gradient towards the densities passes here.
        opacities: (R,) sum of the weights.
        distances: (R,) weighted mean of ``t_mids``, metres; 0 for a ray that meets nothing.
    """

    t_starts: Tensor
    t_ends: Tensor
    t_mids: Tensor
    weights: Tensor
    opacities: Tensor
    distances: Tensor


@dataclass(frozen=True)
class MarchConfig:
    """How rays are sampled; the defaults are the paper's.

    Args:
        near: First distance, metres.
        far: Last distance, metres.
        num_proposal_samples: Uniform bins that propose.
        num_samples: Importance samples, the ones composited.
        jitter_at_test: Jitter the proposals at test time too (as published).
    """

    near: float = 0.05
    far: float = 40.
    num_proposal_samples: int = 50
    num_samples: int = 100
    jitter_at_test: bool = False

    def __post_init__(self):
        if not 0 <= self.near < self.far:
            raise ValueError(f'near={self.near}, far={self.far}: expected 0 <= near < far')
        if self.num_proposal_samples < 1 or self.num_samples < 1:
            raise ValueError(f'num_proposal_samples={self.num_proposal_samples}, num_samples='
                             f'{self.num_samples}: expected at least 1 of each')


def march_rays(grid: VoxelGrid, densities: Tensor, rays: RayBundle, config: MarchConfig,
               training: bool, generator: Optional[torch.Generator] = None) -> RaySamples:
    """Samples rays through a density volume and weighs the samples.

    Rays may start outside the grid, leave it or miss it: there the density is 0. All results are
    finite, and connected to ``densities`` even without a ray.

    Args:
        grid: The grid of the volume; the rays are in its frame.
        densities: (1, Z, Y, X) in 1/m, at least 0.
        rays: R rays.
        config: Distances and counts.
        training: Whether proposals are jittered.
        generator: Source of the jitter.

    Returns:
        Samples in float32 (float64 for float64 densities). The gradient reaches the densities
        through the weights only, not through the places of the samples.

    Raises:
        ValueError: If ``densities`` is not of the grid's shape.
    """
    if tuple(densities.shape) != (1, *grid.volume_shape):
        raise ValueError(f'densities have shape {tuple(densities.shape)}, expected '
                         f'{(1, *grid.volume_shape)}')
    volume = full_precision(densities)[None]
    edges = uniform_edges(len(rays), config.num_proposal_samples, config.near, config.far,
                          training or config.jitter_at_test, generator, volume.device,
                          volume.dtype)
    with torch.no_grad():
        proposals = _sample_densities(grid, volume, rays, (edges[:, 1:] + edges[:, :-1]) / 2)
        t_mids = importance_samples(edges, proposals, config.num_samples)
    t_starts, t_ends = edges_from_mids(t_mids, config.near, config.far)
    sigmas = _sample_densities(grid, volume, rays, t_mids)
    weights, _ = weights_from_densities(sigmas, t_starts, t_ends)
    return RaySamples(t_starts, t_ends, t_mids, weights, opacities(weights),
                      expected_distances(weights, t_mids))


def _sample_densities(grid: VoxelGrid, volume: Tensor, rays: RayBundle, t_mids: Tensor) -> Tensor:
    """Densities (R, S) of a volume (1, 1, Z, Y, X) at distances (R, S) along the rays."""
    return grid.sample(volume, rays.points(t_mids)[None])[0, ..., 0]
