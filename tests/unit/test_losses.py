"""Losses on rendered rays: values by hand, gradients, and rays that carry nothing."""
import math

import pytest
import torch
import torch.nn.functional as F

from langocc.models.losses import (
    DensitySparsityLoss, DistortionLoss, FlatRoadLoss, GroundLoss, RenderedDepthLoss,
    RenderedFeatureLoss, RenderedRGBLoss, RenderedSemanticLoss, SilhouetteLoss, SkyLoss,
    TotalVariationLoss
)
from langocc.models.renderer import RenderedRays
from langocc.models.voxel_field import VoxelField
from voxelrender import RayBundle, VoxelGrid

GRID = VoxelGrid((-4., -4., -1., 4., 4., 1.), (0.5, 0.5, 0.5))


def make_field(densities=None):
    if densities is None:
        densities = torch.zeros(1, *GRID.volume_shape, requires_grad=True)
    return VoxelField(torch.zeros(1, 2, *GRID.volume_shape), densities, GRID)


def make_rendered(num=3, weights=None, outputs=None, targets=None, directions=None):
    if weights is None:
        weights = torch.full((num, 4), 0.2)
    t_mids = torch.tensor([1., 2., 3., 4.]).expand(num, 4)
    if directions is None:
        directions = torch.tensor([[1., 0., 0.]]).expand(num, 3)
    rays = RayBundle(torch.zeros(num, 3), directions, targets=targets or {})
    opacities = weights.sum(-1)
    distances = (weights * t_mids).sum(-1) / opacities.clamp(min=1e-12)
    return RenderedRays(rays, torch.zeros(num, dtype=torch.long), t_mids - 0.5, t_mids + 0.5,
                        t_mids, weights, opacities, distances, outputs or {})


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


@pytest.mark.parametrize('mode', ['weighted_mse', 'mse', 'cosine'])
def test_feature_loss_values(mode):
    pred, target = torch.randn(3, 5), unit(3, 5)
    loss = RenderedFeatureLoss(mode=mode)(
        make_rendered(outputs=dict(lang=pred), targets=dict(lang_feats=target)), make_field())
    expected = 0.
    for p, t in zip(F.normalize(pred, dim=-1), target):
        cos, squared = float(p @ t), float(((p - t)**2).sum())
        expected += {'weighted_mse': 2 * (1 - cos) * squared, 'mse': squared,
                     'cosine': 1 - cos}[mode] / 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_weighted_mse_does_not_differentiate_its_weight():
    pred, target = torch.randn(4, 5, requires_grad=True), unit(4, 5)
    RenderedFeatureLoss()(make_rendered(4, outputs=dict(lang=pred),
                                        targets=dict(lang_feats=target)), make_field()).backward()
    other = pred.detach().clone().requires_grad_()
    normalised = F.normalize(other, dim=-1)
    weight = 2 * (1 - (normalised * target).sum(-1)).detach()
    (weight * (normalised - target).square().sum(-1)).mean().backward()
    assert torch.allclose(pred.grad, other.grad, atol=1e-6)


def test_rays_that_meet_nothing_stay_in_the_denominator():
    weights = torch.full((2, 4), 0.2)
    weights[1] = 0
    pred, target = torch.stack([torch.randn(5), torch.zeros(5)]), unit(2, 5)
    values = dict(outputs=dict(lang=pred), targets=dict(lang_feats=target))
    both = RenderedFeatureLoss('mse')(make_rendered(2, weights=weights, **values), make_field())
    one = RenderedFeatureLoss('mse')(make_rendered(
        1, outputs=dict(lang=pred[:1]), targets=dict(lang_feats=target[:1])), make_field())
    assert both.item() == pytest.approx(one.item() / 2, rel=1e-5)


def test_sky_rays_teach_no_language_but_empty_the_air():
    sky = torch.tensor([True, False, False])
    pred, target = torch.randn(3, 5), unit(3, 5)
    rendered = make_rendered(outputs=dict(lang=pred), targets=dict(lang_feats=target, sky=sky))
    with_sky = RenderedFeatureLoss('mse', ignore_sky=False)(rendered, make_field())
    without = RenderedFeatureLoss('mse')(rendered, make_field())
    squared = (F.normalize(pred, dim=-1) - target).square().sum(-1)
    assert with_sky.item() == pytest.approx(squared.mean().item(), rel=1e-5)
    assert without.item() == pytest.approx(squared[1:].mean().item(), rel=1e-5)
    weights = torch.full((3, 4), 0.2, requires_grad=True)
    loss = SkyLoss()(make_rendered(weights=weights, targets=dict(sky=sky)), make_field())
    assert loss.item() == pytest.approx(-math.log(0.2 * 0.999 + 0.001), rel=1e-5)
    loss.backward()
    assert (weights.grad[0] > 0).all() and not weights.grad[1:].any()


def test_rays_through_the_floor_must_meet_something():
    """Down through the floor (4 m x 4 m x 1 m from the origin); side, top, beyond far, sky: not."""
    directions = F.normalize(torch.tensor(
        [[1., 0., -1.], [8., 0., -1.], [1., 0., 1.], [2., 1., -1.], [0., 0., -1.]]), dim=-1)
    weights = torch.full((5, 4), 0.1, requires_grad=True)
    sky = torch.tensor([False, False, False, False, True])
    rendered = make_rendered(5, weights=weights, directions=directions, targets=dict(sky=sky))
    loss = GroundLoss(far=2.)(rendered, make_field())
    assert loss.item() == pytest.approx(-math.log(0.4 * 0.999 + 0.001), rel=1e-5)
    loss.backward()
    assert (weights.grad[0] < 0).all() and not weights.grad[1:].any()
    rendered = make_rendered(5, weights=weights, directions=directions)  # no sky, and farther
    met = GroundLoss(far=40.).meets_floor(rendered, make_field())
    assert met.tolist() == [True, False, False, True, True]


def test_opacity_weighs_a_ray_without_gradient():
    weights = torch.full((2, 4), 0.25, requires_grad=True)
    scaled = weights * torch.tensor([[1.], [0.1]])
    pred, target = torch.randn(2, 5), unit(2, 5)
    loss = RenderedFeatureLoss('mse', weigh_by_opacity=True)(
        make_rendered(2, weights=scaled, outputs=dict(lang=pred),
                      targets=dict(lang_feats=target)), make_field())
    squared = (F.normalize(pred, dim=-1) - target).square().sum(-1)
    assert loss.item() == pytest.approx(((squared[0] + 0.1 * squared[1]) / 2).item(), rel=1e-5)
    assert not loss.requires_grad


def test_the_sky_is_seen_behind_what_a_ray_met():
    """Rays: sky, a wall half met, nothing met. The sky's features are those of the first."""
    loss = RenderedFeatureLoss('cosine', sky_behind=True)
    weights = torch.tensor([0., 0.5, 0.])[:, None].expand(3, 4) / 4
    weights = weights.clone().requires_grad_()
    wall, target = F.normalize(torch.tensor([0., 1.]), dim=0), torch.eye(2)[[0, 1, 1]]
    rendered = make_rendered(3, weights=weights, outputs=dict(lang=weights.sum(-1)[:, None] * wall),
                             targets=dict(lang_feats=target,
                                          sky=torch.tensor([True, False, False])))
    value = loss(rendered, make_field())
    # Half wall, half sky: cosine sqrt(1/2); sky alone: cosine 0 with the wall.
    assert value.item() == pytest.approx((1 - 0.5 ** 0.5 + 1) / 2, abs=1e-6)
    value.backward()
    assert (weights.grad[1] < 0).all()  # more wall is better
    assert torch.equal(loss.sky_feats, torch.tensor([1., 0.])) and not loss.state_dict()
    loss.eval()  # what is known of the sky stays
    targets = dict(lang_feats=torch.tensor([[0.6, 0.8]]), sky=torch.tensor([True]))
    dark = make_rendered(1, weights=torch.zeros(1, 4), outputs=dict(lang=torch.zeros(1, 2)),
                         targets=targets)
    assert loss(dark, make_field()).item() == 0 and torch.equal(loss.sky_feats, torch.eye(2)[0])
    loss.train()
    loss(dark, make_field())
    assert torch.allclose(loss.sky_feats, F.normalize(torch.tensor([0.96, 0.08]), dim=0))


def test_without_a_ray_to_the_sky_nothing_is_behind():
    pred, target = torch.randn(2, 5), unit(2, 5)
    targets = dict(lang_feats=target, sky=torch.tensor([False, False]))
    rendered = make_rendered(2, outputs=dict(lang=pred), targets=targets)
    plain = RenderedFeatureLoss()(rendered, make_field())
    assert RenderedFeatureLoss(sky_behind=True)(rendered, make_field()) == plain
    with pytest.raises(KeyError, match="'sky'"):
        RenderedFeatureLoss(sky_behind=True)(
            make_rendered(2, outputs=dict(lang=pred), targets=dict(lang_feats=target)),
            make_field())


def test_different_widths_are_named():
    rendered = make_rendered(outputs=dict(lang=torch.randn(3, 4)),
                             targets=dict(lang_feats=unit(3, 5)))
    with pytest.raises(ValueError, match=r'\(3, 4\).*\(3, 5\)'):
        RenderedFeatureLoss()(rendered, make_field())


def test_missing_target_is_named():
    with pytest.raises(KeyError, match="'distances'.*PrepareRays"):
        RenderedDepthLoss()(make_rendered(targets=dict(sky=torch.zeros(3))), make_field())


def test_rgb_and_semantic_values():
    pred, target = torch.rand(3, 3), torch.rand(3, 3)
    loss = RenderedRGBLoss()(make_rendered(outputs=dict(rgb=pred), targets=dict(rgb=target)),
                             make_field())
    assert loss.item() == pytest.approx((pred - target).abs().mean().item(), rel=1e-6)
    logits, classes = torch.randn(3, 4), torch.tensor([2, -1, 0])
    loss = RenderedSemanticLoss()(make_rendered(outputs=dict(semantic=logits),
                                                targets=dict(classes=classes)), make_field())
    log_probs = logits.log_softmax(-1)
    assert loss.item() == pytest.approx(-(log_probs[0, 2] + log_probs[2, 0]).item() / 2, rel=1e-5)
    with pytest.raises(ValueError, match='ray class 7'):
        RenderedSemanticLoss()(make_rendered(outputs=dict(semantic=logits), targets=dict(
            classes=torch.tensor([7, 0, 0]))), make_field())


def test_depth_l1_leaves_out_unknown_and_far():
    distances = torch.tensor([3.5, math.nan, 50.])
    loss = RenderedDepthLoss('l1')(make_rendered(targets=dict(distances=distances)), make_field())
    assert loss.item() == pytest.approx((3.5 - 2.5) / 40, rel=1e-5)


def test_termination_of_a_constant_density_is_the_closed_form():
    """Optical depths of a constant density are known: free (d - m) sigma, surface 2 m sigma."""
    sigma, distance, margin = 0.7, 2., 0.25
    field = make_field(torch.full((1, *GRID.volume_shape), sigma))
    loss = RenderedDepthLoss('termination', margin=margin, num_samples=16)(
        make_rendered(1, targets=dict(distances=torch.tensor([distance]))), field)
    expected = sigma * (distance - margin) - math.log(1 - math.exp(-2 * margin * sigma))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_termination_prefers_the_wall_at_the_measured_distance():
    losses = []
    for wall in (1.25, 2.25, 3.25):
        densities = torch.zeros(1, *GRID.volume_shape)
        densities[..., GRID.to_indices(torch.tensor([wall, 0., 0.]))[0]] = 20.
        losses.append(RenderedDepthLoss('termination')(
            make_rendered(1, targets=dict(distances=torch.tensor([2.25]))),
            make_field(densities)).item())
    assert losses[1] < losses[2] and losses[1] < losses[0]


def test_termination_outside_the_grid_asks_for_free_space_only():
    densities = torch.zeros(1, *GRID.volume_shape, requires_grad=True)
    loss = RenderedDepthLoss('termination')(
        make_rendered(1, targets=dict(distances=torch.tensor([30.]))), make_field(densities))
    assert loss.item() == 0.
    loss.backward()
    assert (densities.grad >= 0).all() and densities.grad.any()


def test_silhouettes_ask_for_opacity_where_there_is_no_sky():
    weights = torch.tensor([[0.1] * 4, [0.2] * 4, [0.15] * 4], requires_grad=True)
    rendered = make_rendered(weights=weights,
                             targets=dict(sky=torch.tensor([True, False, False])))
    loss = SilhouetteLoss(loss_weight=0.5, eps=0.)(rendered, make_field())
    assert loss.item() == pytest.approx(-0.5 * (math.log(0.8) + math.log(0.6)) / 2, rel=1e-5)
    loss.backward()
    assert not weights.grad[0].any() and (weights.grad[1:] < 0).all()


def test_distortion_against_the_double_sum():
    weights = torch.rand(3, 4) / 4
    rendered = make_rendered(weights=weights)
    expected = 0.
    mids, lengths = rendered.t_mids / 40, (rendered.t_ends - rendered.t_starts) / 40
    for ray in range(3):
        for i in range(4):
            expected += weights[ray, i]**2 * lengths[ray, i] / 3
            for j in range(4):
                expected += weights[ray, i] * weights[ray, j] * (mids[ray, i] - mids[ray, j]).abs()
    loss = DistortionLoss(loss_weight=1.)(rendered, make_field())
    assert loss.item() == pytest.approx(expected.item() / 3, rel=1e-5)


def test_total_variation_and_sparsity_by_hand():
    densities = torch.zeros(1, *GRID.volume_shape)
    densities[0, 1, 2, 3] = 2.
    nz, ny, nx = GRID.volume_shape
    expected = (2 * 2 / ((nz - 1) * ny * nx) + 2 * 2 / (nz * (ny - 1) * nx)
                + 2 * 2 / (nz * ny * (nx - 1)))
    loss = TotalVariationLoss(loss_weight=1.)(make_rendered(), make_field(densities))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss = DensitySparsityLoss(scale=0.5, loss_weight=1.)(make_rendered(), make_field(densities))
    assert loss.item() == pytest.approx(math.log(1 + 16) / (nz * ny * nx), rel=1e-4)


@pytest.mark.parametrize('loss', [
    RenderedFeatureLoss(), RenderedRGBLoss(), RenderedSemanticLoss(), RenderedDepthLoss(),
    RenderedDepthLoss('termination'), SilhouetteLoss(),
    SkyLoss(), GroundLoss(), DistortionLoss()])
def test_no_ray_gives_a_connected_zero(loss):
    weights = torch.zeros(0, 4, requires_grad=True)
    output = torch.zeros(0, 3, requires_grad=True)
    rendered = make_rendered(0, weights=weights, outputs={loss.output: output} if loss.output
                             else {})
    value = loss(rendered, make_field())
    assert value.item() == 0 and value.requires_grad
    value.backward()


def test_free_margin_spares_what_lies_just_before_the_surface():
    """A haze 2 m before the surface costs its optical depth, and nothing within the margin."""
    densities = torch.zeros(1, *GRID.volume_shape)
    for x, density in ((3.75, 20.), (1.75, 2.)):
        densities[..., GRID.to_indices(torch.tensor([x, 0., 0.]))[0]] = density

    def loss_of(free_margin):
        torch.manual_seed(0)
        loss = RenderedDepthLoss('termination', margin=0.5, free_margin=free_margin,
                                 num_samples=512)
        rendered = make_rendered(1, targets=dict(distances=torch.tensor([3.75])))
        return loss(rendered, make_field(densities)).item()

    assert loss_of(None) - loss_of(2.5) == pytest.approx(2. * 0.5, rel=0.02)


def flat_road(height=0, density=50.):
    """Densities of a flat road in the layer through ``height``, and nothing else."""
    densities = torch.zeros(1, *GRID.volume_shape)
    densities[:, int((height + 1) / 0.5)] = density
    return densities.requires_grad_()


def test_flat_road_wants_one_full_layer():
    torch.manual_seed(0)
    loss = FlatRoadLoss(height=0.1, num_voxels=400)
    assert loss(None, make_field(flat_road())) < 1e-3
    for wrong in (flat_road(height=0.5), flat_road(height=-0.5), torch.zeros_like(flat_road())):
        assert loss(None, make_field(wrong)) > 5
    fog = flat_road(density=0.3)
    loss(None, make_field(fog)).backward()
    assert (fog.grad[:, 2] <= 0).all() and (fog.grad[:, 2] < 0).sum() > 100  # up in the road
    assert (fog.grad[:, [0, 1, 3]] == 0).all()  # and free space is free enough
    dense = torch.full_like(fog, 0.3, requires_grad=True)
    FlatRoadLoss(num_voxels=400)(None, make_field(dense)).backward()
    assert (dense.grad[:, [0, 1, 3]] >= 0).all() and (dense.grad[:, [0, 1, 3]] > 0).sum() > 50


def test_flat_road_decodes_only_what_it_draws():
    decoder = torch.nn.Linear(2, 1)
    seen = []
    decoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    field = VoxelField(torch.randn(2, 2, *GRID.volume_shape).abs(), None, GRID, decoder)
    FlatRoadLoss(num_voxels=20)(None, field).backward()
    assert len(seen) == 2 and max(seen) <= 40 and decoder.weight.grad.abs().sum() > 0


def test_flat_road_fades_in_training_and_remembers_where_it_was():
    loss, field = FlatRoadLoss(half_life=2., num_voxels=5000), make_field(flat_road(density=0.1))
    values = [float(loss(None, field).detach()) for _ in range(5)]
    assert values[2] == pytest.approx(values[0] / 2, rel=1e-3)
    assert values[4] == pytest.approx(values[0] / 4, rel=1e-3)
    resumed = FlatRoadLoss(half_life=2., num_voxels=5000)
    resumed.load_state_dict(loss.state_dict())
    resumed.eval()
    for _ in range(2):
        assert float(resumed(None, field).detach()) == pytest.approx(values[0] / 2**2.5, rel=1e-3)


def test_flat_road_outside_the_grid():
    with pytest.raises(ValueError, match=r'height=3.0 .* z is -1.0 ... 1.0 m'):
        FlatRoadLoss(height=3.)(None, make_field())
