"""Stereo cost volume by plane sweep: how well each depth explains the previous frame's features.

BEVStereo4D (Li et al., 2022; BEVDet's variant), as used by LangOcc.

Legend: B images (batch x cameras), C channels, H W feature map, D depth hypotheses.
"""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..voxel_grid import full_precision
from .dispatch import resolve_backend

# A cell coordinate that is outside for every map, with its whole bilinear footprint.
_OUTSIDE = -2.
# Depths nearer than this (metres) count as behind the previous camera.
_MIN_DEPTH = 1e-3
# Warped features held at a time, in numbers: a CPU's cache; more passes over less cost overhead.
_PASS_NUMBERS = 2**21


@torch.no_grad()
def stereo_cost_volume(cur_feats: Tensor, prev_feats: Tensor, warps: Tensor, depths: Tensor,
                       image_size: Tuple[int, int], bias: float = 5.,
                       published_invalid: bool = False, backend: str = 'auto') -> Tensor:
    """Softmax over depth of the negative matching cost; no gradient.

    Cost: L1 distance, summed over channels, between the current features and the previous ones
    (bilinear, zero padding) at the place the depth hypothesis predicts; plus ``bias`` where that
    place is behind the previous camera or outside its image. The H x W features sit at
    u = linspace(0, W_img - 1, W), v = linspace(0, H_img - 1, H) (published rule). Memory: the
    warped features of one image and a few depths at a time.

    Features are read channels-last, four rows of C numbers a pixel in one weighted embedding bag:
    3x as fast on a CPU as ``grid_sample``, which gathers each channel from a plane of its own.

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
    backend = resolve_backend('stereo_cost_volume', backend, cur_feats, prev_feats)
    batch, channels, height, width = cur_feats.shape
    if prev_feats.shape != cur_feats.shape or tuple(warps.shape) != (batch, 4, 4):
        raise ValueError(f'cur_feats {tuple(cur_feats.shape)}, prev_feats '
                         f'{tuple(prev_feats.shape)}, warps {tuple(warps.shape)}: expected twice '
                         '(B, C, H, W) and (B, 4, 4)')
    probe = (channels - 1) // 4 * 4 if published_invalid else None
    warps = full_precision(warps)
    with torch.autocast(cur_feats.device.type, enabled=False):
        # Not a matrix product: on a GPU that might be in TF32, a third of a pixel off.
        rotated = (warps[:, None, None, :3, :3]
                   * _feature_pixels(height, width, image_size, warps)[..., None, :]).sum(-1)
        matching = _torch_costs
        if backend == 'triton':
            from .triton_cost_volume import matching_costs as matching
        costs = matching(cur_feats, prev_feats, rotated, warps[:, :3, 3], depths.to(warps),
                         image_size, bias, probe)
        return torch.softmax(costs.neg_(), dim=1)


def _torch_costs(cur_feats: Tensor, prev_feats: Tensor, rotated: Tensor, shifts: Tensor,
                 depths: Tensor, image_size: Tuple[int, int], bias: float, probe: Optional[int]
                 ) -> Tensor:
    """Costs (B, D, H, W) of all images; arguments as of `triton_cost_volume.matching_costs`."""
    batch, channels, height, width = cur_feats.shape
    dtype = torch.promote_types(full_precision(cur_feats).dtype, full_precision(prev_feats).dtype)
    cur_feats, prev_feats = cur_feats.to(dtype), prev_feats.to(dtype)
    step = max(_PASS_NUMBERS // max(height * width * channels, 1), 1)
    costs = torch.empty(batch, len(depths), height * width, dtype=dtype, device=cur_feats.device)
    for image in range(batch):
        current, previous = _channels_last(cur_feats[image]), _channels_last(prev_feats[image])
        for start in range(0, len(depths), step):
            depth = depths[start:start + step, None, None, None]
            places, valid = _warped_places(rotated[image] * depth + shifts[image], image_size,
                                           (height, width))
            costs[image, start:start + step] = _matching_cost(current, previous, places, valid,
                                                              bias, probe)
    return costs.view(batch, len(depths), height, width)


def _matching_cost(current: Tensor, previous: Tensor, places: Tensor, valid: Tensor, bias: float,
                   probe: Optional[int]) -> Tensor:
    """Cost (K, H * W) of K depths of one image.

    Args:
        current, previous: (H * W, C).
        places: (K, H, W, 2) x, y in cells of the previous map.
        valid: (K, H, W) bool.
        bias: cost where the warp is invalid.
        probe: channel whose exact 0 means invalid instead of ``valid``, or None.
    """
    rows, shares = _bilinear(places)
    warped = F.embedding_bag(rows, previous, mode='sum', per_sample_weights=shares.to(previous))
    warped = warped.view(len(places), *current.shape)
    valid = valid.flatten(1) if probe is None else warped[..., probe] != 0
    return warped.sub_(current).abs_().sum(-1).add_(bias * ~valid)


def _channels_last(feats: Tensor) -> Tensor:
    """(C, H, W) -> (H * W, C), contiguous."""
    return feats.flatten(1).t().contiguous()


def _bilinear(places: Tensor) -> Tuple[Tensor, Tensor]:
    """Rows of channels-last features and their shares, zero padding.

    Args:
        places: (K, H, W, 2) x, y in cells of the H x W map, integer = cell's sample.

    Returns:
        (K * H * W, 4) long and float; the share of a neighbour outside the map is 0.
    """
    height, width = places.shape[1:3]
    # Clamping two cells outside keeps the shares 0 there and the integers small.
    x = places[..., 0].clamp(-2, width + 1)
    y = places[..., 1].clamp(-2, height + 1)
    left, top = x.floor(), y.floor()
    rows, shares = [], []
    for step_y, share_y in ((0, top + 1 - y), (1, y - top)):
        for step_x, share_x in ((0, left + 1 - x), (1, x - left)):
            column, row = left + step_x, top + step_y
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            flat = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            rows.append(flat.long())
            shares.append(share_x * share_y * inside)
    return torch.stack(rows, -1).view(-1, 4), torch.stack(shares, -1).view(-1, 4)


def _feature_pixels(height: int, width: int, image_size: Tuple[int, int], like: Tensor) -> Tensor:
    """Augmented pixels (H, W, 3), u, v, 1, at which the features sit."""
    u = torch.linspace(0, image_size[1] - 1, width, dtype=like.dtype, device=like.device)
    v = torch.linspace(0, image_size[0] - 1, height, dtype=like.dtype, device=like.device)
    v, u = torch.meshgrid(v, u, indexing='ij')
    return torch.stack([u, v, torch.ones_like(u)], dim=-1)


def _warped_places(warped: Tensor, image_size: Tuple[int, int], feature_size: Tuple[int, int]
                   ) -> Tuple[Tensor, Tensor]:
    """Where to read the previous features, and whether there is something to read.

    Args:
        warped: (K, H, W, 3) q = (u * d, v * d, d) in the previous image.
        image_size: (H_img, W_img), pixels.
        feature_size: (H, W).

    Returns:
        Places (K, H, W, 2), x, y in cells of the feature map; points behind the camera are sent
        outside. Whether the pixel is in front and within [-0.5, size - 0.5], the extent of the
        previous image by the pixel rule, (K, H, W) bool.
    """
    front = warped[..., 2:] > _MIN_DEPTH
    pixels = warped[..., :2] / torch.where(front, warped[..., 2:], warped.new_ones(()))
    size = warped.new_tensor([image_size[1], image_size[0]])
    cells = warped.new_tensor([feature_size[1], feature_size[0]])
    inside = ((pixels >= -0.5) & (pixels <= size - 0.5)).all(-1)
    places = pixels * ((cells - 1) / (size - 1).clamp_min(1))
    return torch.where(front, places, torch.full_like(places, _OUTSIDE)), front[..., 0] & inside
