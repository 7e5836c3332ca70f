"""Free space above the ground along rays whose pixels show it.

Legend: R rays, S samples.
"""
from mmdet3d.registry import MODELS
from torch import Tensor

from ..renderer import RenderedRays
from ..voxel_field import VoxelField
from .opacity_losses import OpacityLoss
from .ray_losses import find_target, masked_mean


@MODELS.register_module()
class GroundPixelLoss(OpacityLoss):
    """Who sees the ground sees nothing before it: ``-log(1 - what ends above the ground)``, mean.

    Cameras look along the ground, and there a ray passes many voxels within a few decimetres of
    it: rendering alone hardly tells a road from a thicker one, nor from a haze above it. But the
    teacher says which pixels show road, sidewalk or grass (target ``ground``), and the car stands
    on the ground at a known height (target ``ego_poses``, of the ray's own frame). Such a ray
    passes unhindered what is higher than that by more than ``clearance + slope * distance``; in
    which depth of the ground it ends is left to other losses. Of LiDAR points at such pixels of the
    synthetic street 98 % are below 0.3 m, with the slope.

    Args:
        clearance: metres above the ground; at least the height of a voxel, by which a voxel of the
            ground reaches up when it is interpolated: with less it fades (docs/results.md).
        slope: metres a metre along the ray by which the ground may rise.

    Raises:
        ValueError: a negative setting.
        KeyError: in the forward pass, rays lack a target.
    """

    def __init__(self, clearance: float = 0.5, slope: float = 0.01, loss_weight: float = 1.,
                 eps: float = 1e-3):
        super().__init__(loss_weight, eps)
        if clearance < 0 or slope < 0:
            raise ValueError(f'GroundPixelLoss: clearance is {clearance} m and slope {slope}, '
                             'expected 0 or more')
        self.clearance, self.slope = clearance, slope

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        ground = find_target(rendered, 'ground', self)
        poses = find_target(rendered, 'ego_poses', self)
        if ground is None:
            return self.nothing(rendered)
        rays, up = rendered.rays, poses[:, :, 2]
        starts = (up * (rays.origins - poses[:, :, 3])).sum(dim=1)
        rises = (up * rays.directions).sum(dim=1)
        heights = starts[:, None] + rises[:, None] * rendered.t_mids
        above = heights > self.clearance + self.slope * rendered.t_mids
        passed = 1 - (rendered.weights * above).sum(dim=1)
        values = -self.log_likelihood(passed.clamp(min=0))
        return self.loss_weight * masked_mean(values, ground)
