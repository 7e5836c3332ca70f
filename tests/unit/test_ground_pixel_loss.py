"""Rays whose pixels show the ground pass the air above it."""
import math

import pytest
import torch

from langocc.models.losses import GroundPixelLoss
from langocc.models.renderer import RenderedRays, VolumeRenderer
from langocc.models.voxel_field import VoxelField
from voxelrender import RayBundle, VoxelGrid

GRID = VoxelGrid((0., -1., -1., 10., 1., 3.), (0.4, 0.4, 0.4))
LEVEL = torch.tensor([[[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.]]])
DOWN = 1 / math.sqrt(10.)  # one metre down on three ahead


def rendered(weights, t_mids, ground, poses=LEVEL, height=1.5):
    num = len(weights)
    directions = torch.tensor([[3 * DOWN, 0., -DOWN]]).expand(num, 3)
    origins = torch.tensor([[0., 0., height]]).expand(num, 3)
    targets = dict(ground=torch.tensor(ground), ego_poses=poses.expand(num, 3, 4))
    rays = RayBundle(origins, directions, targets=targets)
    weights, t_mids = (values.expand(num, -1) for values in (weights, t_mids))
    return RenderedRays(rays, torch.zeros(num, dtype=torch.long), t_mids - 1, t_mids + 1, t_mids,
                        weights,
                        weights.sum(1), weights.sum(1), {})


def at_heights(*heights, start=1.5):
    return torch.tensor([[(start - height) / DOWN for height in heights]])


def test_what_ends_above_the_ground_costs():
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]], requires_grad=True)
    places = at_heights(1., 0.31, 0.29, -0.5)
    loss = GroundPixelLoss(0.3, 0., loss_weight=2., eps=0.)(rendered(weights, places, [True]), None)
    torch.testing.assert_close(loss, torch.tensor(-2 * math.log(0.7)))
    loss.backward()
    torch.testing.assert_close(weights.grad, torch.tensor([[1., 1., 0., 0.]]) * 2 / 0.7)


def test_other_pixels_are_left_out():
    weights, places = torch.tensor([[0.5, 0.2], [0.9, 0.1]]), at_heights(1., 0.)
    loss = GroundPixelLoss(0.3, eps=0.)
    one = loss(rendered(weights, places, [True, False]), None)
    torch.testing.assert_close(one, torch.tensor(math.log(2.)))
    none = loss(rendered(weights.requires_grad_(), places, [False, False]), None)
    none.backward()
    assert none == 0 and not weights.grad.any()


def test_the_ground_is_that_of_the_rays_own_frame_and_may_rise():
    weights, places = torch.tensor([[0.5, 0.2]]), at_heights(1., 0.)
    uphill = LEVEL.clone()
    uphill[:, 2, 3] = 0.8  # its frame's car stood higher: 1 m is 0.2 m above its ground
    loss = GroundPixelLoss(0.3, eps=0.)
    assert loss(rendered(weights, places, [True], uphill), None) == 0
    rolled = LEVEL[:, :, [0, 2, 1, 3]]  # its up is our y, in which the ray lies
    assert loss(rendered(weights, places, [True], rolled), None) == 0
    sine = 0.5  # its frame's car drives uphill: 1.7 m ahead it is 1 m up
    pitched = torch.tensor([[[(1 - sine**2)**0.5, 0., -sine, 0.], [0., 1., 0., 0.],
                             [sine, 0., (1 - sine**2)**0.5, 0.]]])
    downhill = pitched * torch.tensor([1., 1., -1., 1.]) * torch.tensor([[1.], [1.], [-1.]])
    assert loss(rendered(weights, places, [True], pitched), None) == 0
    low = at_heights(0.2, -2.)
    assert loss(rendered(weights, low, [True]), None) == 0
    assert loss(rendered(weights, low, [True], downhill), None) > 0.5
    distances = places[0]
    steep = GroundPixelLoss(0.3, float(0.75 / distances[0]), eps=0.)
    gentle = GroundPixelLoss(0.3, float(0.65 / distances[0]), eps=0.)
    assert steep(rendered(weights, places, [True]), None) == 0
    assert gentle(rendered(weights, places, [True]), None) > 0.5


def test_fog_above_a_road_lifts():
    torch.manual_seed(0)
    logits = torch.full((1, *GRID.volume_shape), -1., requires_grad=True)
    renderer, loss = VolumeRenderer(far=9.9, num_samples=64), GroundPixelLoss(0.3)
    ahead = 3 + 6 * torch.rand(128)
    directions = torch.stack([ahead, torch.zeros(128), torch.full((128,), -1.5)], dim=1)
    rays = RayBundle(torch.tensor([[0.1, 0., 1.5]]).expand(128, 3),
                     directions / directions.norm(dim=1, keepdim=True),
                     targets=dict(ground=torch.ones(128, dtype=torch.bool),
                                  ego_poses=LEVEL.expand(128, 3, 4)))
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        field = VoxelField(torch.zeros(1, 2, *GRID.volume_shape), 8 * logits.sigmoid(), GRID)
        loss(renderer(field, [rays], {}, training=True), field).backward()
        optimizer.step()
    change = (logits.detach() + 1)[0, :, 2:4]  # (Z, Y, X), beside the rays' plane
    assert change[4].min() < -2  # 0.6 to 1 m
    assert change[:2].abs().max() < 0.05  # under the ground


def test_what_is_missing_or_wrong_is_named():
    with pytest.raises(ValueError, match='clearance is -1 m and slope 0.01'):
        GroundPixelLoss(clearance=-1)
    for name in ('ground', 'ego_poses'):
        rays = rendered(torch.ones(1, 1), torch.ones(1, 1), [True])
        del rays.rays.targets[name]
        with pytest.raises(KeyError, match=name):
            GroundPixelLoss()(rays, None)
    empty = rendered(torch.zeros(0, 3), torch.zeros(0, 3), [], LEVEL[:0])
    empty.rays.targets.clear()
    assert GroundPixelLoss()(empty, None) == 0
