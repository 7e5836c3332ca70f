"""How far predicted vision-language features are from a teacher's.

Legend: R vectors, E embedding.
"""
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ('weighted_mse', 'mse', 'cosine', 'centered_cosine')
# Batches whose targets the running mean weighs the same; afterwards the last so many count.
_HORIZON = 100
# Shortest deviation from the mean that has a direction.
_EPS = 1e-4


class FeatureDistance(nn.Module):
    """Distance (R,) of unit features from unit targets.

    Modes (paper, 'Rendering and loss' and its ablation; the last is ours):
        weighted_mse: stop_gradient(2 * (1 - cos)) * squared distance, the paper's loss.
        mse: squared distance.
        cosine: 1 - cos.
        centered_cosine: 1 - cos of what both deviate from the targets' mean. CLIP's text space is
            narrow, its words are 0.7 to 0.9 alike: the other modes spend themselves on what all
            targets share, and a constant is nearly right. The mean is taken over the targets seen
            in training so far (the last 100 batches of each process); not part of checkpoints.

    Args:
        mode: see above.

    Raises:
        ValueError: another mode.
    """

    def __init__(self, mode: str = 'weighted_mse'):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"feature distance '{mode}', expected one of {list(MODES)}")
        self.mode = mode
        self.batches = 0
        self.register_buffer('mean', None, persistent=False)  # (E,)

    def forward(self, pred: Tensor, target: Tensor, counts: Optional[Tensor] = None) -> Tensor:
        """Distances (R,); ``counts`` (R,) bool: targets that the mean is taken of (None: all)."""
        if self.mode == 'centered_cosine':
            self._look_at(target if counts is None else target[counts])
            if self.mean is None:  # not one target so far
                return (pred * 0).sum(-1)
            return 1 - F.cosine_similarity(pred - self.mean, target - self.mean, dim=-1, eps=_EPS)
        cosine = F.cosine_similarity(pred, target, dim=-1, eps=1e-8)
        if self.mode == 'cosine':
            return 1 - cosine
        squared = (pred - target).square().sum(-1)
        return squared if self.mode == 'mse' else (2 * (1 - cosine)).detach() * squared

    @torch.no_grad()
    def _look_at(self, target: Tensor) -> None:
        """Updates the mean by targets (R, E) of a training batch."""
        if not self.training or not len(target):
            return
        mean = target.float().mean(0)
        self.batches += 1
        if self.mean is not None:
            mean = self.mean + (mean - self.mean) / min(self.batches, _HORIZON)
        self.mean = mean
