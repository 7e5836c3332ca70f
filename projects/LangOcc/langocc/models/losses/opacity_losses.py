"""Losses on how much a rendered ray meets, and where: no feature, no depth.

Legend: R rays, S samples.
"""
import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from ..renderer import RenderedRays
from ..voxel_field import VoxelField
from .ray_losses import RayLoss, find_target, masked_mean


class OpacityLoss(RayLoss):
    """Base of losses that ask chosen rays to meet something, or nothing.

    Args:
        eps: added to what the logarithm is taken of.
    """

    def __init__(self, loss_weight: float = 1., eps: float = 1e-3):
        super().__init__(loss_weight)
        self.eps = eps

    def log_likelihood(self, shares: Tensor) -> Tensor:
        """Logarithm of ``shares`` in [0, 1], finite at 0, exact at 1."""
        return (shares * (1 - self.eps) + self.eps).log()


@MODELS.register_module()
class SkyLoss(OpacityLoss):
    """Free space along rays that see the sky: ``-log(1 - opacity)``, mean over those rays.

    Camera-only pixels include the sky. Rendered features are normalised, so without this term the
    thinnest haze of 'sky' voxels inside the grid explains them perfectly, and the air fills up. The
    teacher says which pixels are sky (target ``sky``); such rays must pass the grid unhindered.
    """

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        sky = find_target(rendered, 'sky', self)
        if sky is None:
            return self.nothing(rendered)
        return self.loss_weight * masked_mean(-self.log_likelihood(1 - rendered.opacities), sky)


@MODELS.register_module()
class SilhouetteLoss(OpacityLoss):
    """What is not sky stops its ray: ``-log(opacity)``, mean over rays that do not see the sky.

    With :class:`SkyLoss` it says of every pixel whether anything stands along its ray (target
    ``sky``): silhouettes, seen from all frames, carve space. Language alone does not ask for it: a
    thin haze of exaggerated features, composed before the sky, looks like the word. A surface
    beyond the grid becomes a wall at its border.
    """

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        sky = find_target(rendered, 'sky', self)
        if sky is None:
            return self.nothing(rendered)
        return self.loss_weight * masked_mean(-self.log_likelihood(rendered.opacities), ~sky)


@MODELS.register_module()
class GroundLoss(OpacityLoss):
    """Rays that would leave the grid through its floor meet something: ``-log(opacity)``, mean.

    Rendered features are normalised: they do not say how much a ray must meet, and with the sky
    term alone a field that is empty everywhere is a minimum. What lies under the grid is solid
    ground, so a ray that comes out there has passed a surface inside: all that a camera alone knows
    for sure of where something is. Rays that leave through a side or the top, or reach the floor
    beyond ``far``, may well meet their surface outside and are left out, as is the sky (target
    ``sky``, optional).

    Args:
        far: metres along the ray.
    """

    def __init__(self, far: float = 40., loss_weight: float = 1., eps: float = 1e-3):
        super().__init__(loss_weight, eps)
        self.far = far

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        if len(rendered) == 0:
            return self.nothing(rendered)
        mask = self.meets_floor(rendered, field)
        if 'sky' in rendered.rays.targets:
            mask = mask & ~rendered.rays.targets['sky']
        return self.loss_weight * masked_mean(-self.log_likelihood(rendered.opacities), mask)

    def meets_floor(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        """(R,) bool: the ray leaves the grid through its lower face, before ``far``."""
        rays, grid = rendered.rays, field.grid
        near, leaves = grid.intersect(rays.origins, rays.directions)
        heights = rays.origins[:, 2] + leaves * rays.directions[:, 2]
        at_floor = (heights - grid.lower[2]).abs() < 1e-3 * grid.voxel_size[2]
        return (near < leaves) & (leaves < self.far) & (rays.directions[:, 2] < 0) & at_floor


@MODELS.register_module()
class DistortionLoss(RayLoss):
    """Compactness of weights along a ray (mip-NeRF 360, eq. 15), distances divided by ``far``."""

    def __init__(self, far: float = 40., loss_weight: float = 0.01):
        super().__init__(loss_weight)
        self.far = far

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        weights = rendered.weights
        mids = rendered.t_mids / self.far
        lengths = (rendered.t_ends - rendered.t_starts) / self.far
        # sum_ij w_i w_j |m_i - m_j| in O(S): mids are sorted along the ray.
        before = weights.cumsum(-1) - weights
        moment = (weights * mids).cumsum(-1) - weights * mids
        spread = 2 * (weights * (mids * before - moment)).sum(-1)
        own = (weights.square() * lengths).sum(-1) / 3
        values = spread + own
        return self.loss_weight * masked_mean(values, torch.ones_like(values, dtype=torch.bool))
