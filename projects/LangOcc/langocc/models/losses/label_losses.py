"""Losses of rays that carry 2D labels: a class and a measured distance (RenderOcc).

Legend: R rays, K classes.
"""
from typing import Sequence, Union

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from ..renderer import RenderedRays
from ..voxel_field import VoxelField
from .ray_losses import RayLoss, find_target

RUNNING = 'running'
# How much of the running shares a batch is.
_MOMENTUM = 0.01


@MODELS.register_module()
class RenderedClassLoss(RayLoss):
    """Cross-entropy of rendered class probabilities against the target ``classes`` (-1: unknown).

    For a decoder whose rendered output is sum of weight x probability
    (:class:`ClassProbabilityDecoder`): ``-log p(c)``, the weighted mean over rays of known class.
    What is missing in the sum over classes is the probability that the ray meets nothing, so the
    loss teaches density as well, and a ray whose class is known must end. With ``given_hit`` the
    probabilities are divided by their sum first: classes alone are taught, which is right for
    pixels whose surface may lie beyond the grid. Rays whose target ``sky`` is true are left out.

    Args:
        num_classes: K of the decoder.
        given_hit: See above.
        class_weight: Of each class: K numbers, or 'running', 1 / log(1.02 + share) with the share
            of the class among labelled rays, averaged over the batches of training (ENet, Paszke et
            al. 2016; from 50 for the rarest to 1.4): no count of the data set is needed, and each
            process of a distributed training averages its own batches (those without rays would
            keep the others waiting). None: classes weigh what they have rays.
        eps: Added to probabilities.
        output: Decoder that is rendered.

    Raises:
        ValueError: ``class_weight`` is none of those; in the forward pass, the decoder has other
            than K classes, or a ray's class is none of them.
    """

    def __init__(self, num_classes: int = 17, given_hit: bool = False,
                 class_weight: Union[Sequence[float], str, None] = None, eps: float = 1e-4,
                 output: str = 'semantic', loss_weight: float = 1.):
        super().__init__(loss_weight)
        self.num_classes, self.given_hit, self.eps = num_classes, given_hit, eps
        self.output = output
        self.running = class_weight == RUNNING
        if class_weight is None or self.running:
            weights = torch.ones(num_classes)
        else:
            weights = torch.as_tensor(class_weight, dtype=torch.float32)
            if weights.shape != (num_classes,) or not (weights >= 0).all():
                raise ValueError(f'RenderedClassLoss: class_weight is {class_weight}, expected '
                                 f"{num_classes} numbers >= 0, '{RUNNING}' or None")
        self.register_buffer('class_weight', weights, persistent=False)
        if self.running:  # kept in checkpoints: a resumed run goes on
            self.register_buffer('shares', torch.full((num_classes,), 1 / num_classes))

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'classes', self)
        if target is None:
            return self.nothing(rendered)
        probs = rendered.outputs[self.output]
        known = target >= 0
        if 'sky' in rendered.rays.targets:
            known = known & ~rendered.rays.targets['sky']
        self._check(probs, target[known])
        classes = torch.where(known, target, 0)
        likelihood = probs.gather(1, classes[:, None])[:, 0] + self.eps
        if self.given_hit:
            likelihood = likelihood / (probs.sum(1) + self.num_classes * self.eps)
        weights = self._weights(target[known])[classes] * known
        values = -likelihood.log() * weights
        return self.loss_weight * values.sum() / weights.sum().clamp(min=1e-6)

    def _check(self, probs: Tensor, classes: Tensor) -> None:
        if probs.shape[1] != self.num_classes:
            raise ValueError(f"RenderedClassLoss: num_classes is {self.num_classes}, the decoder "
                             f"'{self.output}' has {probs.shape[1]}")
        if len(classes) and int(classes.max()) >= self.num_classes:
            raise ValueError(f'RenderedClassLoss: a ray has class {int(classes.max())}, expected '
                             f'0 ... {self.num_classes - 1} or -1 (unknown): the classes of '
                             'PrepareRays and of the decoder must be the same')

    @torch.no_grad()
    def _weights(self, classes: Tensor) -> Tensor:
        """(K,) weights now, after those of ``classes`` (R,) are counted in."""
        if not self.running:
            return self.class_weight
        if self.training and len(classes):
            counts = torch.bincount(classes, minlength=self.num_classes).to(self.shares)
            self.shares.lerp_(counts / counts.sum(), _MOMENTUM)
        return 1 / (1.02 + self.shares).log()


@MODELS.register_module()
class SILogDepthLoss(RayLoss):
    """Scale-invariant logarithmic error of rendered distances (Eigen et al. 2014; RenderOcc's).

    ``sqrt(mean(g^2) - variance_focus * mean(g)^2)`` with g = log rendered - log measured, over rays
    that meet something and have a known target ``distances`` below ``far``.

    Args:
        far: metres.
        variance_focus: 0: root mean square; 1: the error of the scale is forgiven.
        eps: keeps the root's gradient finite.
    """

    def __init__(self, far: float = 40., variance_focus: float = 0.85, eps: float = 1e-6,
                 loss_weight: float = 1.):
        super().__init__(loss_weight)
        if not 0 <= variance_focus <= 1:
            raise ValueError(f'SILogDepthLoss: variance_focus is {variance_focus}, expected 0 ... '
                             '1')
        self.far, self.variance_focus, self.eps = far, variance_focus, eps

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'distances', self)
        if target is None:
            return self.nothing(rendered)
        known = torch.isfinite(target) & (target > 0) & (target < self.far)
        known = known & (rendered.distances > 0)
        if not known.any():
            return self.nothing(rendered)
        errors = rendered.distances[known].clamp(min=1e-3).log() - target[known].log()
        spread = errors.square().mean() - self.variance_focus * errors.mean().square()
        return self.loss_weight * (spread.clamp(min=0) + self.eps).sqrt()
