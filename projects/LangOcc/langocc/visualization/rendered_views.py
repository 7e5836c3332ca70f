"""What cameras see of a predicted voxel field: rendered distance, opacity, class, feature, colour.

Legend: N cameras; h, w rows and columns of a camera's map; R = h * w rays; E feature dimensions;
K classes.
"""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Mapping, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelrender import RayBundle, VoxelField

from ..occ3d import FREE_CLASS
from .camera_maps import CameraMaps, RigMaps, camera_rays

if TYPE_CHECKING:
    from ..models.heads import LangOccHead

# Rays that fewer than this share of the light is stopped on meet nothing: no distance, no class.
MIN_OPACITY = 0.5
_SHOWN = ('lang', 'semantic', 'rgb')


def has_field(model: nn.Module) -> bool:
    """Whether a detector predicts a density field that can be rendered.

    That is: it has ``extract_field`` and its ``occ_head`` has ``render``. A head that classifies
    voxels has no field; its pictures are cast through the occupancy it predicts.
    """
    return hasattr(model, 'extract_field') and hasattr(getattr(model, 'occ_head', None), 'render')


@torch.no_grad()
def render_camera_views(head: LangOccHead, field: VoxelField, info: Mapping, width: int = 200,
                        index: int = 0, bev_aug_matrix: Optional[Tensor] = None,
                        min_opacity: float = MIN_OPACITY) -> RigMaps:
    """Renders batch item ``index`` of a field into every camera of its sample.

    One camera at a time, and within it the renderer's ``rays_per_chunk`` rays at a time, so that
    memory does not grow with N. Whatever outputs the head decodes are rendered.

    Args:
        head: the head that made the field.
        field: the field.
        info: the sample's info or the metainfo of its data sample.
        width: columns of a map.
        index: batch item of the field.
        bev_aug_matrix: (4, 4) ego -> augmented ego, where the field is in the augmented frame.
        min_opacity: rays of lower opacity meet nothing: no distance (nan), no class (17).

    Returns:
        Camera -> maps, on the CPU.

    Raises:
        IndexError: the field has no such batch item.
    """
    if not 0 <= index < len(field):
        raise IndexError(f'batch item {index} of a field of {len(field)}')
    outputs = tuple(name for name in _SHOWN if name in head.decoder_names)
    texts = class_features(head, field.device) if 'lang' in outputs else None
    views = {}
    for camera in info['camera_names']:
        rays, shape = camera_rays(info, camera, width)
        rays = rays if bev_aug_matrix is None else rays.transformed(bev_aug_matrix)
        bundles = [rays.to(field.device) if item == index else RayBundle.empty(field.device)
                   for item in range(len(field))]
        maps = _maps(head, head.render(field, bundles, outputs), shape, min_opacity)
        views[camera] = replace(maps, class_feats=texts)
    return views


def _maps(head: LangOccHead, rendered, shape: Tuple[int, int], min_opacity: float) -> CameraMaps:
    """Rendered rays as maps (h, w)."""
    met = rendered.opacities >= min_opacity
    classes = rendered_classes(head, rendered.outputs)
    classes = torch.where(met, classes, classes.new_tensor(FREE_CLASS))
    distances = torch.where(met, rendered.distances, rendered.distances.new_tensor(np.nan))

    def as_map(values: Optional[Tensor]) -> Optional[np.ndarray]:
        return None if values is None else values.cpu().numpy().reshape(*shape, *values.shape[1:])

    rgb = rendered.outputs.get('rgb')
    return CameraMaps(
        distances=as_map(distances.float()), opacities=as_map(rendered.opacities.float()),
        classes=as_map(classes), feats=as_map(rendered.outputs.get('lang')),
        rgb=as_map(None if rgb is None else rgb.float().clamp(0, 1)))


def class_features(head: LangOccHead, device: torch.device) -> Optional[np.ndarray]:
    """(K, E) unit text features of the vocabulary's classes on the CPU; see :class:`CameraMaps`.

    Args:
        head: on ``device``.
        device: of its weights.
    """
    if head.vocabulary is None:
        return None
    prompts = head.reduce(head.vocabulary.text_embeds.to(device)).float()
    prompts = F.normalize(prompts, dim=-1).cpu().numpy()
    classes = head.vocabulary.prompt_to_class.cpu().numpy()
    texts = np.full((len(head.vocabulary.class_names), prompts.shape[1]), np.nan, np.float32)
    for label in np.unique(classes):
        mean = prompts[classes == label].mean(0)
        texts[label] = mean / max(np.linalg.norm(mean), 1e-12)
    return texts


def rendered_classes(head: LangOccHead, outputs: Mapping[str, Tensor]) -> Tensor:
    """(R,) uint8 classes of rendered outputs, as the head names voxels.

    The vocabulary's nearest prompt of the feature, else the greatest rendered logit of 'semantic',
    else class 0 (geometry only).
    """
    if head.vocabulary is not None:
        text = head.reduce(head.vocabulary.text_embeds.to(outputs['lang'].device))
        return head.vocabulary.classify(F.normalize(outputs['lang'].float(), dim=-1),
                                        text_embeds=text)
    if 'semantic' in outputs:
        return outputs['semantic'].argmax(-1).to(torch.uint8)
    count = len(next(iter(outputs.values()))) if outputs else 0
    return torch.zeros(count, dtype=torch.uint8)
