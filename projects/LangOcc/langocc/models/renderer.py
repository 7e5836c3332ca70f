"""Rendering a voxel field along rays: what the losses and the pictures read.

Legend: B batch, R rays of all batch items together, S samples, C channels of one output.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from voxelrender import MarchConfig, RayBundle, march_rays, ray_voxel_weights, render_features

from .voxel_field import VoxelField

Decoders = Dict[str, Callable[[Tensor], Tensor]]


@dataclass
class RenderedRays:
    """Rays of a batch, rendered.

    Attributes:
        rays: the rays, of all batch items one after another.
        batch_ids: (R,) batch item of each ray.
        t_starts, t_ends, t_mids, weights: (R, S), metres along the ray and weights.
        opacities: (R,), in [0, 1].
        distances: (R,), metres: mean of ``t_mids`` under the weights, 0 where a ray meets nothing.
        outputs: name -> (R, C), sum over samples of weight x decoded value, not normalised.
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
        tensors = ('batch_ids', 't_starts', 't_ends', 't_mids', 'weights', 'opacities', 'distances')
        return RenderedRays(
            rays=RayBundle.cat([part.rays for part in parts]),
            outputs={name: torch.cat([part.outputs[name] for part in parts])
                     for name in parts[0].outputs},
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in tensors})


@MODELS.register_module()
class VolumeRenderer:
    """Marches rays through a field and renders any decoder of its voxels.

    Values are decoded only at voxels that a ray weighs: rendered value = sparse (rays x voxels)
    matrix times decoded values, which equals interpolating decoded values at every sample.
    Runs in float32 under any autocast.

    Args:
        near, far: metres along the ray (paper: 0.05 and 40).
        num_proposal_samples: uniform samples whose densities place the others (paper: 50).
        num_samples: importance samples that are composited (paper: 100).
        weight_threshold: samples of at most this weight are not rendered; 0 is exact.
        jitter_at_test: published behaviour (parity); ours draws no random numbers at test.
        rays_per_chunk: rays rendered at a time where no gradient is needed; bounds memory.
    """

    def __init__(self, near: float = 0.05, far: float = 40., num_proposal_samples: int = 50,
                 num_samples: int = 100, weight_threshold: float = 0.,
                 jitter_at_test: bool = False, rays_per_chunk: int = 8192):
        if rays_per_chunk < 1:
            raise ValueError(f'rays_per_chunk must be at least 1, got {rays_per_chunk}')
        self.march_config = MarchConfig(
            near=near, far=far, num_proposal_samples=num_proposal_samples,
            num_samples=num_samples, jitter_at_test=jitter_at_test)
        self.weight_threshold = weight_threshold
        self.rays_per_chunk = rays_per_chunk

    def __call__(self, field: VoxelField, rays: List[RayBundle], decoders: Decoders,
                 training: bool = False) -> RenderedRays:
        """Render ``rays[b]`` through batch item b of ``field``.

        Args:
            field: the voxel field.
            rays: one bundle a batch item, key ego frame; may be empty bundles.
            decoders: name -> function from voxel features (U, C_in) to values (U, C).
            training: jittered proposals.

        Returns:
            All rays, connected to the field and the decoders even where there is none.
        """
        if len(rays) != len(field):
            raise ValueError(f'{len(rays)} ray bundles for a field of {len(field)} samples')
        parts = []
        with torch.autocast(field.densities.device.type, enabled=False):
            for index, bundle in enumerate(rays):
                parts += [self._render(field, index, chunk, decoders, training)
                          for chunk in self._chunks(bundle)]
        return RenderedRays.cat(parts)

    def _chunks(self, bundle: RayBundle) -> List[RayBundle]:
        if torch.is_grad_enabled() or len(bundle) <= self.rays_per_chunk:
            return [bundle]
        return list(bundle.chunks(self.rays_per_chunk))

    def _render(self, field: VoxelField, index: int, rays: RayBundle, decoders: Decoders,
                training: bool) -> RenderedRays:
        samples = march_rays(field.grid, field.density(index)[None], rays,
                             self.march_config, training=training)
        outputs = {}
        if decoders:
            matrix = ray_voxel_weights(field.grid, rays, samples, self.weight_threshold)
            for name, decode in decoders.items():
                outputs[name] = render_features(
                    matrix, lambda ids, decode=decode: decode(field.gather(index, ids).float()))
        return RenderedRays(
            rays=rays, batch_ids=torch.full_like(rays.camera_ids, index),
            t_starts=samples.t_starts, t_ends=samples.t_ends, t_mids=samples.t_mids,
            weights=samples.weights, opacities=samples.opacities, distances=samples.distances,
            outputs=outputs)
