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
    """Expected difference of colours where a ray ends: multi-view stereo along training rays.

    :class:`RenderedRGBLoss` compares with colours that the network itself has put into voxels, and
    a voxel may have any. Here a sample's colour is what neighbouring images show at its place
    (target ``photometric_costs``, made by a :class:`PhotometricSweep` in the data pipeline), so
    that only moving the surface lowers the loss. Every sample is compared, rather than the rendered
    distance alone, whose gradient would see no further than the next pixel (the multiple depth
    proposals of SelfOcc, arXiv 2311.12754).

    A ray costs ``sum_s w_s c(t_s) + (1 - sum_s w_s) c(infinity)``, with the cost of the nearest
    candidate (in disparity). Candidates that no other image sees are taken to cost what the ray
    costs anyway: they neither draw density nor repel it. A mean over rays that have any cost.

    Raises:
        KeyError: in the forward pass, rays lack the target.
        ValueError: it is not (R, D, 2) with at least 3 candidates.
    """

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        target = find_target(rendered, 'photometric_costs', self)
        if target is None:
            return self.nothing(rendered)
        if target.dim() != 3 or target.shape[1] < 3 or target.shape[2] != 2:
            raise ValueError('PhotometricLoss: photometric_costs has shape '
                             f'{tuple(target.shape)}, expected (R, D, 2) with 3 candidates or more')
        distances, costs = target.unbind(dim=-1)
        costs = torch.cat([costs.gather(1, _nearest(rendered.t_mids, distances)), costs[:, -1:]],
                          dim=1)
        weights = torch.cat([rendered.weights, 1 - rendered.opacities[:, None]], dim=1)
        known = torch.isfinite(costs)
        costs = torch.where(known, costs, torch.zeros_like(costs))
        weights = torch.where(known, weights, torch.zeros_like(weights))
        mean = (weights * costs).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-3)
        mean = mean.detach()
        values = mean + (weights * (costs - mean[:, None])).sum(dim=1)
        return self.loss_weight * masked_mean(values, known.any(dim=1))


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
