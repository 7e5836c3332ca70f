"""How a feature becomes bytes: the interface of every codec, fp16 and int8.

Features are unit vectors, so a codec keeps a direction; a row of zeros (nothing is known there)
comes back as a row of zeros from every codec.

Legend: P rows, N rows that are blended into one, E embedding, R bytes a row.
"""
from abc import ABC, abstractmethod
from typing import Any, Dict, Optional

import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from torch import Tensor, nn


class Codec(nn.Module, ABC):
    """Base of codecs.

    What was fitted lies in buffers, named as the arguments of ``__init__`` that they come from, so
    that ``cls(**codec.options(), **codec.state())`` is the codec again. :meth:`to` moves it; rows
    are encoded and decoded where it is.

    Args:
        embed_dims: E.
        row_bytes: R.
        fitted: What it was fitted on and how, as JSON values; kept in files, no part of the codec's
            identity.
    """

    def __init__(self, embed_dims: int, row_bytes: int,
                 fitted: Optional[Dict[str, Any]] = None) -> None:
        super().__init__()
        if embed_dims < 1:
            raise ValueError(f'embed_dims is {embed_dims}, expected at least 1')
        self.embed_dims, self.row_bytes = int(embed_dims), int(row_bytes)
        self.fitted = dict(fitted or {})

    @abstractmethod
    def _encode(self, rows: Tensor) -> Tensor:
        """(P, E) float32 rows of unit length or zero -> (P, R) uint8."""

    @abstractmethod
    def _decode(self, rows: Tensor) -> Tensor:
        """(P, R) uint8 -> (P, E) float32 of any length."""

    @torch.no_grad()
    def encode(self, rows: Tensor) -> Tensor:
        """Bytes of features.

        Args:
            rows: (P, E) of any floating type and length; only the direction is kept.

        Returns:
            (P, R) uint8, on the device of the codec.

        Raises:
            ValueError: rows of another width, or values that are not finite.
        """
        rows = unit_rows(rows, self.embed_dims, type(self).__name__).to(self._device())
        if not len(rows):
            return rows.new_empty(0, self.row_bytes, dtype=torch.uint8)
        return self._encode(rows).contiguous()

    @torch.no_grad()
    def decode(self, rows: Tensor) -> Tensor:
        """Features of bytes.

        Args:
            rows: (P, R) uint8.

        Returns:
            (P, E) float32, unit length or zero, on the device of the codec.

        Raises:
            ValueError: rows of another width or type.
        """
        if rows.dim() != 2 or rows.shape[1] != self.row_bytes or rows.dtype != torch.uint8:
            raise ValueError(f'{type(self).__name__}: rows to decode are {rows.dtype} '
                             f'{tuple(rows.shape)}, expected uint8 (P, {self.row_bytes})')
        rows = rows.to(self._device())
        if not len(rows):
            return rows.new_empty(0, self.embed_dims, dtype=torch.float32)
        return F.normalize(self._decode(rows), dim=1)

    @torch.no_grad()
    def blend(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of features of bytes.

        Args:
            rows: (P, N, R) uint8.
            weights: (P, N) float32.

        Returns:
            (P, E) float32: the sum over N of weight x :meth:`decode`, on the device of the codec.
        """
        rows, weights = rows.to(self._device()), weights.to(self._device())
        if not len(rows):
            return weights.new_empty(0, self.embed_dims)
        return self._blend(rows, weights)

    def options(self) -> Dict[str, Any]:
        """Arguments of ``__init__`` that are no tensors, as JSON values."""
        return {}

    def state(self) -> Dict[str, Tensor]:
        """What was fitted, on the CPU; empty where nothing is."""
        return {name: value.detach().cpu().contiguous() for name, value in self.named_buffers()}

    @classmethod
    def fit(cls, rows: Tensor, **options: Any) -> 'Codec':
        """A codec for features like ``rows`` (P, E); codecs that learn nothing only take E."""
        return cls(embed_dims=rows.shape[1], **options)

    def _blend(self, rows: Tensor, weights: Tensor) -> Tensor:
        feats = self.decode(rows.flatten(0, 1)).view(*rows.shape[:2], -1)
        return torch.bmm(weights[:, None], feats)[:, 0]

    def _device(self) -> torch.device:
        return next((value.device for value in self.buffers()), torch.device('cpu'))


def unit_rows(rows: Tensor, embed_dims: int, who: str) -> Tensor:
    """``rows`` (P, E) as float32 of unit length; zeros stay zeros.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    if rows.dim() != 2 or rows.shape[1] != embed_dims:
        raise ValueError(f'{who}: rows have shape {tuple(rows.shape)}, expected (P, {embed_dims})')
    rows = rows.float()
    if not torch.isfinite(rows).all():
        bad = int((~torch.isfinite(rows)).any(dim=1).nonzero()[0])
        raise ValueError(f'{who}: row {bad} of {len(rows)} has values that are not finite')
    # By the largest value first: squares of tiny numbers would be zero.
    largest = rows.abs().amax(dim=1, keepdim=True)
    return F.normalize(torch.where(largest > 0, rows / largest, rows), dim=1)


def quantise(rows: Tensor) -> Tensor:
    """Symmetric int8 of each row by its own largest magnitude, which becomes 127.

    Args:
        rows: (P, C) float32.

    Returns:
        (P, C) int8; the largest error of a value is ``max|row| / 254``.
    """
    largest = rows.abs().amax(dim=1, keepdim=True)
    return (torch.where(largest > 0, rows / largest, rows) * 127).round().to(torch.int8)


@TASK_UTILS.register_module()
class Fp16Codec(Codec):
    """Half precision: 2 E bytes.

    Args:
        embed_dims: E.
        fitted: See :class:`Codec`.
    """

    def __init__(self, embed_dims: int, fitted: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(embed_dims, 2 * embed_dims, fitted)

    def options(self) -> Dict[str, Any]:
        """See :meth:`Codec.options`."""
        return dict(embed_dims=self.embed_dims)

    def _encode(self, rows: Tensor) -> Tensor:
        return rows.half().contiguous().view(torch.uint8)

    def _decode(self, rows: Tensor) -> Tensor:
        return rows.contiguous().view(torch.float16).float()


@TASK_UTILS.register_module()
class Int8Codec(Codec):
    """One signed byte a value, scaled by each row's own largest magnitude: E bytes.

    The scale itself is not kept: a feature has unit length, so its direction says it.

    Args:
        embed_dims: E.
        fitted: See :class:`Codec`.
    """

    def __init__(self, embed_dims: int, fitted: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(embed_dims, embed_dims, fitted)

    def options(self) -> Dict[str, Any]:
        """See :meth:`Codec.options`."""
        return dict(embed_dims=self.embed_dims)

    def _encode(self, rows: Tensor) -> Tensor:
        return quantise(rows).view(torch.uint8)

    def _decode(self, rows: Tensor) -> Tensor:
        return rows.contiguous().view(torch.int8).float()
