"""Words against the words of a model's vocabulary.

Text embeddings lie in a narrow cone: every word is near to everything, and a word that is not in
the scene has its nearest voxel, too. So a word w is compared with the words of other classes:

    relevancy(x, w) = 1 / (1 + exp(-100 (cos(x, w) - max over p of cos(x, p))))

p runs over the vocabulary's prompts of other classes than w's, and w's class is that of the prompt
nearest to it in the text space. 0.5: w fits x as well as the best word of any other class does.
100 is CLIP's logit scale. This is the relevancy of LERF (Kerr et al., 2023, section 3.4) with the
vocabulary in the place of its canonical phrases.

Legend: K words, P prompts of the vocabulary, U features, D their dimensions.
"""
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.heads import LangOccHead

LOGIT_SCALE = 100.
# Features that are compared with all prompts at a time.
_CHUNK = 65536


@dataclass
class Contrast:
    """The words that a word is held against.

    Attributes:
        embeds: (P, D) float32 unit rows of a vocabulary's prompts, in the space of features.
        classes: (P,) long, the Occ3D class of each.
    """
    embeds: Tensor
    classes: Tensor

    @classmethod
    def of(cls, head: LangOccHead, device: torch.device) -> Optional['Contrast']:
        """The words of a head's vocabulary; None where it has none or only one class of words."""
        if head.vocabulary is None or head.vocabulary.text_embeds is None:
            return None
        classes = head.vocabulary.prompt_to_class.to(device)
        if len(classes.unique()) < 2:
            return None
        embeds = head.reduce(head.vocabulary.text_embeds.to(device).float())
        return cls(F.normalize(embeds, dim=-1), classes)

    def classes_of(self, text: Tensor) -> Tensor:
        """(K,) long: class of the prompt nearest to each word's unit embedding (K, D)."""
        return self.classes[(text @ self.embeds.t()).argmax(1)]

    def relevancy(self, feats: Tensor, text: Tensor) -> np.ndarray:
        """(U, K) float32 in [0, 1].

        Args:
            feats: (U, D) unit rows, of any precision.
            text: (K, D) float32 unit embeddings of words.
        """
        others = [self.classes != label for label in self.classes_of(text)]
        parts = [np.zeros((0, len(text)), np.float32)]
        for part in feats.split(_CHUNK):
            prompts = part.float() @ self.embeds.t()
            best = torch.stack([prompts[:, other].amax(1) for other in others], dim=1)
            margin = part.float() @ text.t() - best
            parts.append(torch.sigmoid(LOGIT_SCALE * margin).cpu().numpy())
        return np.concatenate(parts)
