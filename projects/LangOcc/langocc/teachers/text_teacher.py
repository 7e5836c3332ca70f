"""Teachers whose features lie in a text encoder's space: the nearest prompt is the class.

Legend: P pixels, E embedding, C classes.
"""
from typing import Any, Dict, Optional, Sequence, Union

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from .base import Teacher
from .text import TextEncoder


class TextTeacher(Teacher):
    """Base of teachers that have features and take their classes, where wanted, from text.

    Args:
        embed_dims: E.
        text_encoder: A :class:`TextEncoder` or its config; with ``class_names`` it gives classes.
        class_names: The C classes among which ``classes`` takes the nearest to the feature.
        dynamic_classes, sky_classes, ground_classes: See :class:`Teacher`.
        prompts: The text of each class; None takes the class names.

    Attributes:
        text_embeds: (C, E) float32 unit rows, or None.

    Raises:
        ValueError: one of ``text_encoder`` and ``class_names`` without the other, text of another
            width than the features, or other numbers of prompts than of classes.
    """

    def __init__(self,
                 embed_dims: int,
                 text_encoder: Union[TextEncoder, dict, None] = None,
                 class_names: Optional[Sequence[str]] = None,
                 dynamic_classes: Sequence[str] = (),
                 sky_classes: Sequence[str] = (),
                 prompts: Optional[Sequence[str]] = None,
                 ground_classes: Optional[Sequence[str]] = None) -> None:
        super().__init__(class_names, dynamic_classes, sky_classes, ground_classes)
        self._embed_dims = int(embed_dims)
        self.text_embeds: Optional[Tensor] = None
        if (text_encoder is None) != (class_names is None):
            raise ValueError(f'{type(self).__name__}: text_encoder and class_names only go '
                             f'together')
        if text_encoder is not None:
            if isinstance(text_encoder, dict):
                text_encoder = TASK_UTILS.build(text_encoder)
            if text_encoder.embed_dims != self._embed_dims:
                raise ValueError(f'text embeddings have {text_encoder.embed_dims} values, the '
                                 f'feature maps {self._embed_dims}')
            words = self.class_names if prompts is None else tuple(prompts)
            if len(words) != len(self.class_names):
                raise ValueError(f'{len(words)} prompts for {len(self.class_names)} classes')
            self.text_embeds = text_encoder.encode(words)

    @property
    def embed_dims(self) -> int:
        """E of the maps."""
        return self._embed_dims

    def classes(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Optional[Tensor]:
        """Nearest prompt at pixels, (P,) long; -1 where the feature is zero; None without text."""
        if self.text_embeds is None:
            return None
        return self.nearest_prompt(self.features(info, camera, pixels))

    def nearest_prompt(self, feats: Tensor, kept: Optional[Tensor] = None) -> Tensor:
        """Index of the prompt with the largest cosine.

        Args:
            feats: (P, E) features, on any device.
            kept: (P, C) or (C,) bool, prompts that are candidates; None takes all.

        Returns:
            (P,) long; -1 where the feature is zero or no prompt is a candidate.
        """
        cosines = feats @ self.text_embeds.to(feats).T
        known = (feats != 0).any(dim=1)
        if kept is not None:
            cosines = cosines.masked_fill(~kept, -torch.inf)
            known = known & kept.any(dim=-1)
        return cosines.argmax(dim=1).masked_fill(~known, -1)
