"""Where along a ray other images show its pixel's colours.

Legend: R rays, S samples, D candidate distances.
"""
import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from ..renderer import RenderedRays
from ..voxel_field import VoxelField
from .ray_losses import RayLoss, find_target, masked_mean


@MODELS.register_module()
class PhotometricLoss(RayLoss):
    """Rays end where other images show their colours: multi-view stereo along training rays.

    :class:`RenderedRGBLoss` compares with colours that the network itself has put into voxels, and
    a voxel may have any. Here a sample's colour is what neighbouring images show at its place
    (target ``photometric_costs``, made by a :class:`PhotometricSweep` in the data pipeline), so
    that only moving the surface lowers the loss. Every sample is compared, rather than the rendered
    distance alone, whose gradient would see no further than the next pixel (the multiple depth
    proposals of SelfOcc, arXiv 2311.12754).

    A sample has the cost of the nearest candidate (in disparity), what is left of the ray that at
    infinity. Candidates that no other image sees are as good as the ray is anyway: they neither
    draw density nor repel it. A mean over rays that have any cost.

    Modes:
        expected: ``sum_s w_s c(t_s)``, the mean cost of where the ray ends. A network that is not
            sure does best to put the whole ray where the cost is least on average.
        likelihood: ``-log sum_s w_s p(t_s)`` with ``p = exp((best - c) / temperature) + outliers``
            over the ray's least cost: the likelihood of the colours where the ray ends as the
            weights say. A network that is not sure does best to say so, and a ray whose surface
            other images hide, or see moving, costs no more than ``-log(outliers)``.

    Args:
        mode: see above.
        temperature: cost (mean difference of colours in [0, 1]) that makes a place e times less
            likely ('likelihood').
        outliers: likelihood of any place, over that of the best ('likelihood'). Both defaults come
            from LiDAR points of the synthetic street (benchmarks/trunk_trials.json).

    Raises:
        ValueError: a setting out of its range; in the forward pass, the target is not (R, D, 2)
            with at least 3 candidates.
        KeyError: in the forward pass, rays lack the target.
    """

    def __init__(self, mode: str = 'expected', temperature: float = 0.005, outliers: float = 0.05,
                 loss_weight: float = 1.):
        super().__init__(loss_weight)
        if mode not in ('expected', 'likelihood'):
            raise ValueError(f"PhotometricLoss mode 'expected' or 'likelihood', got {mode!r}")
        if temperature <= 0:
            raise ValueError(f'PhotometricLoss: temperature is {temperature}, expected more than 0')
        if not 0 < outliers <= 1:
            raise ValueError(f'PhotometricLoss: outliers is {outliers}, expected (0, 1]')
        self.mode, self.temperature, self.outliers = mode, temperature, outliers

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'photometric_costs', self)
        if target is None:
            return self.nothing(rendered)
        if target.dim() != 3 or target.shape[1] < 3 or target.shape[2] != 2:
            raise ValueError('PhotometricLoss: photometric_costs has shape '
                             f'{tuple(target.shape)}, expected (R, D, 2) with 3 candidates or more')
        distances, costs = target.unbind(dim=-1)
        places = torch.cat([_nearest(rendered.t_mids, distances),
                            torch.full_like(costs[:, :1], costs.shape[1] - 1).long()], dim=1)
        weights = torch.cat([rendered.weights, 1 - rendered.opacities[:, None]], dim=1)
        if self.mode == 'expected':
            values = _mean_of_known(costs.gather(1, places), weights)
        else:
            best = costs.nan_to_num(torch.inf).amin(dim=1, keepdim=True)
            likelihoods = torch.exp((best - costs) / self.temperature) + self.outliers
            mean = _mean_of_known(likelihoods.gather(1, places), weights)
            values = -mean.clamp(min=self.outliers).log()
        known = torch.isfinite(costs.gather(1, places)).any(dim=1)
        return self.loss_weight * masked_mean(values, known)


def _mean_of_known(values: Tensor, weights: Tensor) -> Tensor:
    """(R,) sum of values times weights, both (R, S); unknown values (nan) are the mean of others.

    Weights add up to 1. The gradient of the weights of unknown values is 0.
    """
    known = torch.isfinite(values)
    values = torch.where(known, values, torch.zeros_like(values))
    weights = torch.where(known, weights, torch.zeros_like(weights))
    mean = (weights * values).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-3)
    mean = mean.detach()
    return mean + (weights * (values - mean[:, None])).sum(dim=1)


def _nearest(t_mids: Tensor, distances: Tensor) -> Tensor:
    """(R, S) index of the finite candidate nearest to each sample in disparity.

    Args:
        t_mids: (R, S) metres.
        distances: (R, D) metres, even in disparity, growing; the last one is infinite.
    """
    first, last = 1 / distances[:, :1], 1 / distances[:, -2:-1]
    steps = distances.shape[1] - 2
    places = (first - 1 / t_mids.clamp(min=1e-3)) / (first - last) * steps
    return places.round().clamp(0, steps).long()
