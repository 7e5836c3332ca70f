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
# Warped features held at a time, in numbers: what a CPU's cache holds.
_PASS_NUMBERS = 2**19
# Pixels whose warped places are computed at a time.
_GEOMETRY_PIXELS = 1024


@torch.no_grad()
def stereo_cost_volume(cur_feats: Tensor, prev_feats: Tensor, warps: Tensor, depths: Tensor,
                       image_size: Tuple[int, int], bias: float = 5.,
                       published_invalid: bool = False, backend: str = 'auto') -> Tensor:
    """Softmax over depth of the negative matching cost; no gradient.

    Cost: L1 distance, summed over channels, between the current features and the previous ones
    (bilinear, zero padding) at the place the depth hypothesis predicts; plus ``bias`` where that
    place is behind the previous camera or outside its image. The H x W features sit at
    u = linspace(0, W_img - 1, W), v = linspace(0, H_img - 1, H) (published rule). Memory: the
    warped features of a few pixels at a time.

    Features are read channels-last, four rows of C numbers a place and minus one of the current
    map, in one weighted embedding bag; ``grid_sample`` gathers each channel from a plane of its
    own. A few pixels are warped to all depths at a time, where places are neighbours and the
    differences stay in the cache.

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
    step = max(_PASS_NUMBERS // max(len(depths) * channels, 1), 1)
    costs = torch.empty(batch, height * width, len(depths), dtype=dtype, device=cur_feats.device)
    for image in range(batch):
        table = torch.cat([_padded_rows(prev_feats[image].to(dtype)),
                           cur_feats[image].to(dtype).flatten(1).t()])
        for pixels in torch.arange(height * width, device=table.device).split(_GEOMETRY_PIXELS):
            x, y, valid = _warped_places(rotated[image].view(-1, 3)[pixels], shifts[image], depths,
                                         image_size, (height, width))
            own = (pixels + len(table) - height * width)[:, None].expand_as(x)
            rows, shares = _bilinear(x, y, (height, width), own, dtype)
            if probe is not None:
                valid = F.embedding_bag(rows[..., :4].flatten(0, 1), table[:, probe:probe + 1],
                                        mode='sum', per_sample_weights=shares[..., :4].flatten(0, 1)
                                        ).view_as(valid) != 0
            parts = zip(rows.split(step), shares.split(step),
                        costs[image, pixels[0]:pixels[-1] + 1].split(step))
            for row, share, cost in parts:
                difference = F.embedding_bag(row.flatten(0, 1), table, mode='sum',
                                             per_sample_weights=share.flatten(0, 1))
                torch.sum(difference.abs_().view(*cost.shape, channels), -1, out=cost)
            costs[image, pixels[0]:pixels[-1] + 1] += bias * ~valid
    return costs.transpose(1, 2).reshape(batch, len(depths), height, width)


def _padded_rows(feats: Tensor) -> Tensor:
    """(C, H, W) -> ((H + 2) * (W + 2), C), contiguous: one row of zeros all around the map."""
    channels, height, width = feats.shape
    rows = feats.new_zeros(height + 2, width + 2, channels)
    rows[1:-1, 1:-1] = feats.permute(1, 2, 0)
    return rows.view(-1, channels)


def _bilinear(x: Tensor, y: Tensor, feature_size: Tuple[int, int], own: Tensor, dtype: torch.dtype
              ) -> Tuple[Tensor, Tensor]:
    """Rows whose sum by shares is the previous feature at a place less the current one.

    Args:
        x, y: (P, D) places in cells of the previous map, integer = cell's sample.
        feature_size: (H, W).
        own: (P, D) row of the pixel's current feature.
        dtype: of the shares.

    Returns:
        (P, D, 5) int32: four of :func:`_padded_rows` (zero padding) and ``own``; shares.
    """
    height, width = feature_size
    # From a whole cell outside on there is nothing but padding, which goes no further.
    x, y = x.clamp(-1, width), y.clamp(-1, height)
    left, top = x.floor().clamp_(max=width - 1), y.floor().clamp_(max=height - 1)
    right_share, low_share = x.sub_(left).to(dtype), y.sub_(top).to(dtype)
    first = top.add_(1).mul_(width + 2).add_(left).add_(1)
    rows = torch.empty(*x.shape, 5, dtype=torch.int32, device=x.device)
    shares = torch.empty(rows.shape, dtype=dtype, device=x.device)
    left_share, high_share = 1 - right_share, 1 - low_share
    weights = (left_share * high_share, right_share * high_share, left_share * low_share,
               right_share * low_share)
    for index, (step, weight) in enumerate(zip((0, 1, width + 2, width + 3), weights)):
        rows[..., index], shares[..., index] = first + step, weight
    rows[..., 4], shares[..., 4] = own, -1
    return rows, shares


def _feature_pixels(height: int, width: int, image_size: Tuple[int, int], like: Tensor) -> Tensor:
    """Augmented pixels (H, W, 3), u, v, 1, at which the features sit."""
    u = torch.linspace(0, image_size[1] - 1, width, dtype=like.dtype, device=like.device)
    v = torch.linspace(0, image_size[0] - 1, height, dtype=like.dtype, device=like.device)
    v, u = torch.meshgrid(v, u, indexing='ij')
    return torch.stack([u, v, torch.ones_like(u)], dim=-1)


def _warped_places(rotated: Tensor, shift: Tensor, depths: Tensor, image_size: Tuple[int, int],
                   feature_size: Tuple[int, int]) -> Tuple[Tensor, Tensor, Tensor]:
    """Where to read the previous features, and whether there is something to read.

    Args:
        rotated: (P, 3), ``warp[:3, :3] @ (u, v, 1)``.
        shift: (3,), ``warp[:3, 3]``.
        depths: (D,) metres.
        image_size: (H_img, W_img), pixels.
        feature_size: (H, W).

    Returns:
        x and y (P, D) in cells of the feature map; what is behind the camera is sent outside.
        Whether the pixel is in front and within [-0.5, size - 0.5], the extent of the previous
        image by the pixel rule, (P, D) bool.
    """
    u, v, depth = (rotated[:, axis, None] * depths + shift[axis] for axis in range(3))
    front = depth > _MIN_DEPTH
    depth = torch.where(front, depth, 1.)
    valid, places = front, []
    for pixel, size, cells in zip((u, v), image_size[::-1], feature_size[::-1]):
        pixel = pixel.div_(depth)
        valid = valid & (pixel >= -0.5) & (pixel <= size - 0.5)
        places.append(torch.where(front, pixel * ((cells - 1) / max(size - 1, 1)), _OUTSIDE))
    return *places, valid
