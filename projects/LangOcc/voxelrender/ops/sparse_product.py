"""Sparse matrix times dense features, with gradients to both and no (pairs x channels) tensor.

Legend: T entries of the matrix, R rows, V columns (rows of ``feats``), C channels.
"""
from typing import Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..voxel_grid import full_precision
from .dispatch import resolve_backend
from .segments import entry_dots, segment_starts, segment_sums


def sparse_product(rows: Tensor, cols: Tensor, values: Tensor, feats: Tensor, num_rows: int,
                   backend: str = 'auto') -> Tensor:
    """``out[r] = sum over entries t with rows[t] = r of values[t] * feats[cols[t]]``.

    Entries may come in any order (ascending rows are fastest) and may repeat. Computed in float32
    (float64 where either input is), also under autocast.

    Args:
        rows: (T,) long in [0, num_rows).
        cols: (T,) long in [0, V).
        values: (T,).
        feats: (V, C).
        num_rows: R.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (R, C). Beside its inputs, forward and backward hold no more than a copy of the entries
        and of ``feats`` or its gradient. Triton reads half-precision features as they are.

    Raises:
        ValueError: If shapes do not agree or an index is out of range.
        RuntimeError: If the backend cannot be used.
    """
    backend = resolve_backend('sparse_product', backend, rows, cols, values, feats)
    count = len(rows)
    if tuple(cols.shape) != (count,) or tuple(values.shape) != (count,) or feats.dim() != 2:
        raise ValueError(f'rows {tuple(rows.shape)}, cols {tuple(cols.shape)}, values '
                         f'{tuple(values.shape)}, feats {tuple(feats.shape)}: expected three '
                         'times (T,) and (V, C)')
    if count:
        rows, cols, values = _ascending(rows, cols, values, num_rows, len(feats))
    dtype = torch.promote_types(full_precision(values).dtype, full_precision(feats).dtype)
    if backend == 'torch':
        feats = feats.to(dtype)
    with torch.autocast(feats.device.type, enabled=False):
        return _SparseProduct.apply(rows, cols, values.to(dtype), feats, num_rows, backend)


def _ascending(rows: Tensor, cols: Tensor, values: Tensor, num_rows: int, num_cols: int
               ) -> Tuple[Tensor, Tensor, Tensor]:
    """Entries sorted by row, after a check of their indices; waits for the device once."""
    facts = [rows.amin(), rows.amax(), cols.amin(), cols.amax(),
             (rows[1:] >= rows[:-1]).all().to(rows.dtype)]
    *spans, ascending = torch.stack(facts).tolist()
    for name, low, high, size in (('rows', *spans[:2], num_rows), ('cols', *spans[2:], num_cols)):
        if low < 0 or high >= size:
            raise ValueError(f'{name} span {low}..{high}, expected indices in [0, {size})')
    if ascending:
        return rows, cols, values
    rows, order = torch.sort(rows, stable=True)
    return rows, cols[order], values[order]


class _SparseProduct(torch.autograd.Function):
    """The product for entries with ascending rows."""

    @staticmethod
    def forward(ctx, rows, cols, values, feats, num_rows, backend):
        ctx.save_for_backward(rows, cols, values, feats)
        ctx.backend = backend
        return segment_sums(segment_starts(rows, num_rows), cols, values, feats.contiguous(),
                            backend)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        rows, cols, values, feats = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = grad_feats = None
        with torch.autocast(feats.device.type, enabled=False):
            if ctx.needs_input_grad[2]:
                grad_values = entry_dots(segment_starts(rows, len(grad)), cols, grad,
                                         feats.contiguous(), ctx.backend)
            if ctx.needs_input_grad[3]:
                # By columns the same sum again: deterministic, where atomic additions are not.
                sorted_cols, order = torch.sort(cols, stable=True)
                grad_feats = segment_sums(segment_starts(sorted_cols, len(feats)), rows[order],
                                          values[order], grad, ctx.backend).to(feats.dtype)
        return None, None, grad_values, grad_feats, None, None
