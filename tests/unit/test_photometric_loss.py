"""Rays end where other images show their colours."""
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


def test_fog_becomes_a_wall_where_images_agree():
    torch.manual_seed(0)
    logits = torch.full((1, *GRID.volume_shape), -1.5, requires_grad=True)
    renderer, loss = VolumeRenderer(far=9.9, num_samples=64), PhotometricLoss()
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
    assert first > 0.22 and float(loss(after, field)) < 0.1
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
    empty = rendered(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4, 2))
    assert PhotometricLoss()(empty, field) == 0
