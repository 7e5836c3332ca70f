"""Words asked at points of one sample.

Legend: P points, Q words, E text embedding.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Tuple, Union

import torch
from torch import Tensor


@dataclass(frozen=True)
class PointQueries:
    """What a head with language answers in prediction, for samples that carry it.

    Attributes:
        points: (P, 3) float64 metres, (augmented) key ego frame.
        words: Q words, distinct.
        text_embeds: (Q, E) float32 unit rows in the text encoder's space.

    Raises:
        ValueError: shapes or lengths do not fit each other.
    """
    points: Tensor
    words: Tuple[str, ...]
    text_embeds: Tensor

    def __post_init__(self) -> None:
        if self.points.dim() != 2 or self.points.shape[1] != 3:
            raise ValueError(f'PointQueries: points have shape {tuple(self.points.shape)}, '
                             'expected (P, 3)')
        if len(self.words) != len(self.text_embeds) or len(set(self.words)) != len(self.words):
            raise ValueError(f'PointQueries: {len(self.text_embeds)} text embeddings for the words '
                             f'{list(self.words)}, expected one for each and no word twice')

    def to(self, device: Union[str, torch.device], non_blocking: bool = False) -> PointQueries:
        """The same on another device."""
        return replace(self, points=self.points.to(device, non_blocking=non_blocking),
                       text_embeds=self.text_embeds.to(device, non_blocking=non_blocking))
