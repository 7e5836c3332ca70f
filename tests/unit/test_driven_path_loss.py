"""Geometry from the car's poses: road where it drove, nothing on it."""
import math

import numpy as np
import pytest
import torch

from langocc.datasets.pixel_draw import ego_poses
from langocc.models.losses import DrivenPathLoss
from langocc.models.renderer import RenderedRays
from langocc.models.voxel_field import VoxelField
from voxelrender import RayBundle, VoxelGrid

GRID = VoxelGrid((-8., -8., -1., 8., 8., 3.), (0.4, 0.4, 0.4))


def pose(x=0., y=0., z=0., yaw=0., pitch=0.):
    """(4, 4): yaw about z, then the nose down by ``pitch``."""
    c, s, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    turned = torch.tensor([[c, -s, 0.], [s, c, 0.], [0., 0., 1.]]) @ torch.tensor(
        [[cp, 0., sp], [0., 1., 0.], [-sp, 0., cp]])
    out = torch.eye(4)
    out[:3, :3], out[:3, 3] = turned, torch.tensor([x, y, z])
    return out


def rendered(*items):
    """Rays of batch items that are lists of poses, one ray a pose."""
    poses = torch.stack([one[:3] for item in items for one in item])
    num = len(poses)
    ids = torch.tensor([index for index, item in enumerate(items) for _ in item])
    rays = RayBundle(torch.zeros(num, 3), torch.zeros(num, 3), targets=dict(ego_poses=poses))
    empty = torch.zeros(num, 1)
    return RenderedRays(rays, ids, empty, empty, empty, empty, torch.zeros(num), torch.zeros(num),
                        {})


def field_of(densities):
    return VoxelField(torch.zeros(len(densities), 2, *GRID.volume_shape), densities, GRID)


def zeros(batch=1):
    return torch.zeros(batch, *GRID.volume_shape, requires_grad=True)


def gradient(loss, rays, densities):
    return torch.autograd.grad(loss(rays, field_of(densities)), densities)[0]


def test_ground_under_the_car_and_air_where_it_stood():
    torch.manual_seed(0)
    where = pose(2., -1., 0.1, yaw=math.pi / 2)
    grad = gradient(DrivenPathLoss(num_points=20000), rendered([where]), zeros() + 0.1)
    centers = GRID.voxel_centers().double()
    local = torch.cat([centers, torch.ones_like(centers[..., :1])], -1) @ torch.linalg.inv(
        where.double()).T
    x, y, z = local[..., 0], local[..., 1], local[..., 2]
    inside = (x > -0.8 + 0.3) & (x < 3.3 - 0.3) & (y.abs() < 0.85 - 0.3)
    beside = (x < -0.8 - 0.3) | (x > 3.3 + 0.3) | (y.abs() > 0.85 + 0.3)
    ground, body = z.abs() < 0.19, (z > 0.61) & (z < 1.29)
    assert (inside & ground).sum() >= 12 and (inside & body).sum() >= 24
    assert (grad[0][inside & ground] < 0).all()  # up
    assert (grad[0][inside & body] > 0).all()  # down
    assert (grad[0][beside | (z < -0.21) | (z > 1.71)] == 0).all()


def test_value_is_that_of_both_parts():
    torch.manual_seed(0)
    rays = rendered([pose()])
    empty = DrivenPathLoss(eps=1e-4, ground_weight=1.)(rays, field_of(zeros()))
    assert empty.item() == pytest.approx(-math.log(1e-4), rel=1e-4)
    densities = torch.full_like(zeros(), 1.02)
    want = -math.log((1 - math.exp(-1.02 * 0.4)) * (1 - 1e-4) + 1e-4) + 1.
    loss = DrivenPathLoss(loss_weight=3., ground_weight=1.)(rays, field_of(densities))
    assert loss.item() == pytest.approx(3 * want, rel=1e-4)
    assert DrivenPathLoss(ground_weight=0.)(rays, field_of(densities)).item() == pytest.approx(1.)
    right = zeros().detach().clone()
    right[:, 2] = 50.  # the layer through 0
    assert DrivenPathLoss()(rays, field_of(right)) < 1e-6


def test_hills_are_where_poses_say():
    """15 cm uphill for each metre: the ground rises through layers, and is nowhere called free."""
    torch.manual_seed(0)
    up = math.atan(0.15)
    path = [pose(x, 0., 0.15 * x, pitch=-up) for x in (-5., 0., 4.)]
    grad = gradient(DrivenPathLoss(num_points=30000), rendered(path), zeros() + 0.1)[0]
    row = grad[:, 20]  # (Z, X) at y = 0.2
    centers = GRID.voxel_centers()[0, 20, :, 0]
    for x, column in zip(centers.tolist(), row.T):
        if -5. < x < -2.6 or 0 < x < 2.6 or 4. < x < 6.:
            layer = math.floor((0.15 * x + 1.) / 0.4)
            assert column[layer] < 0
            assert (column[:layer] <= 0).all() and (column[layer + 2:layer + 3] > 0).all()


def test_batch_items_have_paths_of_their_own():
    torch.manual_seed(0)
    rays = rendered([pose(-4.)], [pose(3.)])
    grad = gradient(DrivenPathLoss(), rays, zeros(2) + 0.1)
    left = GRID.voxel_centers()[..., 0] < 1
    assert (grad[0][~left] == 0).all() and (grad[0][left] != 0).any()
    assert (grad[1][left] == 0).all() and (grad[1][~left] != 0).any()


def test_paths_outside_the_grid_and_no_rays_cost_nothing():
    densities, some = zeros(), rendered([pose()])
    none = RenderedRays(some.rays[:0], some.batch_ids[:0], *[some.weights[:0]] * 4,
                        some.opacities[:0], some.distances[:0], {})
    for rays in (rendered([pose(100.)]), none):
        loss = DrivenPathLoss()(rays, field_of(densities))
        assert loss == 0
        if loss.requires_grad:
            loss.backward()


def test_errors():
    with pytest.raises(ValueError, match='body is .* expected'):
        DrivenPathLoss(body=(1., 0., 1., 1.))
    with pytest.raises(ValueError, match='clearance is 2.0 m, .* 1.5 m'):
        DrivenPathLoss(clearance=2.)
    rays = rendered([pose()])
    del rays.rays.targets['ego_poses']
    with pytest.raises(KeyError, match='ego_poses'):
        DrivenPathLoss()(rays, field_of(zeros()))


def test_poses_lead_from_ray_frames_to_the_augmented_key_frame():
    key, other = pose(10., 5., 1., yaw=0.3), pose(13., 7., 1.2, yaw=0.5, pitch=0.05)
    mirror = torch.diag(torch.tensor([-1., 1., 1., 1.]))
    results = dict(
        ray_frames=[dict(offset=0, info=dict(ego2global=key.tolist())),
                    dict(offset=1, info=dict(ego2global=other.tolist()))],
        key_ego2global=np.array(key, dtype=np.float64), bev_aug_matrix=mirror.numpy())
    poses = ego_poses(results)
    assert poses.shape == (2, 3, 4) and poses.dtype == torch.float32
    assert torch.allclose(poses[0], mirror[:3], atol=1e-6)
    assert torch.allclose(poses[1], (mirror @ torch.linalg.inv(key) @ other)[:3], atol=1e-5)
