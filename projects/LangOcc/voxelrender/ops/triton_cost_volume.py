"""Triton kernel of the stereo cost volume: warp, L1 and bias in one pass, nothing warped is stored.

Import this module through the dispatcher only: it needs triton. Deterministic.

Legend: B images, C channels, H W feature map, D depth hypotheses.
"""
from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor


def matching_costs(cur_feats: Tensor, prev_feats: Tensor, rotated: Tensor, shifts: Tensor,
                   depths: Tensor, image_size: Tuple[int, int], bias: float,
                   probe: Optional[int]) -> Tensor:
    """Costs (B, D, H, W) float32; see `cost_volume.stereo_cost_volume`.

    Args:
        cur_feats, prev_feats: (B, C, H, W), float16, bfloat16 or float32.
        rotated: (B, H, W, 3), ``warp[:3, :3] @ (u, v, 1)``; float32 or float64, the precision of
            the geometry.
        shifts: (B, 3), ``warp[:3, 3]``, of that type.
        depths: (D,) metres, of that type.
        image_size: (H_img, W_img), pixels.
        bias: Cost where the warp is invalid.
        probe: Channel whose exact 0 means invalid instead of what lies outside, or None.
    """
    batch, channels, height, width = cur_feats.shape
    costs = torch.empty(batch, len(depths), height, width, dtype=torch.float32,
                        device=cur_feats.device)
    scales = rotated.new_tensor([(cells - 1) / max(pixels - 1, 1) for cells, pixels in
                                 zip((width, height), image_size[::-1])])
    if costs.numel():
        blocks = triton.cdiv(height * width, 64), triton.cdiv(len(depths), 4), batch
        with torch.cuda.device_of(cur_feats):
            _matching_costs_kernel[blocks](
                cur_feats.contiguous(), prev_feats.contiguous(), rotated.contiguous(),
                shifts.contiguous(), depths.contiguous(), scales, costs, channels, len(depths),
                height, width, image_size[0], image_size[1], float(bias),
                PROBE=-1 if probe is None else probe, BLOCK_D=4, BLOCK_P=64)
    return costs


@triton.jit
def _matching_costs_kernel(current, previous, rotated, shifts, depths, scales, costs, channels,
                           num_depths, height, width, image_height, image_width, bias,
                           PROBE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr):
    """One program takes BLOCK_P neighbouring pixels of an image at BLOCK_D depths.

    Pixels are neighbours in memory, and so, mostly, are the places they are warped to.
    """
    area = height * width
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    index = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    image = tl.program_id(2).to(tl.int64)
    depth = tl.load(depths + index, mask=index < num_depths, other=1.)[:, None]
    ray = rotated + (image * area + pixel) * 3
    there = pixel < area
    q_x = tl.load(ray, mask=there, other=0.)[None, :] * depth + tl.load(shifts + image * 3)
    q_y = tl.load(ray + 1, mask=there, other=0.)[None, :] * depth + tl.load(shifts + image * 3 + 1)
    q_z = tl.load(ray + 2, mask=there, other=0.)[None, :] * depth + tl.load(shifts + image * 3 + 2)
    front = q_z > 1e-3
    q_z = tl.where(front, q_z, 1.)
    u, v = q_x / q_z, q_y / q_z
    valid = front & (u >= -0.5) & (u <= image_width - 0.5) & (v >= -0.5) & (v <= image_height - 0.5)
    # Two cells outside all four neighbours are outside, and the integers small.
    x = tl.where(front, u * tl.load(scales), -2.)
    y = tl.where(front, v * tl.load(scales + 1), -2.)
    x = tl.minimum(tl.maximum(x, -2.), width + 1.)
    y = tl.minimum(tl.maximum(y, -2.), height + 1.)
    left, top = tl.floor(x), tl.floor(y)
    right_share, low_share = (x - left).to(tl.float32), (y - top).to(tl.float32)
    column, row = left.to(tl.int32), top.to(tl.int32)
    in_left = there[None, :] & (column >= 0) & (column < width)
    in_right = there[None, :] & (column >= -1) & (column < width - 1)
    in_top, in_low = (row >= 0) & (row < height), (row >= -1) & (row < height - 1)
    place = row * width + column
    cost = tl.zeros((BLOCK_D, BLOCK_P), tl.float32)
    for channel in range(0, channels):
        plane = (image * channels + channel) * area
        warped = _bilinear(previous + plane, place, width, in_left, in_right, in_top, in_low,
                           right_share, low_share)
        cost += tl.abs(warped - tl.load(current + plane + pixel, mask=there, other=0.).to(
            tl.float32)[None, :])
    if PROBE >= 0:
        plane = (image * channels + PROBE) * area
        valid = _bilinear(previous + plane, place, width, in_left, in_right, in_top, in_low,
                          right_share, low_share) != 0
    cost += tl.where(valid, 0., bias)
    out = costs + (image * num_depths + index)[:, None] * area + pixel[None, :]
    tl.store(out, cost, mask=there[None, :] & (index < num_depths)[:, None])


@triton.jit
def _bilinear(plane, place, width, in_left, in_right, in_top, in_low, right_share, low_share):
    """One channel between four neighbours, 0 outside."""
    upper = (tl.load(plane + place, mask=in_left & in_top, other=0.).to(tl.float32)
             * (1 - right_share)
             + tl.load(plane + place + 1, mask=in_right & in_top, other=0.).to(tl.float32)
             * right_share)
    lower = (tl.load(plane + place + width, mask=in_left & in_low, other=0.).to(tl.float32)
             * (1 - right_share)
             + tl.load(plane + place + width + 1, mask=in_right & in_low, other=0.).to(tl.float32)
             * right_share)
    return upper * (1 - low_share) + lower * low_share
