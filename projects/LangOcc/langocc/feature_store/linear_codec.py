"""Coefficients in a learned linear basis: the base of two codecs, and int8 coefficients.

Legend: P rows, N rows that are blended into one, E embedding, D coefficients, R bytes a row.
"""
from abc import abstractmethod
from typing import Any, Dict, Optional, Tuple

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from ..teachers.pca import main_directions
from ..teachers.reducer import Reducer
from .codecs import Codec, quantise, unit_rows

_SCALE_BYTES = 2
_NOTHING = -1.0  # the scale of a row of zeros, which with a mean no coefficients would give
_ORTHONORMAL = 1e-3


class BasisCodec(Codec):
    """Base of codecs that keep coefficients c = (x - mean) B; decoded: normalise(mean + c B^T).

    Args:
        basis: (E, D) with orthonormal columns, D <= E.
        mean: (E,); None is zero.
        row_bytes: R.
        fitted: See :class:`Codec`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or columns that are not
            orthonormal.
    """

    def __init__(self, basis: Tensor, mean: Optional[Tensor], row_bytes: int,
                 fitted: Optional[Dict[str, Any]] = None) -> None:
        name = type(self).__name__
        if basis.dim() != 2 or not 0 < basis.shape[1] <= basis.shape[0]:
            raise ValueError(f'{name}: basis has shape {tuple(basis.shape)}, expected (E, D) with '
                             f'D <= E')
        mean = torch.zeros(basis.shape[0]) if mean is None else mean
        if mean.shape != basis.shape[:1] or not torch.isfinite(mean).all():
            raise ValueError(f'{name}: mean has shape {tuple(mean.shape)} or values that are not '
                             f'finite, expected ({basis.shape[0]},)')
        basis, mean = (value.detach().float().clone() for value in (basis, mean))
        error = (basis.T @ basis - torch.eye(basis.shape[1])).abs().max()
        if not error < _ORTHONORMAL:
            raise ValueError(f'{name}: columns of the basis are not orthonormal: |B^T B - 1| is '
                             f'{error:.3g}')
        super().__init__(basis.shape[0], row_bytes, fitted)
        self.register_buffer('basis', basis)
        self.register_buffer('mean', mean)

    @abstractmethod
    def _coefficients(self, rows: Tensor) -> Tuple[Tensor, Tensor]:
        """(P, R) uint8 -> c (P, D), and (P, 1) float32: 0 where the row is one of zeros, else 1."""

    def _decode(self, rows: Tensor) -> Tensor:
        coefficients, known = self._coefficients(rows)
        return torch.addmm(self.mean, coefficients, self.basis.T) * known

    def _blend(self, rows: Tensor, weights: Tensor) -> Tensor:
        """As :meth:`Codec._blend`, before the basis is multiplied: N times fewer products."""
        coefficients, known = self._coefficients(rows.flatten(0, 1))
        # |mean + c B^T|^2 by c alone, as B is orthonormal
        squares = (coefficients * (coefficients + 2 * (self.mean @ self.basis))).sum(dim=1)
        lengths = (squares + self.mean.square().sum()).clamp(min=1e-12).sqrt()
        weights = weights * (known[:, 0] / lengths).view_as(weights)
        blended = torch.bmm(weights[:, None], coefficients.view(*rows.shape[:2], -1))[:, 0]
        return torch.addmm(weights.sum(dim=1, keepdim=True) * self.mean, blended, self.basis.T)


@TASK_UTILS.register_module()
class LinearCodec(BasisCodec):
    """Coefficients in int8 by the row's own largest magnitude, which is kept as fp16: D + 2 bytes.

    Args:
        basis, mean, fitted: See :class:`BasisCodec`.
    """

    def __init__(self, basis: Tensor, mean: Optional[Tensor] = None,
                 fitted: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(basis, mean, basis.shape[-1] + _SCALE_BYTES, fitted)

    @classmethod
    def fit(cls, rows: Tensor, dims: int = 64, metadata: Optional[Dict[str, Any]] = None
            ) -> 'LinearCodec':
        """The D main directions of the features about their mean.

        Args:
            rows: (P, E) features; P may be smaller than D.
            dims: D.
            metadata: What the rows are; kept with the codec.

        Raises:
            ValueError: no rows, values that are not finite, or D not in 1 ... E.
        """
        if not 1 <= dims <= rows.shape[-1]:
            raise ValueError(f'LinearCodec: dims is {dims}, expected 1 ... {rows.shape[-1]}')
        rows = rows_to_fit(rows, 'LinearCodec')
        mean, basis, variances = principal_basis(rows)
        fitted = dict(metadata or {}, method='pca', num_rows=len(rows), dims=dims,
                      kept_variance=share(variances, dims))
        return cls(basis[:, :dims], mean, fitted)

    @classmethod
    def from_reducer(cls, reducer: Reducer) -> 'LinearCodec':
        """A codec on the space that a reducer's columns span.

        What a reduced model is trained on, x U, is the same for the decoded feature, but for int8.
        """
        basis, _ = torch.linalg.qr(reducer.matrix.double())
        return cls(basis, fitted=dict(reducer.metadata, method='reducer'))

    def _encode(self, rows: Tensor) -> Tensor:
        coefficients = (rows - self.mean) @ self.basis
        scale = (coefficients.abs().amax(dim=1, keepdim=True) / 127).half()
        scale[(rows == 0).all(dim=1)] = _NOTHING
        return torch.cat([scale.view(torch.uint8), quantise(coefficients).view(torch.uint8)], dim=1)

    def _coefficients(self, rows: Tensor) -> Tuple[Tensor, Tensor]:
        scale = rows[:, :_SCALE_BYTES].contiguous().view(torch.float16).float()
        coefficients = rows[:, _SCALE_BYTES:].contiguous().view(torch.int8).float()
        return coefficients * scale, (scale != _NOTHING).float()


def rows_to_fit(rows: Tensor, who: str) -> Tensor:
    """(P, E) float32 unit rows of features, without rows of zeros.

    Raises:
        ValueError: nothing is left, or values that are not finite.
    """
    rows = unit_rows(rows, rows.shape[-1], who)
    rows = rows[(rows != 0).any(dim=1)]
    if not len(rows):
        raise ValueError(f'{who}: no rows to fit a basis on')
    return rows


def principal_basis(rows: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Mean (E,), main directions (E, E) and variances (E,) along them, largest first; float64."""
    rows = rows.double()
    mean = rows.mean(dim=0)
    centred = rows - mean
    variances, basis = main_directions(centred.T @ centred / len(rows))
    return mean, basis, variances


def share(variances: Tensor, dims: int) -> float:
    """Part of all variance that the first ``dims`` directions hold."""
    return round(float(variances[:dims].sum() / variances.sum().clamp(min=1e-12)), 6)
