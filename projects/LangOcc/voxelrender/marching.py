"""Ray marching: a density volume and rays to weighted samples along the rays.

Legend: R rays, S samples; X, Y, Z cells. Distances in metres along the ray.
"""
import math
from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import Tensor

from .compositing import expected_distances, opacities
from .decoding import CHUNK_SIZE
from .ops.ray_marching import composite, importance_samples, sample_volume
from .rays import RayBundle
from .sampling import edges_from_mids, uniform_edges
from .voxel_grid import VoxelGrid, full_precision

# Proposal samples between two looks at which rays still go on.
_STAGE = 5


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
        backend: Of reads, importance samples and compositing; see `voxelrender.ops`.
    """

    near: float = 0.05
    far: float = 40.
    num_proposal_samples: int = 50
    num_samples: int = 100
    jitter_at_test: bool = False
    backend: str = 'auto'

    def __post_init__(self):
        if not 0 <= self.near < self.far:
            raise ValueError(f'near={self.near}, far={self.far}: expected 0 <= near < far')
        if self.num_proposal_samples < 1 or self.num_samples < 1:
            raise ValueError(f'num_proposal_samples={self.num_proposal_samples}, num_samples='
                             f'{self.num_samples}: expected at least 1 of each')


class KnownDensities:
    """Densities of one volume, decoded without gradient where they are read, each voxel once.

    Args:
        grid: The grid.
        decode: Flat voxel ids (U,) -> densities (U,) in 1/m.
        like: A tensor whose device and type (in full precision) the densities get.

    Attributes:
        volume: (Z, Y, X), 0 where nothing has been decoded.
        complete: Whether every voxel is known.
    """

    def __init__(self, grid: VoxelGrid, decode: Optional[Callable[[Tensor], Tensor]],
                 like: Tensor):
        self.grid = grid
        self.decode = decode
        self.volume = full_precision(like.new_zeros(())).new_zeros(grid.volume_shape)
        self.complete = False
        self._known = torch.zeros(grid.num_voxels, dtype=torch.bool, device=like.device)

    @classmethod
    def complete_volume(cls, grid: VoxelGrid, volume: Tensor) -> 'KnownDensities':
        """Densities (Z, Y, X) that are known everywhere."""
        known = cls(grid, None, volume)
        known.volume, known.complete = full_precision(volume), True
        return known

    @torch.no_grad()
    def require(self, points: Tensor) -> None:
        """Decodes what sampling at points (..., 3) in metres reads and is not known yet."""
        if self.complete:
            return
        voxel_ids = (self.grid.touched(points).flatten() & ~self._known).nonzero()[:, 0]
        for part in voxel_ids.split(CHUNK_SIZE):
            self.volume.view(-1)[part] = self.decode(part).to(self.volume.dtype)
        self._known[voxel_ids] = True

    @torch.no_grad()
    def read(self, points: Tensor, backend: str = 'auto') -> Tensor:
        """Densities (...,) at points (..., 3) in metres, 0 outside the grid."""
        self.require(points)
        return sample_volume(self.grid, self.volume, points, backend)


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
    volume = full_precision(densities)
    known = KnownDensities.complete_volume(grid, volume[0].detach())
    t_mids = place_samples(known, rays, config, training, generator)
    return weigh_samples(grid, volume[0], rays, t_mids, config)


@torch.no_grad()
def place_samples(known: KnownDensities, rays: RayBundle, config: MarchConfig, training: bool,
                  generator: Optional[torch.Generator] = None) -> Tensor:
    """Distances (R, S) of the importance samples.

    Proposals are read in stages, and only along rays that still have samples to place: the last
    sample sits where 1 - 1 / (2 S) of the light has been stopped, so no density behind that place
    changes anything. What lies behind surfaces is thus never decoded; the result is exact.

    Args:
        known: Densities to be read.
        rays: R rays in the grid's frame.
        config: Distances and counts.
        training: Whether proposals are jittered.
        generator: Source of the jitter.
    """
    volume = known.volume
    edges = uniform_edges(len(rays), config.num_proposal_samples, config.near, config.far,
                          training or config.jitter_at_test, generator, volume.device,
                          volume.dtype)
    mids, lengths = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=-1)
    sigmas = torch.zeros_like(mids)
    depths = mids.new_zeros(len(rays))
    # Optical depth up to the last sample, and a little for rounding.
    enough = 1e-3 + math.log(2 * config.num_samples)
    alive = torch.arange(len(rays), device=volume.device)
    step = config.num_proposal_samples if known.complete else _STAGE
    for start in range(0, config.num_proposal_samples, step):
        stage = slice(start, start + step)
        found = known.read(rays[alive].points(mids[alive, stage]), config.backend)
        sigmas[alive, stage] = found
        depths[alive] += (found * lengths[alive, stage]).sum(-1)
        alive = alive[depths[alive] <= enough]
    return importance_samples(edges, sigmas, config.num_samples, config.backend)


def weigh_samples(grid: VoxelGrid, volume: Tensor, rays: RayBundle, t_mids: Tensor,
                  config: MarchConfig) -> RaySamples:
    """Weighs samples at distances (R, S) through densities (Z, Y, X); differentiable in them."""
    t_starts, t_ends = edges_from_mids(t_mids, config.near, config.far)
    sigmas = sample_volume(grid, volume, rays.points(t_mids), config.backend)
    weights, _ = composite(sigmas, t_starts, t_ends, config.backend)
    return RaySamples(t_starts, t_ends, t_mids, weights, opacities(weights),
                      expected_distances(weights, t_mids))
