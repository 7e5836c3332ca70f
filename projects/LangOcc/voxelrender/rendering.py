"""Rendering a voxel field along rays, decoding voxels only where rays see them.

Legend: B batch, R rays of all batch items together, S samples, C feature channels, K numbers of a
decoder that are summed along rays, E channels of its output, V voxels, U voxels that rays weigh.
"""
from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .decoding import AutocastState, RayDecoder
from .field import VoxelField
from .marching import MarchConfig, RaySamples, place_samples, weigh_samples
from .ops.sparse_product import sparse_product
from .rays import RayBundle
from .sparse import PairLayout, RayVoxelWeights, pair_layout, positions
from .voxel_grid import VoxelGrid

Decoders = Dict[str, RayDecoder]

# What this leaves out of a street of surfaces changes the paper's loss by less than 1e-3, and turns
# its gradient by less than acos(0.9999): `python tools/benchmark.py prune --preset full`.
DEFAULT_WEIGHT_THRESHOLD = 1e-4


@dataclass
class RenderedRays:
    """Rays of a batch, rendered.

    Attributes:
        rays: the rays, of all batch items one after another.
        batch_ids: (R,) batch item of each ray.
        t_starts, t_ends, t_mids, weights: (R, S), metres along the ray and weights.
        opacities: (R,), in [0, 1].
        distances: (R,), metres: mean of ``t_mids`` under the weights, 0 where a ray meets nothing.
        outputs: name -> (R, E), sum over samples of weight x decoded value, not normalised.
    """
    rays: RayBundle
    batch_ids: Tensor
    t_starts: Tensor
    t_ends: Tensor
    t_mids: Tensor
    weights: Tensor
    opacities: Tensor
    distances: Tensor
    outputs: Dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.opacities)

    @staticmethod
    def cat(parts: List[RenderedRays]) -> RenderedRays:
        """One after another."""
        if len(parts) == 1:
            return parts[0]
        tensors = [item.name for item in fields(RenderedRays)
                   if item.name not in ('rays', 'outputs')]
        return RenderedRays(
            rays=RayBundle.cat([part.rays for part in parts]),
            outputs={name: torch.cat([part.outputs[name] for part in parts])
                     for name in parts[0].outputs},
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in tensors})


@dataclass
class _Plan:
    """Where the rays of one batch item look.

    Args:
        chunks: Rays with their ``t_mids`` (R, S), so many at a time.
        layout: Of the only chunk; None where there are several, to be found again.
        voxel_ids: (U,) voxels to be decoded with gradient.
        columns: (V,) place of a voxel among them.
    """

    chunks: List[Tuple[RayBundle, Tensor]]
    layout: Optional[PairLayout]
    voxel_ids: Tensor
    columns: Tensor


class FieldRenderer:
    """Marches rays through a field and renders decoders of its voxels.

    Values are decoded only at voxels that a ray weighs: rendered value = sparse (rays x voxels)
    matrix times decoded values, which equals interpolating decoded values at every sample.
    Densities, where the field has not got them, are decoded where samples fall: without gradient
    for the proposals, and again in the backward pass for the voxels whose density has a gradient.
    Marching, weights and sums are in float32 under any autocast; decoders follow autocast.

    Args:
        march_config: distances and counts.
        weight_threshold: what weighs at most this, a sample or a voxel within a ray, is neither
            rendered nor given a gradient; opacities and distances still count it. 0 is exact,
            and at the paper's size an eighth slower than the default.
        rays_per_chunk: rays marched at a time. With more rays than that, the backward pass marches
            each chunk again instead of keeping what it needs: samples and pairs of one chunk are
            held at a time, and of all rays only what is returned.
    """

    def __init__(self, march_config: MarchConfig,
                 weight_threshold: float = DEFAULT_WEIGHT_THRESHOLD, rays_per_chunk: int = 8192):
        if rays_per_chunk < 1:
            raise ValueError(f'rays_per_chunk must be at least 1, got {rays_per_chunk}')
        if weight_threshold < 0:
            raise ValueError(f'weight_threshold must not be negative, got {weight_threshold}')
        self.march_config = march_config
        self.weight_threshold = weight_threshold
        self.rays_per_chunk = rays_per_chunk

    def __call__(self, field: VoxelField, rays: List[RayBundle], decoders: Decoders,
                 training: bool = False, generator: Optional[torch.Generator] = None
                 ) -> RenderedRays:
        """Render ``rays[b]`` through batch item b of ``field``.

        Args:
            field: the voxel field.
            rays: one bundle a batch item, key ego frame; may be empty bundles.
            decoders: name -> decoder.
            training: jittered proposals.
            generator: source of the jitter.

        Returns:
            All rays, connected to the field and the decoders even where there is none.
        """
        if len(rays) != len(field):
            raise ValueError(f'{len(rays)} ray bundles for a field of {len(field)} samples')
        autocast = AutocastState.now(field.device.type)
        with torch.autocast(autocast.device_type, enabled=False):
            wanted = bool(decoders) or (torch.is_grad_enabled() and not field.has_densities)
            plans = [self._plan(field, index, bundle, training, generator, wanted)
                     for index, bundle in enumerate(rays)]
            rows = field.rows([plan.voxel_ids for plan in plans])
            parts = []
            for index, plan in enumerate(plans):
                with autocast.restored():
                    values = {name: decoder.encode(rows[index])
                              for name, decoder in decoders.items()}
                parts += self._composite(field, index, plan, rows[index], values, decoders)
        return RenderedRays.cat(parts)

    def _plan(self, field: VoxelField, index: int, bundle: RayBundle, training: bool,
              generator: Optional[torch.Generator], wanted: bool) -> _Plan:
        """Places the samples of one batch item's rays; ``wanted``: whether voxels are decoded."""
        known = field.known_densities(index)
        with_gradient = torch.is_grad_enabled()
        chunks, layout = [], None
        seen = torch.zeros(field.grid.num_voxels, dtype=torch.bool, device=field.device)
        with torch.no_grad():
            for rays in bundle.chunks(self.rays_per_chunk):
                t_mids = place_samples(known, rays, self.march_config, training, generator)
                known.require(rays.points(t_mids))
                chunks.append((rays, t_mids))
                if wanted:
                    layout = self._layout(field.grid, rays, weigh_samples(
                        field.grid, known.volume, rays, t_mids, self.march_config), with_gradient)
                    seen[layout.voxel_ids] = True
        return _Plan(chunks, layout if len(chunks) == 1 else None, seen.nonzero()[:, 0],
                     positions(seen))

    def _layout(self, grid: VoxelGrid, rays: RayBundle, samples: RaySamples, with_gradient: bool
                ) -> PairLayout:
        """The (ray, voxel) pairs that are rendered."""
        weights = samples.weights.detach()
        # A sample of weight 0 still has a gradient.
        chosen = weights > self.weight_threshold if self.weight_threshold > 0 or not with_gradient \
            else None
        layout = pair_layout(grid, rays, samples.t_mids, chosen)
        if self.weight_threshold > 0:
            layout = layout.pruned(layout.weigh(weights).weights > self.weight_threshold)
        return layout

    def _composite(self, field: VoxelField, index: int, plan: _Plan, rows: Tensor,
                   values: Dict[str, Tuple[Tensor, Optional[Tensor]]], decoders: Decoders
                   ) -> List[RenderedRays]:
        """Renders the chunks of one batch item."""
        volume = field.connected_densities(index, plan.voxel_ids, rows)
        with_gradient = torch.is_grad_enabled()

        def render(rays: RayBundle, t_mids: Tensor, volume: Tensor) -> RenderedRays:
            samples = weigh_samples(field.grid, volume, rays, t_mids, self.march_config)
            outputs = {}
            if decoders:
                layout = plan.layout
                if layout is None:
                    layout = self._layout(field.grid, rays, samples, with_gradient)
                matrix = layout.weigh(samples.weights)
                columns = plan.columns[matrix.voxel_ids]
                outputs = {name: _accumulate(matrix, columns, *values[name], decoder,
                                             self.march_config.backend)
                           for name, decoder in decoders.items()}
            return RenderedRays(
                rays=rays, batch_ids=torch.full_like(rays.camera_ids, index),
                t_starts=samples.t_starts, t_ends=samples.t_ends, t_mids=samples.t_mids,
                weights=samples.weights, opacities=samples.opacities,
                distances=samples.distances, outputs=outputs)

        if len(plan.chunks) == 1 or not with_gradient:
            return [render(*chunk, volume) for chunk in plan.chunks]
        return [checkpoint(render, *chunk, volume, use_reentrant=False) for chunk in plan.chunks]


def _accumulate(matrix: RayVoxelWeights, columns: Tensor, values: Tensor,
                factors: Optional[Tensor], decoder: RayDecoder, backend: str) -> Tensor:
    """Outputs (R, E) of a decoder whose values (U, K) and factors (U,) the matrix weighs."""
    weights, mass = matrix.weights, None
    if factors is not None:
        # Not factors[columns]: its gradient is added up in whatever order threads come.
        weights = weights * factors.index_select(0, columns)
        mass = weights.new_zeros(matrix.num_rays).index_add(0, matrix.ray_ids, weights)
    sums = sparse_product(matrix.ray_ids, columns, weights, values, matrix.num_rays, backend)
    return decoder.project(sums, mass)
