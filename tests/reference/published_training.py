"""Rendered language of a training step in the published layout, written plainly in torch.

What `LangOcc.loss` is compared with. Images to voxel features: see published_prediction.py. Then
all voxels are decoded, normalised, interpolated at every sample and composited, and everything is
kept for the backward pass.

Legend: B batch, R rays, S samples, C channels, E embedding.
"""
from contextlib import nullcontext
from typing import List

import torch
import torch.nn.functional as F
from published_prediction import Stage, published_volume
from torch import Tensor, nn

from voxelrender import RayBundle, accumulate, march_rays


def published_rendering(model: nn.Module, inputs: dict, rays: List[RayBundle],
                        stage: Stage = lambda name: nullcontext()) -> Tensor:
    """Language along rays, not normalised: all that the loss reads.

    Args:
        model: a LangOcc in training mode.
        inputs: ``imgs`` (B, F, N, 3, H, W), ``rig`` and ``bev_aug_matrix``.
        rays: one bundle a sample.
        stage: name -> context that a stage of the work is done in.

    Returns:
        (R, E) of all bundles in order, with its graph.
    """
    head = model.occ_head
    volume = published_volume(model, inputs, stage)
    with stage('final conv'):
        rows = head.final_conv(volume).permute(0, 2, 3, 4, 1).contiguous()
    with stage('density'):
        densities = head.density_decoder.layers(rows)[..., 0].sigmoid()
    with stage('language'):
        language = F.normalize(head.language_decoder.layers(rows), dim=-1, eps=1e-12)
    with stage('rendering'):
        return torch.cat([_render(head, densities[index], language[index], bundle)
                          for index, bundle in enumerate(rays)])


def _render(head: nn.Module, densities: Tensor, language: Tensor, rays: RayBundle) -> Tensor:
    """Densities (Z, Y, X), language (Z, Y, X, E) -> sums along rays (R, E)."""
    samples = march_rays(head.grid, densities[None], rays, head.renderer.march_config,
                         training=True)
    points = rays.points(samples.t_mids)
    sampled = head.grid.sample(language.permute(3, 0, 1, 2)[None], points[None])[0]
    return accumulate(samples.weights, sampled)
