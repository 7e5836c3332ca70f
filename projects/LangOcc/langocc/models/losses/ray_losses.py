"""Losses on what rendered rays show: features, colours, classes, distances.

Every loss is called with ``(rendered, field)`` and returns one finite number, connected to the
graph even where no ray carries its target. A mean over no ray is 0.

Legend: R rays, S samples, E embedding.
"""
from typing import Optional

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ..renderer import RenderedRays
from ..voxel_field import VoxelField
from .feature_distance import FeatureDistance


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` (R,) over ``mask`` (R,); 0, still connected, where nothing is chosen."""
    return torch.where(mask, values, torch.zeros_like(values)).sum() / mask.sum().clamp(min=1)


def find_target(rendered: RenderedRays, name: str, loss: nn.Module) -> Optional[Tensor]:
    """The rays' target ``name``; None where there are no rays; KeyError where it is missing."""
    targets = rendered.rays.targets
    if name in targets:
        return targets[name]
    if len(rendered) == 0:
        return None
    raise KeyError(f"{type(loss).__name__} needs the ray target '{name}', the rays carry "
                   f'{sorted(targets)}: add it to targets of PrepareRays')


class RayLoss(nn.Module):
    """Base: a weight, and the output of the renderer that is read.

    Args:
        loss_weight: factor of the loss.
    """
    output: Optional[str] = None  # decoder whose rendered output is needed

    def __init__(self, loss_weight: float = 1.):
        super().__init__()
        self.loss_weight = loss_weight

    def nothing(self, rendered: RenderedRays) -> Tensor:
        """A zero that is connected to everything rendered."""
        zero = rendered.opacities.sum() * 0
        return zero + sum(value.sum() for value in rendered.outputs.values()) * 0


@MODELS.register_module()
class RenderedFeatureLoss(RayLoss):
    """Rendered language features against the teacher's.

    A ray that meets nothing has no direction to compare: it adds 0 and stays in the denominator of
    the mean, as published.

    Args:
        mode: see :class:`FeatureDistance`.
        ignore_sky: leave out rays whose target ``sky`` is true (camera-only rays): nothing inside
            the grid should answer for the sky; :class:`SkyLoss` empties the air along them.
        weigh_by_opacity: weigh each ray by its opacity, no gradient through it. Camera-only rays
            also see what lies beyond the grid; a ray that passes most of the grid unhindered then
            teaches the little it met only that much.
        sky_behind: compose the sky behind what a ray met: rendered + (1 - opacity) * sky, with the
            mean of the teacher's features on rays whose target ``sky`` is true (a running mean over
            batches; without one such ray so far, nothing). Rendered features are normalised, so
            without it the thinnest haze of the right words is as good as a wall, and with
            ``weigh_by_opacity`` nothing at all is. Where a ray does not see the sky, something must
            now stand in front of it.
    """
    output = 'lang'

    def __init__(self, mode: str = 'weighted_mse', ignore_sky: bool = True,
                 weigh_by_opacity: bool = False, sky_behind: bool = False,
                 loss_weight: float = 1.):
        super().__init__(loss_weight)
        self.distance = FeatureDistance(mode)
        self.ignore_sky = ignore_sky
        self.weigh_by_opacity = weigh_by_opacity
        self.sky_behind = sky_behind
        self.register_buffer('sky_feats', None, persistent=False)  # (E,) unit

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'lang_feats', self)
        if target is None:
            return self.nothing(rendered)
        pred = rendered.outputs['lang']
        if pred.shape != target.shape:
            raise ValueError(f'rendered features {tuple(pred.shape)} and teacher features '
                             f'{tuple(target.shape)} differ: embed_dims of the language decoder '
                             'and of the teacher (or the reducer) must be one number')
        met = rendered.opacities > 0
        if self.sky_behind:
            self._look_at_sky(find_target(rendered, 'sky', self), target)
            if self.sky_feats is not None:
                pred = pred + (1 - rendered.opacities)[:, None] * self.sky_feats
                met = torch.ones_like(met)
        mask = torch.ones_like(rendered.opacities, dtype=torch.bool)
        if self.ignore_sky and 'sky' in rendered.rays.targets:
            mask = ~rendered.rays.targets['sky']
        values = self.distance(F.normalize(pred, dim=-1, eps=1e-12), target, mask)
        values = torch.where(met, values, values * 0)
        if self.weigh_by_opacity:
            values = values * rendered.opacities.detach()
        return self.loss_weight * masked_mean(values, mask)

    @torch.no_grad()
    def _look_at_sky(self, sky: Tensor, target: Tensor) -> None:
        """Updates the sky's features by targets (R, E) of the rays ``sky`` (R,)."""
        if not self.training or not sky.any():
            return
        mean = target[sky].float().mean(0)
        if self.sky_feats is not None:
            mean = 0.9 * self.sky_feats + 0.1 * mean
        self.sky_feats = F.normalize(mean, dim=0)


@MODELS.register_module()
class RenderedRGBLoss(RayLoss):
    """L1 between rendered and true colour (target ``rgb``, [0, 1]); mean over rays, channels."""
    output = 'rgb'

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'rgb', self)
        if target is None:
            return self.nothing(rendered)
        values = (rendered.outputs['rgb'] - target).abs().mean(-1)
        return self.loss_weight * masked_mean(values, torch.ones_like(values, dtype=torch.bool))


@MODELS.register_module()
class RenderedSemanticLoss(RayLoss):
    """Cross-entropy of rendered class logits against the target ``classes`` (-1: unknown)."""
    output = 'semantic'

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'classes', self)
        if target is None:
            return self.nothing(rendered)
        logits = rendered.outputs['semantic']
        if len(target) and int(target.max()) >= logits.shape[1]:
            raise ValueError(f'ray class {int(target.max())} for a semantic decoder of '
                             f'{logits.shape[1]} classes')
        values = F.cross_entropy(logits, target, ignore_index=-1, reduction='none')
        return self.loss_weight * masked_mean(values, target >= 0)


@MODELS.register_module()
class RenderedDepthLoss(RayLoss):
    """Rays against measured distances (target ``distances``, metres along the ray, nan unknown).

    Modes:
        l1: |rendered - measured| distance / far, over rays that meet something.
        log_l1: |log rendered - log measured|.
        termination: negative log-likelihood that the ray ends within ``margin`` of the measured
            distance, computed from densities read along the ray: the optical depth before the
            surface (free space) minus log(1 - exp(-optical depth within the margin)). The
            likelihood that LiDAR-supervised occupancy forecasting maximises; unlike a mean
            distance it cannot be met by balancing density before and behind the surface.

    Rays measured beyond ``far`` and points outside the grid give free space only ('termination') or
    are left out (others).

    Args:
        mode: see above.
        far: metres.
        margin: half the thickness of the surface in metres ('termination').
        free_margin: metres before the measured distance that need not be free ('termination');
            None is ``margin``. A ray that grazes the road passes, within one voxel of it, through
            voxels that the road occupies: a margin of several voxels keeps it from carving them.
        num_samples: density reads in free space a ray, and a quarter as many within the margin.
    """

    def __init__(self, mode: str = 'l1', far: float = 40., margin: float = 0.3,
                 free_margin: Optional[float] = None, num_samples: int = 64,
                 loss_weight: float = 1.):
        super().__init__(loss_weight)
        if mode not in ('l1', 'log_l1', 'termination'):
            raise ValueError("RenderedDepthLoss mode 'l1', 'log_l1' or 'termination', got "
                             f"'{mode}'")
        self.mode, self.far, self.num_samples = mode, far, num_samples
        self.margin = margin
        self.free_margin = margin if free_margin is None else free_margin

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'distances', self)
        if target is None:
            return self.nothing(rendered)
        known = torch.isfinite(target) & (target > 0)
        target = torch.where(known, target, torch.ones_like(target))
        if self.mode == 'termination':
            return self.loss_weight * masked_mean(self._termination(rendered, field, target), known)
        known = known & (target < self.far) & (rendered.opacities > 0)
        distances = torch.where(known, rendered.distances, target)
        if self.mode == 'l1':
            values = (distances - target).abs() / self.far
        else:
            values = (distances.clamp(min=1e-3).log() - target.log()).abs()
        return self.loss_weight * masked_mean(values, known)

    def _termination(self, rendered: RenderedRays, field: VoxelField, target: Tensor) -> Tensor:
        rays = rendered.rays
        free_ends = (target - self.free_margin).clamp(min=0, max=self.far)
        starts, ends = (target - self.margin).clamp(min=0), target + self.margin
        free = _stratified(torch.zeros_like(target), free_ends, self.num_samples)
        surface = _stratified(starts, ends, max(self.num_samples // 4, 2))
        points = rays.points(torch.cat([free, surface], dim=1))
        densities = torch.cat(field.sample_densities(
            [points[rendered.batch_ids == index] for index in range(len(field))]))
        before, within = densities.split([free.shape[1], surface.shape[1]], dim=1)
        hits = rays.origins + target[:, None] * rays.directions
        inside = field.grid.contains(hits) & (target < self.far)
        # Finite where the surface is still empty; its gradient meets the activation's own slope.
        log_hit = torch.log(-torch.expm1(-(within.mean(1) * (ends - starts) + 1e-8)))
        return before.mean(1) * free_ends - torch.where(inside, log_hit, torch.zeros_like(log_hit))


def _stratified(starts: Tensor, ends: Tensor, num: int) -> Tensor:
    """One place (R, num) drawn in each of ``num`` equal parts from ``starts`` to ``ends`` (R,)."""
    steps = (torch.arange(num, device=starts.device) + torch.rand(
        len(starts), num, device=starts.device)) / num
    return starts[:, None] + (ends - starts)[:, None] * steps
