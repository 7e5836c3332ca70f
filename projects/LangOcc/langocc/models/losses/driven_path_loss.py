"""Geometry that comes with the car's own poses.

Legend: R rays, P points, U voxels.
"""
from typing import Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from voxelrender import VoxelGrid

from ..renderer import RenderedRays
from ..voxel_field import VoxelField
from .opacity_losses import OpacityLoss
from .ray_losses import find_target, masked_mean


@MODELS.register_module()
class DrivenPathLoss(OpacityLoss):
    """The car stood on a road, with nothing but itself above: free of charge, from poses alone.

    Rendered language does not tell a road from a thicker road, nor an obstacle from a haze that has
    the pixel's own words at all distances, and rays agree least where the cameras drive: there they
    run along the ground. But where the car was in another frame nothing stands (what moves is taken
    for static, as rays of other frames take it), and under it is ground, at a height that its pose
    knows, uphill and downhill. (nuScenes' poses are planar: there the path is flat.)

    Poses are those of the frames that the rays come from (target ``ego_poses``). Voxels of points
    drawn on the ground under the body have their opacity drawn to 1, by ``-log``; those of points
    drawn inside the body, unless they are among the former, pay for what their density exceeds
    ``free_density`` by. The loss is the sum of both means, the ground's times ``ground_weight``.

    Args:
        body: (x from, x to, width, height) of the car in metres. Its ego frame is the middle of the
            rear axle, on the ground; by default nuScenes' Renault Zoe.
        clearance: metres above the ground from which on the body is free space; at least the height
            of a voxel, so that none is free and ground at once.
        free_density: 1/m that counts as free.
        ground_weight: factor of the ground's part. With 0 the road may be where it wants; with 1 it
            thickens where the car was not (docs/results.md).
        num_points: drawn inside the body, and as many on the ground, of each batch item.

    Raises:
        ValueError: ``body`` or ``clearance`` leave no space.
        KeyError: in the forward pass, rays lack the target ``ego_poses``.
    """

    def __init__(self, body: Sequence[float] = (-0.8, 3.3, 1.7, 1.5), clearance: float = 0.4,
                 free_density: float = 0.02, ground_weight: float = 0.1, num_points: int = 4096,
                 loss_weight: float = 1., eps: float = 1e-4):
        super().__init__(loss_weight, eps)
        if len(body) != 4 or body[1] <= body[0] or body[2] <= 0:
            raise ValueError(f'DrivenPathLoss: body is {body}, expected (x from, x to, width, '
                             'height) in metres')
        if not 0 <= clearance < body[3]:
            raise ValueError(f'DrivenPathLoss: clearance is {clearance} m, expected at least 0 and '
                             f'less than the height of the body, {body[3]} m')
        self.body, self.clearance = tuple(body), clearance
        self.free_density = free_density
        self.ground_weight = ground_weight
        self.num_points = num_points

    def forward(self, rendered: RenderedRays, field: VoxelField) -> Tensor:
        poses = find_target(rendered, 'ego_poses', self)
        if poses is None:
            return self.nothing(rendered)
        chosen = [self._draw(poses[rendered.batch_ids == index], field.grid)
                  for index in range(len(field))]
        densities = torch.cat(field.densities_at([ids for ids, _ in chosen]))
        ground = torch.cat([is_ground for _, is_ground in chosen])
        opacities = -torch.expm1(-densities * field.grid.voxel_size[2])
        excess = (densities - self.free_density).clamp(min=0)
        missing = masked_mean(-self.log_likelihood(opacities), ground)
        return self.loss_weight * (self.ground_weight * missing + masked_mean(excess, ~ground))

    @torch.no_grad()
    def _draw(self, poses: Tensor, grid: VoxelGrid) -> Tuple[Tensor, Tensor]:
        """Distinct voxels (U,), flat over (Z, Y, X), of points at poses (R, 3, 4) of random rays.

        And (U,) bool: ground, else inside the body.
        """
        if len(poses) == 0:
            nothing = torch.empty(0, dtype=torch.long, device=poses.device)
            return nothing, nothing.bool()
        ground = self._voxels(poses, 0., 0., grid)
        free = self._voxels(poses, self.clearance, self.body[3], grid)
        free = free[~torch.isin(free, ground)]
        ids = torch.cat([ground, free])
        is_ground = torch.arange(len(ids), device=ids.device) < len(ground)
        return ids, is_ground

    def _voxels(self, poses: Tensor, low: float, high: float, grid: VoxelGrid) -> Tensor:
        """Voxels inside the grid of points under or in the body, ``low`` to ``high`` m up."""
        start, end, width, _ = self.body
        lower = poses.new_tensor([start, -width / 2, low])
        size = poses.new_tensor([end - start, width, high - low])
        points = lower + size * torch.rand(self.num_points, 3, device=poses.device)
        at = poses[torch.randint(len(poses), (self.num_points,), device=poses.device)]
        # Not by a matrix product, which autocast would round to decimetres.
        points = (at[:, :, :3] * points[:, None]).sum(dim=-1) + at[:, :, 3]
        points = points[grid.contains(points)]
        return torch.unique(grid.flat_indices(grid.to_indices(points)))
