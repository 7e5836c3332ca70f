"""Decoding voxels: gathers, chunks, and what need not be stored for the backward pass.

Legend: B batch, C feature channels, V voxels, U chosen voxels, H hidden and E output channels.
"""
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterable, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .voxel_grid import full_precision

# Voxels decoded at a time where hidden layers are not kept: 16 MB for 256 channels, which stay in
# a CPU's caches (a quarter faster than chunks that do not).
CHUNK_SIZE = 16384


@dataclass(frozen=True)
class AutocastState:
    """Autocast of some moment, to be entered again in a backward pass.

    Args:
        device_type: 'cpu', 'cuda' ...
        enabled: Whether autocast was on.
        dtype: Its type.
    """

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def now(cls, device_type: str) -> 'AutocastState':
        """The present state."""
        return cls(device_type, torch.is_autocast_enabled(device_type),
                   torch.get_autocast_dtype(device_type))

    @contextmanager
    def restored(self):
        """Context in which autocast is as it was."""
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled):
            yield


def gather_voxels(volume: Tensor, voxel_ids: Sequence[Tensor]) -> List[Tensor]:
    """Features (U_b, C) of chosen voxels of each batch item of a volume (B, C, Z, Y, X).

    One node for the whole batch: the backward pass writes one gradient volume, where an
    ``index_select`` for each item and use would fill and add up several. Reads channel by channel,
    so the volume is never transposed.

    Args:
        volume: (B, C, Z, Y, X).
        voxel_ids: B times (U_b,) long, flat over (Z, Y, X), distinct.
    """
    if len(voxel_ids) != len(volume):
        raise ValueError(f'{len(voxel_ids)} index tensors for a batch of {len(volume)}')
    return list(_GatherVoxels.apply(volume, *voxel_ids))


class _GatherVoxels(torch.autograd.Function):

    @staticmethod
    def forward(ctx, volume, *voxel_ids):
        ctx.save_for_backward(*voxel_ids)
        ctx.shape = volume.shape
        flat = volume.flatten(2)
        return tuple(item.index_select(1, ids).t() for item, ids in zip(flat, voxel_ids))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        grad = grads[0].new_zeros(ctx.shape)
        for item, ids, rows in zip(grad.flatten(2), ctx.saved_tensors, grads):
            item.index_copy_(1, ids, rows.t())
        return grad, *(None for _ in grads)


def in_chunks(function: Callable[[Tensor], Union[Tensor, Tuple[Tensor, ...]]], feats: Tensor,
              chunk_size: int = 0, recompute: bool = False):
    """``function`` of rows ``feats`` (U, C), so many at a time; its outputs have U rows too.

    Args:
        function: Rows -> a tensor, or a tuple of tensors and Nones.
        feats: (U, C).
        chunk_size: Rows at a time; 0 for all.
        recompute: Keep no hidden layers for the backward pass; compute them again there.
    """
    recompute = recompute and torch.is_grad_enabled()
    parts = [checkpoint(function, part, use_reentrant=False) if recompute else function(part)
             for part in feats.split(chunk_size or max(len(feats), 1))]
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(None if items[0] is None else torch.cat(items) for items in zip(*parts))


def decoded_before(decode: Callable[[Tensor], Tensor], values: Tensor, feats: Tensor,
                   parameters: Iterable[Tensor]) -> Tensor:
    """Connects values that were decoded without gradient to what they were decoded from.

    The backward pass decodes again, in chunks, and only the rows whose gradient is not zero.

    Args:
        decode: Features (U, C) -> values (U,), row by row and without randomness; called under
            the autocast of now.
        values: (U,), what ``decode(feats)`` gave.
        feats: (U, C).
        parameters: Of ``decode``.
    """
    autocast = AutocastState.now(feats.device.type)
    return _DecodedBefore.apply(decode, autocast, values, feats, *parameters)


class _DecodedBefore(torch.autograd.Function):

    @staticmethod
    def forward(ctx, decode, autocast, values, feats, *parameters):
        ctx.decode, ctx.autocast = decode, autocast
        ctx.save_for_backward(feats, *parameters)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        feats, *parameters = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        grad_feats = torch.zeros_like(feats) if wanted[0] else None
        totals = [torch.zeros_like(parameter) if want else None
                  for parameter, want in zip(parameters, wanted[1:])]
        leaves = [parameter for parameter, want in zip(parameters, wanted[1:]) if want]
        sums = [total for total in totals if total is not None]
        for rows in grad.nonzero()[:, 0].split(CHUNK_SIZE):
            with torch.enable_grad(), ctx.autocast.restored():
                chosen = feats[rows].detach().requires_grad_(wanted[0])
                values = ctx.decode(chosen)
            inputs = [chosen] * wanted[0] + leaves
            if not inputs:
                continue
            found = torch.autograd.grad(values, inputs, grad[rows].to(values.dtype))
            if wanted[0]:
                grad_feats.index_copy_(0, rows, found[0])
            for total, part in zip(sums, found[len(found) - len(sums):]):
                total += part
        return None, None, None, grad_feats, *totals


class RayDecoder:
    """What a voxel decoder is to the renderer: ``project(sum of weight * encode(voxel))``.

    This base renders a function's output itself. A decoder whose last layer is linear may leave
    that layer to `project`, where it meets rays instead of voxels.

    Args:
        function: features (U, C) -> values (U, E).
    """

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function

    def encode(self, feats: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """Features (U, C) -> values (U, K), and factors (U,) of the voxels' weights or None."""
        return self.function(feats), None

    def project(self, values: Tensor, mass: Optional[Tensor]) -> Tensor:
        """Sums over voxels of weight x factor x value, (R, K), and of weight x factor, (R,) or
        None, -> outputs (R, E)."""
        return values


class UnitFeatures(RayDecoder):
    """L2-normalised outputs of an MLP: f = (W h + b) / n with hidden activations h.

    A sum of features along a ray is W (sum of h / n) + b (sum of 1 / n), so where E > H the last
    layer meets rays instead of voxels, and the E numbers of a voxel are never computed.

    Args:
        layers: The MLP; its last layer is linear.
        chunk_size: Voxels decoded at a time; 0 for all.
        recompute: Keep no hidden layers for the backward pass; compute them again there.
    """

    def __init__(self, layers: nn.Sequential, chunk_size: int = 0, recompute: bool = False):
        super().__init__(lambda feats: F.normalize(full_precision(layers(feats)), dim=-1,
                                                   eps=1e-12))
        self.body, self.last = layers[:-1], layers[-1]
        self.chunk_size, self.recompute = chunk_size, recompute

    @property
    def widens(self) -> bool:
        """Whether E > H."""
        return self.last.out_features > self.last.in_features

    def encode(self, feats: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """Features (U, C) -> h (U, H) and 1 / n (U,); unit features (U, E) and None if E <= H."""
        function = self._hidden_and_scales if self.widens else self.function
        encoded = in_chunks(function, feats, self.chunk_size, self.recompute)
        return encoded if self.widens else (encoded, None)

    def _hidden_and_scales(self, feats: Tensor) -> Tuple[Tensor, Tensor]:
        hidden = self.body(feats)
        return hidden, unit_scales(hidden, self.last.weight, self.last.bias)

    def project(self, values: Tensor, mass: Optional[Tensor]) -> Tensor:
        """Sums (R, H) and (R,) along rays -> features (R, E), not normalised."""
        if not self.widens:
            return values
        return F.linear(values, self.last.weight) + mass[:, None] * self.last.bias


def unit_scales(hidden: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-12) -> Tensor:
    """``1 / max(|W h + b|, eps)`` (U,), without computing the E numbers of ``W h + b``.

    With W = Q R, ``|W h + b|^2 = |R h + Q^T b|^2 + |b - Q Q^T b|^2``: a sum of squares, so nothing
    cancels, of H numbers a voxel instead of E.

    Args:
        hidden: (U, H).
        weight: (E, H), E >= H.
        bias: (E,).
        eps: Least norm.
    """
    dtype = torch.promote_types(full_precision(hidden).dtype, full_precision(weight).dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        norms = _LinearNorms.apply(hidden.to(dtype), weight.to(dtype), bias.to(dtype))
        return norms.clamp_min(eps).reciprocal()


class _LinearNorms(torch.autograd.Function):
    """``|W h + b|`` of each row h; its gradient is that of the plain expression."""

    @staticmethod
    def forward(ctx, hidden, weight, bias):
        q, r = torch.linalg.qr(weight.double())
        inner = q.t() @ bias.double()
        rest = (bias.double().square().sum() - inner.square().sum()).clamp_min(0).sqrt()
        r, inner, rest = r.to(hidden), inner.to(hidden), rest.to(hidden)
        image = torch.addmm(inner, hidden, r.t())
        norms = torch.hypot(torch.linalg.vector_norm(image, dim=1), rest)
        ctx.save_for_backward(hidden, weight, bias, r, image, norms)
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        hidden, weight, bias, r, image, norms = ctx.saved_tensors
        grad = torch.where(norms > 0, grad / norms, torch.zeros_like(grad))[:, None]
        scaled = hidden * grad
        moments, total = hidden.t() @ scaled, scaled.sum(0)
        grad_weight = weight @ moments + torch.outer(bias, total)
        grad_bias = weight @ total + bias * grad.sum()
        del scaled
        return (image * grad) @ r, grad_weight, grad_bias
