"""Stereo cost volume by plane sweep: how well each depth explains the previous frame's features.

BEVStereo4D (Li et al., 2022; BEVDet's variant), as used by LangOcc.

Legend: B images (batch x cameras), C channels, H W feature map, D depth hypotheses.
"""
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..voxel_grid import full_precision
from .dispatch import resolve_backend

# A normalised coordinate that is outside for every image, with its whole bilinear footprint.
_OUTSIDE = -2.
# Depths nearer than this (metres) count as behind the previous camera.
_MIN_DEPTH = 1e-3


@torch.no_grad()
def stereo_cost_volume(cur_feats: Tensor, prev_feats: Tensor, warps: Tensor, depths: Tensor,
                       image_size: Tuple[int, int], bias: float = 5.,
                       published_invalid: bool = False, backend: str = 'auto') -> Tensor:
    """Softmax over depth of the negative matching cost; no gradient.

    Cost: L1 distance, summed over channels, between the current features and the previous ones
    (bilinear, zero padding) at the place the depth hypothesis predicts; plus ``bias`` where that
    place is behind the previous camera or outside its image. The H x W features sit at
    u = linspace(0, W_img - 1, W), v = linspace(0, H_img - 1, H) (published rule). Memory: one
    depth's warped features at a time.

    Args:
        cur_feats: (B, C, H, W).
        prev_feats: (B, C, H, W).
        warps: (B, 4, 4), q = warp @ (u * d, v * d, d, 1) for the current augmented pixel (u, v)
            at depth d metres; q[:2] / q[2] is the previous augmented pixel, q[2] its depth there.
        depths: (D,) metres.
        image_size: (H_img, W_img) of the augmented image, pixels.
        bias: Cost added where the warp is invalid.
        published_invalid: Take for invalid what the published code does: where the first channel
            of the last group of four is exactly 0 after warping.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (B, D, H, W), sums to 1 over D.

    Raises:
        ValueError: If shapes do not agree.
    """
    resolve_backend('stereo_cost_volume', backend)
    batch, channels, height, width = cur_feats.shape
    if prev_feats.shape != cur_feats.shape or tuple(warps.shape) != (batch, 4, 4):
        raise ValueError(f'cur_feats {tuple(cur_feats.shape)}, prev_feats '
                         f'{tuple(prev_feats.shape)}, warps {tuple(warps.shape)}: expected twice '
                         '(B, C, H, W) and (B, 4, 4)')
    dtype = torch.promote_types(full_precision(cur_feats).dtype, full_precision(prev_feats).dtype)
    cur_feats, prev_feats = cur_feats.to(dtype), prev_feats.to(dtype)
    warps = full_precision(warps)
    pixels = _feature_pixels(height, width, image_size, warps)
    rotated = torch.einsum('bij,hwj->bhwi', warps[:, :3, :3], pixels)
    probe = (channels - 1) // 4 * 4
    costs = cur_feats.new_empty(batch, len(depths), height, width)
    with torch.autocast(cur_feats.device.type, enabled=False):
        for index, depth in enumerate(depths.to(warps)):
            places, valid = _warped_places(rotated * depth + warps[:, None, None, :3, 3],
                                           image_size)
            warped = F.grid_sample(prev_feats, places.to(dtype), mode='bilinear',
                                   padding_mode='zeros', align_corners=True)
            if published_invalid:
                valid = warped[:, probe] != 0
            cost = warped.sub_(cur_feats).abs_().sum(1)
            costs[:, index] = cost.add_(bias * (~valid))
        return torch.softmax(costs.neg_(), dim=1)


def _feature_pixels(height: int, width: int, image_size: Tuple[int, int], like: Tensor) -> Tensor:
    """Augmented pixels (H, W, 3), u, v, 1, at which the features sit."""
    u = torch.linspace(0, image_size[1] - 1, width, dtype=like.dtype, device=like.device)
    v = torch.linspace(0, image_size[0] - 1, height, dtype=like.dtype, device=like.device)
    v, u = torch.meshgrid(v, u, indexing='ij')
    return torch.stack([u, v, torch.ones_like(u)], dim=-1)


def _warped_places(warped: Tensor, image_size: Tuple[int, int]) -> Tuple[Tensor, Tensor]:
    """Where to read the previous features, and whether there is something to read.

    Args:
        warped: (B, H, W, 3) q = (u * d, v * d, d) in the previous image.
        image_size: (H_img, W_img), pixels.

    Returns:
        Places (B, H, W, 2) for ``grid_sample`` with ``align_corners=True``; points behind the
        camera are sent outside. Whether the pixel is in front and within [-0.5, size - 0.5], the
        extent of the previous image by the pixel rule, (B, H, W) bool.
    """
    front = warped[..., 2:] > _MIN_DEPTH
    pixels = warped[..., :2] / torch.where(front, warped[..., 2:], warped.new_ones(()))
    size = warped.new_tensor([image_size[1], image_size[0]])
    inside = ((pixels >= -0.5) & (pixels <= size - 0.5)).all(-1)
    places = pixels / (size - 1).clamp_min(1) * 2 - 1
    return torch.where(front, places, torch.full_like(places, _OUTSIDE)), front[..., 0] & inside
