"""Rays end where other images show their colours."""
import math

import pytest
import torch

from langocc.models.losses import PhotometricLoss
from langocc.models.renderer import RenderedRays, VolumeRenderer
from langocc.models.voxel_field import VoxelField
from voxelrender import RayBundle, VoxelGrid

GRID = VoxelGrid((0., -1., -1., 10., 1., 1.), (0.4, 0.4, 0.4))
NAN = float('nan')


def candidates(costs, near=1., far=9.):
    """Targets (R, D, 2) for costs (R, D), the last of which is at infinity."""
    costs = torch.tensor(costs)
    distances = 1 / torch.linspace(1 / near, 1 / far, costs.shape[1] - 1)
    distances = torch.cat([distances, torch.tensor([float('inf')])]).expand_as(costs)
    return torch.stack([distances, costs], dim=-1)


def rendered(weights, t_mids, targets):
    num = len(weights)
    rays = RayBundle(torch.zeros(num, 3), torch.zeros(num, 3),
                     targets=dict(photometric_costs=targets))
    return RenderedRays(rays, torch.zeros(num, dtype=torch.long), t_mids, t_mids, t_mids, weights,
                        weights.sum(1), weights.sum(1), {})


def loss_of(weights, t_mids, costs, **kwargs):
    field = VoxelField(torch.zeros(1, 2, *GRID.volume_shape), torch.zeros(1, *GRID.volume_shape),
                       GRID)
    return PhotometricLoss(**kwargs)(rendered(weights, t_mids, candidates(costs)), field)


def test_expected_cost_of_where_a_ray_ends():
    # Candidates at 1, 9 / 5, 9 m and infinity: 1.2 and 1.4 m differ in whose disparity is nearer.
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.2]], requires_grad=True)
    t_mids = torch.tensor([[1.2, 1.4, 4., 20.]])
    loss = loss_of(weights, t_mids, [[0.5, 0.1, 0.2, 0.4]], loss_weight=2.)
    expected = 0.1 * 0.5 + 0.2 * 0.1 + 0.3 * 0.2 + 0.2 * 0.2 + 0.2 * 0.4
    torch.testing.assert_close(loss, torch.tensor(2 * expected))
    loss.backward()
    torch.testing.assert_close(weights.grad, 2 * torch.tensor([[0.1, -0.3, -0.2, -0.2]]))


def test_unknown_candidates_neither_draw_nor_repel():
    weights = torch.tensor([[0.3, 0.3, 0.4]], requires_grad=True)
    t_mids = torch.tensor([[1., 1.8, 9.]])
    loss = loss_of(weights, t_mids, [[0.5, NAN, 0.1, NAN]])
    mean = (0.3 * 0.5 + 0.4 * 0.1) / 0.7
    torch.testing.assert_close(loss, torch.tensor(mean))
    loss.backward()
    torch.testing.assert_close(weights.grad, torch.tensor([[0.5 - mean, 0., 0.1 - mean]]))


def test_rays_without_any_cost_are_left_out():
    weights = torch.tensor([[1., 0., 0.], [0.5, 0.5, 0.]], requires_grad=True)
    t_mids = torch.tensor([[1., 1.8, 9.]] * 2)
    loss = loss_of(weights, t_mids, [[NAN] * 4, [0.2, 0.4, 0.9, 0.9]])
    torch.testing.assert_close(loss, torch.tensor(0.3))
    nothing = loss_of(weights, t_mids, [[NAN] * 4] * 2)
    grad, = torch.autograd.grad(nothing, weights)
    assert nothing == 0 and not grad.any()


def test_a_ray_without_weight_is_told_where_to_get_some():
    weights = torch.zeros(1, 2, requires_grad=True)
    loss = loss_of(weights, torch.tensor([[1., 9.]]), [[0.9, 0.5, 0.1, 0.5]])
    loss.backward()
    torch.testing.assert_close(weights.grad, torch.tensor([[0.4, -0.4]]))


def test_likelihood_of_the_colours_where_a_ray_ends():
    weights = torch.tensor([[0.1, 0.3, 0.2, 0.]], requires_grad=True)
    t_mids = torch.tensor([[1.2, 4., 20., 1.]])
    loss = loss_of(weights, t_mids, [[0.25, 0.21, 0.2, 0.26]], mode='likelihood', loss_weight=2.,
                   temperature=0.02, outliers=0.1)
    places = [math.exp(-steps) + 0.1 for steps in (2.5, 0, 0, 3)]  # 4 and 20 m: nearest is 9 m
    expected = 0.1 * places[0] + 0.5 * places[1] + 0.4 * places[3]
    torch.testing.assert_close(loss, torch.tensor(-2 * math.log(expected)))
    loss.backward()
    slopes = [2 * (places[3] - place) / expected for place in (*places[:3], places[0])]
    torch.testing.assert_close(weights.grad, torch.tensor([slopes]))


def test_likelihood_where_candidates_are_unknown():
    weights = torch.tensor([[0.3, 0.3, 0.4], [0., 1., 0.], [0.2, 0.2, 0.2]], requires_grad=True)
    t_mids = torch.tensor([[1., 1.8, 9.]] * 3)
    costs = [[0.2, NAN, 0.1, NAN], [0.2, NAN, NAN, 0.1], [NAN] * 4]
    settings = dict(mode='likelihood', temperature=0.1, outliers=0.5)
    loss = loss_of(weights, t_mids, costs, **settings)
    worse = math.exp(-1) + 0.5
    first = (0.3 * worse + 0.4 * 1.5) / 0.7
    torch.testing.assert_close(loss, torch.tensor((-math.log(first) - math.log(0.5)) / 2))
    loss.backward()
    assert torch.isfinite(weights.grad).all() and not weights.grad[1:].any()
    slopes = [(first - worse) / first / 2, 0., (first - 1.5) / first / 2]
    torch.testing.assert_close(weights.grad[0], torch.tensor(slopes))


@pytest.mark.parametrize('mode', ['likelihood', 'expected'])
def test_who_does_not_know_does_best_to_say_so(mode):
    """Two of three rays that look alike end at the first place, one at the second."""
    share = torch.tensor(2 / 3, requires_grad=True)
    weights = torch.stack([share, 1 - share]).expand(3, 2)
    costs = torch.tensor([[0., 1., 1., 1.]] * 2 + [[1., 1., 0., 1.]])
    loss = loss_of(weights, torch.tensor([[1., 9.]] * 3), costs.tolist(), mode=mode,
                   outliers=1e-6)
    slope, = torch.autograd.grad(loss, share)
    assert abs(slope) < 1e-4 if mode == 'likelihood' else slope < -0.3  # all of it, there


@pytest.mark.parametrize('mode', ['expected', 'likelihood'])
def test_fog_becomes_a_wall_where_images_agree(mode):
    torch.manual_seed(0)
    logits = torch.full((1, *GRID.volume_shape), -1.5, requires_grad=True)
    renderer, loss = VolumeRenderer(far=9.9, num_samples=64), PhotometricLoss(mode, 0.1)
    places = torch.rand(256, 2) * 1.2 - 0.6
    origins = torch.cat([torch.zeros(256, 1), places], dim=1)
    distances = 1 / torch.linspace(1., 1 / 9, 60)
    costs = 0.3 - 0.25 * torch.exp(-((distances - 5.) / 0.5)**2)
    target = torch.stack([torch.cat([distances, torch.tensor([float('inf')])]),
                          torch.cat([costs, torch.tensor([0.3])])], dim=-1).expand(256, -1, -1)
    rays = RayBundle(origins, torch.tensor([[1., 0., 0.]]).expand(256, 3),
                     targets=dict(photometric_costs=target))
    optimizer = torch.optim.Adam([logits], lr=0.2)

    def render():
        field = VoxelField(torch.zeros(1, 2, *GRID.volume_shape), 8 * logits.sigmoid(), GRID)
        return renderer(field, [rays], {}, training=True), field

    first = float(loss(*render()))
    for _ in range(120):
        optimizer.zero_grad()
        loss(*render()).backward()
        optimizer.step()
    after, field = render()
    best = 0.05 if mode == 'expected' else -math.log(1.05)
    assert float(loss(after, field)) - best < 0.3 * (first - best)
    assert after.opacities.min() > 0.9
    middle = (after.distances / after.opacities.clamp(min=1e-6) - 5.).abs()
    assert middle.median() < 0.4


def test_what_is_missing_or_wrong_is_named():
    weights = torch.ones(1, 1)
    field = None
    none = rendered(weights, weights, torch.zeros(1, 4, 2))
    del none.rays.targets['photometric_costs']
    with pytest.raises(KeyError, match='photometric_costs'):
        PhotometricLoss()(none, field)
    with pytest.raises(ValueError, match=r'\(1, 4\), expected \(R, D, 2\)'):
        PhotometricLoss()(rendered(weights, weights, torch.zeros(1, 4)), field)
    for wrong, text in ((dict(mode='mean'), "'expected' or 'likelihood', got 'mean'"),
                        (dict(temperature=0.), 'temperature is 0.0, expected more than 0'),
                        (dict(outliers=0.), r'outliers is 0.0, expected \(0, 1\]')):
        with pytest.raises(ValueError, match=text):
            PhotometricLoss(**wrong)
    empty = rendered(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4, 2))
    assert PhotometricLoss()(empty, field) == 0
