"""BatchNorm that trains on a single value per channel (one camera at batch 1).

torch refuses batch statistics of one value. These layers then normalise by the running statistics;
parameters, buffers and their names are BatchNorm's, and with two or more values a channel so is the
result. They stay subclasses of torch's, so that conversion to SyncBatchNorm finds them.
"""
import torch
from torch import Tensor, nn


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d; running statistics, unchanged, where a channel has one value in training.

    They are left as they are because this layer runs under activation checkpointing, where the
    recomputation must see what the first pass saw.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return _normalise(self, x)
        return super().forward(x)


class SingleValueBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d; running statistics where a channel has one value in training.

    The running statistics first take the value in (exponentially weighted mean and variance, West
    1979): focal lengths of hundreds of pixels would otherwise reach the layers behind unscaled for
    the whole of a one-camera training.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            self._follow(x.detach()[0])
            return _normalise(self, x)
        return super().forward(x)

    @torch.no_grad()
    def _follow(self, value: Tensor) -> None:
        """Moves the running statistics towards one (C,) value."""
        change = value.to(self.running_mean) - self.running_mean
        self.running_mean += self.momentum * change
        spread = self.running_var + self.momentum * change.square()
        self.running_var.copy_((1 - self.momentum) * spread)
        self.num_batches_tracked += 1


def _normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalises by the running statistics of a BatchNorm layer.

    By copies of them: a later frame may move them before this frame's backward pass.
    """
    return nn.functional.batch_norm(x, norm.running_mean.clone(), norm.running_var.clone(),
                                    norm.weight, norm.bias, training=False, eps=norm.eps)
