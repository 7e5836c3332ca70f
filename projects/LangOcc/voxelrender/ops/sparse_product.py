"""Sparse matrix times dense features, with gradients to both and no (pairs x channels) tensor.

Legend: T entries of the matrix, R rows, V columns (rows of ``feats``), C channels.
"""
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..voxel_grid import full_precision
from .dispatch import resolve_backend


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
        and of ``feats`` or its gradient.

    Raises:
        ValueError: If shapes do not agree or an index is out of range.
    """
    resolve_backend('sparse_product', backend)
    count = len(rows)
    if tuple(cols.shape) != (count,) or tuple(values.shape) != (count,) or feats.dim() != 2:
        raise ValueError(f'rows {tuple(rows.shape)}, cols {tuple(cols.shape)}, values '
                         f'{tuple(values.shape)}, feats {tuple(feats.shape)}: expected three '
                         'times (T,) and (V, C)')
    if count and not bool((rows[1:] >= rows[:-1]).all()):
        rows, order = torch.sort(rows, stable=True)
        cols, values = cols[order], values[order]
    for name, index, size in (('rows', rows, num_rows), ('cols', cols, len(feats))):
        if count and (int(index.min()) < 0 or int(index.max()) >= size):
            raise ValueError(f'{name} span {int(index.min())}..{int(index.max())}, expected '
                             f'indices in [0, {size})')
    dtype = torch.promote_types(full_precision(values).dtype, full_precision(feats).dtype)
    with torch.autocast(feats.device.type, enabled=False):
        return _SparseProduct.apply(rows, cols, values.to(dtype), feats.to(dtype), num_rows)


class _SparseProduct(torch.autograd.Function):
    """The product for entries with ascending rows."""

    @staticmethod
    def forward(ctx, rows, cols, values, feats, num_rows):
        ctx.save_for_backward(rows, cols, values, feats)
        return _row_sums(rows, cols, values, feats.contiguous(), num_rows)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        rows, cols, values, feats = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = grad_feats = None
        with torch.autocast(feats.device.type, enabled=False):
            if ctx.needs_input_grad[2]:
                grad_values = _entry_dots(rows, cols, grad, feats)
            if ctx.needs_input_grad[3]:
                sorted_cols, order = torch.sort(cols, stable=True)
                grad_feats = _row_sums(sorted_cols, rows[order], values[order], grad, len(feats))
        return None, None, grad_values, grad_feats, None


def _row_sums(rows: Tensor, cols: Tensor, values: Tensor, feats: Tensor, num_rows: int) -> Tensor:
    """The product for ascending rows: an embedding bag per row, weighted by the values.

    An embedding bag is a CSR product that torch computes in place on every device, in parallel
    and without a temporary per entry (2x as fast on a CPU as ``torch.sparse``).
    """
    if len(rows) == 0:
        return feats.new_zeros(num_rows, feats.shape[1])
    offsets = torch.searchsorted(rows, torch.arange(num_rows, device=rows.device))
    return F.embedding_bag(cols, feats, offsets, mode='sum', per_sample_weights=values)


def _entry_dots(rows: Tensor, cols: Tensor, grad: Tensor, feats: Tensor) -> Tensor:
    """``grad[rows[t]] . feats[cols[t]]`` for each entry (T,), with ascending rows.

    Torch has this as the embedding bag's gradient towards its weights; taken from there it needs
    no (T, C) tensor. Checked against chunked gathers in the tests, and five times as fast.
    """
    with torch.enable_grad():
        weights = feats.new_zeros(len(rows)).requires_grad_()
        sums = _row_sums(rows, cols, weights, feats.detach().contiguous(), len(grad))
    if not sums.requires_grad:
        return weights.detach()
    return torch.autograd.grad(sums, weights, grad)[0]
