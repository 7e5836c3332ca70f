"""Triton kernels of `segments`: weighted sums of feature rows over runs of entries, and dots.

Import this module through the dispatcher only: it needs triton. Features may be float16, bfloat16
or float32, sums are float32. Both kernels are deterministic: no atomics, fixed order of addition.

Legend: T entries, K segments, V rows of ``feats``, C channels.
"""
import torch
import triton
import triton.language as tl
from torch import Tensor

_MAX_CHANNELS = 128


def segment_sums(starts: Tensor, cols: Tensor, values: Tensor, feats: Tensor) -> Tensor:
    """See `segments.segment_sums`: (K, C) float32."""
    segments, channels = len(starts) - 1, feats.shape[1]
    out = torch.empty(segments, channels, dtype=torch.float32, device=feats.device)
    if out.numel():
        block = min(triton.next_power_of_2(channels), _MAX_CHANNELS)
        with torch.cuda.device_of(feats):
            _segment_sums_kernel[(segments, triton.cdiv(channels, block))](
                starts, cols.contiguous(), values.contiguous(), feats.contiguous(), out, channels,
                BLOCK_T=16, BLOCK_C=block)
    return out


def entry_dots(rows: Tensor, cols: Tensor, grad: Tensor, feats: Tensor) -> Tensor:
    """See `segments.entry_dots`: (T,) float32."""
    count, channels = len(cols), feats.shape[1]
    out = torch.empty(count, dtype=torch.float32, device=feats.device)
    if count:
        block = max(min(triton.next_power_of_2(channels), _MAX_CHANNELS), 1)
        with torch.cuda.device_of(feats):
            _entry_dots_kernel[(triton.cdiv(count, 32),)](
                rows.contiguous(), cols.contiguous(), grad.contiguous(), feats.contiguous(), out,
                count, channels, BLOCK_T=32, BLOCK_C=block)
    return out


@triton.jit
def _segment_sums_kernel(starts, cols, values, feats, out, channels, BLOCK_T: tl.constexpr,
                         BLOCK_C: tl.constexpr):
    """One program sums one segment for a block of channels, BLOCK_T entries at a time."""
    segment = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start, end = tl.load(starts + segment), tl.load(starts + segment + 1)
    total = tl.zeros((BLOCK_C,), tl.float32)
    for first in range(start, end, BLOCK_T):
        entry = first + tl.arange(0, BLOCK_T)
        col = tl.load(cols + entry, mask=entry < end, other=0)
        value = tl.load(values + entry, mask=entry < end, other=0.).to(tl.float32)
        feat = tl.load(feats + col[:, None] * channels + channel[None, :],
                       mask=(entry < end)[:, None] & (channel < channels)[None, :], other=0.)
        total += tl.sum(value[:, None] * feat.to(tl.float32), axis=0)
    tl.store(out + segment * channels + channel, total, mask=channel < channels)


@triton.jit
def _entry_dots_kernel(rows, cols, grad, feats, out, count, channels, BLOCK_T: tl.constexpr,
                       BLOCK_C: tl.constexpr):
    """One program takes BLOCK_T entries and walks over the channels."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    row = tl.load(rows + entry, mask=entry < count, other=0)
    col = tl.load(cols + entry, mask=entry < count, other=0)
    total = tl.zeros((BLOCK_T,), tl.float32)
    for first in range(0, channels, BLOCK_C):
        channel = first + tl.arange(0, BLOCK_C)
        there = (entry < count)[:, None] & (channel < channels)[None, :]
        left = tl.load(grad + row[:, None] * channels + channel[None, :], mask=there, other=0.)
        right = tl.load(feats + col[:, None] * channels + channel[None, :], mask=there, other=0.)
        total += tl.sum(left.to(tl.float32) * right.to(tl.float32), axis=1)
    tl.store(out + entry, total, mask=entry < count)
