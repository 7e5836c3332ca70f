"""Language of chosen voxels, kept to be compared with any text.

Legend: U voxels, H hidden channels, E embedding, K texts.
"""
from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor

# Rows that are widened to float32 at a time where values are stored in half precision: few enough
# to stay in a CPU's caches.
_CHUNK = 4096


@dataclass
class EncodedLanguage:
    """What :meth:`LanguageDecoder.remember` keeps of voxels: fewer numbers than their features.

    A unit feature is ``(weight @ value + bias) * factor``, so its cosine with a text is one row of
    a matrix-vector product with the text folded into ``weight``. Refers to neither the network nor
    the field, and can be pickled.

    Attributes:
        values: (U, H) hidden activations; (U, E) unit features without ``factors``.
        factors: (U,) 1 / norm.
        weight: (E, H) of the decoder's last layer.
        bias: (E,).
    """
    values: Tensor
    factors: Optional[Tensor] = None
    weight: Optional[Tensor] = None
    bias: Optional[Tensor] = None

    def __len__(self) -> int:
        return len(self.values)

    def to(self, dtype: torch.dtype) -> 'EncodedLanguage':
        """With values of another type; half precision takes half the memory."""
        return replace(self, values=self.values.to(dtype))

    @torch.no_grad()
    def similarity(self, text_embeds: Tensor) -> Tensor:
        """Cosine (U, K), float32, with text embeddings (K, E) of the decoder's space, any length.

        Half-precision values are multiplied in float32: similarities of a field lie so close
        together that half-precision results would tie.
        """
        text = torch.nn.functional.normalize(text_embeds.to(self.values.device).float(), dim=-1)
        offset = text.new_zeros(len(text))
        if self.factors is not None:
            text, offset = text @ self.weight, text @ self.bias
        parts = [torch.addmm(offset, part.float(), text.t()) for part in self.values.split(
            max(len(self), 1) if self.values.dtype == torch.float32 else _CHUNK)]
        result = parts[0] if len(parts) == 1 else torch.cat(parts)
        return result if self.factors is None else result.mul_(self.factors[:, None])

    @torch.no_grad()
    def features(self) -> Tensor:
        """Unit features (U, E), float32."""
        if self.factors is None:
            return self.values.float()
        feats = torch.addmm(self.bias, self.values.float(), self.weight.t())
        return feats.mul_(self.factors[:, None])
