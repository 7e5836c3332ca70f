"""Ray marching and sparse rendering: exact answers, odd rays, and what the package imports."""
import subprocess
import sys

import pytest
import torch

from voxelrender import (
    MarchConfig, RayBundle, RaySamples, VoxelGrid, march_rays, ray_voxel_weights, render_features
)

GRID = VoxelGrid((-8, -8, -2, 8, 8, 2), (0.5, 0.5, 0.5))
CONFIG = MarchConfig(near=0.05, far=20., num_proposal_samples=50, num_samples=100)


def along_x(*origins):
    directions = torch.tensor([[1., 0., 0.]]).repeat(len(origins), 1)
    return RayBundle(torch.tensor(origins, dtype=torch.float32).view(-1, 3), directions)


def wall_at(x_cell):
    densities = torch.zeros(1, *GRID.volume_shape)
    densities[..., x_cell:] = 200.
    return densities


def random_rays(count):
    directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return RayBundle(torch.randn(count, 3) * 2, directions)


def field():
    densities = torch.zeros(1, *GRID.volume_shape)
    densities[:, :2] = 3.
    densities[:, :, 20:, 20:] = 5.
    return densities + torch.rand(1, *GRID.volume_shape) * 0.1


def test_constant_density():
    densities = torch.full((1, *GRID.volume_shape), 0.3, dtype=torch.float64)
    config = MarchConfig(near=0., far=6., num_proposal_samples=20, num_samples=40)
    samples = march_rays(GRID, densities, along_x([-4., 0., 0.]), config, training=True)
    length = samples.t_ends[0, -1] - samples.t_starts[0, 0]
    assert length > 5.5
    assert torch.allclose(samples.opacities, 1 - torch.exp(-0.3 * length), atol=1e-12)


def test_an_opaque_wall_returns_its_distance_and_feature():
    rays = along_x([-6.25, 0.25, 0.25], [-2.25, 1.25, -0.75])
    samples = march_rays(GRID, wall_at(20), rays, CONFIG, training=False)
    assert torch.allclose(samples.opacities, torch.ones(2), atol=1e-5)
    # The field rises between the centres of cells 19 and 20, at x = 1.75 and 2.25.
    hits = rays.origins[:, 0] + samples.distances
    assert (hits > 1.75).all() and (hits < 2.25).all()
    pairs = ray_voxel_weights(GRID, rays, samples)
    seen = torch.zeros(GRID.num_voxels)
    seen.view(GRID.volume_shape)[..., 19:21] = 1.
    rendered = render_features(pairs, lambda voxels: seen[voxels][:, None])
    assert torch.allclose(rendered, torch.ones(2, 1), atol=1e-5)


def test_no_rays_stay_connected():
    densities = torch.rand(1, *GRID.volume_shape, requires_grad=True)
    decoder = torch.nn.Linear(3, 5)
    rays = RayBundle.empty()
    samples = march_rays(GRID, densities, rays, CONFIG, training=True)
    assert samples.weights.shape == (0, 100)
    assert samples.distances.shape == samples.opacities.shape == (0,)
    pairs = ray_voxel_weights(GRID, rays, samples)
    table = torch.randn(GRID.num_voxels, 3)
    rendered = render_features(pairs, lambda voxels: decoder(table[voxels]))
    assert rendered.shape == (0, 5)
    (rendered.sum() + samples.opacities.sum() + samples.distances.sum()).backward()
    assert densities.grad.abs().sum() == 0
    assert decoder.weight.grad.abs().sum() == 0


@pytest.mark.parametrize('training', [False, True])
def test_odd_rays_are_finite(training):
    rays = along_x([-30., 0., 0.], [100., 0., 0.], [0., 100., 0.], [-9., 7.9, 1.9], [7.9, 0., 0.])
    densities = field().requires_grad_()
    samples = march_rays(GRID, densities, rays, CONFIG, training)
    pairs = ray_voxel_weights(GRID, rays, samples)
    table = torch.randn(GRID.num_voxels, 4, requires_grad=True)
    rendered = render_features(pairs, lambda voxels: table[voxels])
    for name in ('t_starts', 't_ends', 't_mids', 'weights', 'opacities', 'distances'):
        assert torch.isfinite(getattr(samples, name)).all(), name
    assert (samples.t_ends >= samples.t_starts).all()
    (rendered.square().sum() + samples.distances.sum() + samples.opacities.sum()).backward()
    assert torch.isfinite(densities.grad).all() and torch.isfinite(table.grad).all()
    assert samples.opacities[:3].tolist() == [0, 0, 0]
    assert rendered[:3].abs().sum() == 0
    assert densities.grad.abs().sum() > 0


def test_one_sample_and_one_proposal():
    config = MarchConfig(near=0.05, far=10., num_proposal_samples=1, num_samples=1)
    densities = torch.full((1, *GRID.volume_shape), 0.2)
    samples = march_rays(GRID, densities, along_x([-5., 0., 0.]), config, training=True)
    assert samples.t_mids.item() == pytest.approx(5.025)
    assert samples.opacities.item() == pytest.approx(1 - 2.718281828 ** (-0.2 * 9.95), rel=1e-5)


def test_rays_together_equal_rays_alone():
    rays, densities = random_rays(9), field()
    table = torch.randn(GRID.num_voxels, 4)
    together = march_rays(GRID, densities, rays, CONFIG, training=False)
    rendered = render_features(ray_voxel_weights(GRID, rays, together), lambda v: table[v])
    for index, ray in enumerate(rays):
        alone = march_rays(GRID, densities, ray, CONFIG, training=False)
        assert torch.allclose(alone.weights[0], together.weights[index], atol=1e-6)
        feature = render_features(ray_voxel_weights(GRID, ray, alone), lambda v: table[v])
        assert torch.allclose(feature[0], rendered[index], atol=1e-5)


def test_the_generator_decides_the_jitter():
    rays, densities = random_rays(4), field()
    draws = [march_rays(GRID, densities, rays, CONFIG, True, torch.Generator().manual_seed(seed))
             for seed in (1, 1, 2)]
    assert torch.equal(draws[0].t_mids, draws[1].t_mids)
    assert not torch.equal(draws[0].t_mids, draws[2].t_mids)
    still = [march_rays(GRID, densities, rays, CONFIG, False).t_mids for _ in range(2)]
    assert torch.equal(*still)


def test_marching_under_autocast_equals_full_precision():
    rays, densities = random_rays(5), field()
    plain = march_rays(GRID, densities, rays, CONFIG, False)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = march_rays(GRID, densities, rays, CONFIG, False)
    assert torch.equal(plain.weights, cast.weights)


def test_pairs_are_sorted_unique_and_carry_all_weight():
    rays = random_rays(12)
    samples = march_rays(GRID, field(), rays, CONFIG, False)
    pairs = ray_voxel_weights(GRID, rays, samples)
    keys = pairs.ray_ids * GRID.num_voxels + pairs.voxel_ids
    assert (keys.diff() > 0).all()
    inside = GRID.sample(torch.ones(1, 1, *GRID.volume_shape), rays.points(samples.t_mids)[None])
    carried = torch.zeros(12).index_add(0, pairs.ray_ids, pairs.weights)
    assert torch.allclose(carried, (samples.weights * inside[0, ..., 0]).sum(-1), atol=1e-5)


def test_the_threshold_drops_samples_and_zero_is_exact():
    rays = random_rays(12)
    samples = march_rays(GRID, field(), rays, CONFIG, False)
    everything = ray_voxel_weights(GRID, rays, samples)
    pruned = ray_voxel_weights(GRID, rays, samples, weight_threshold=0.01)
    assert 0 < len(pruned) < len(everything)
    lost = everything.weights.sum() - pruned.weights.sum()
    assert 0 < lost <= samples.weights[samples.weights <= 0.01].sum() + 1e-5
    assert len(ray_voxel_weights(GRID, rays, samples, weight_threshold=2.)) == 0


def test_a_sample_of_weight_zero_keeps_its_gradient():
    densities = torch.zeros(1, *GRID.volume_shape, requires_grad=True)
    rays = along_x([-6., 0., 0.])
    # Nothing stops the light: all samples fall into the last bin, which lies inside the grid.
    config = MarchConfig(near=0.05, far=10.)
    samples = march_rays(GRID, densities, rays, config, False)
    table = torch.ones(GRID.num_voxels, 1)
    pairs = ray_voxel_weights(GRID, rays, samples)
    render_features(pairs, lambda voxels: table[voxels]).sum().backward()
    assert densities.grad.sum() > 0
    with torch.no_grad():
        samples = march_rays(GRID, densities, rays, config, False)
        assert len(ray_voxel_weights(GRID, rays, samples)) == 0


def test_only_weighed_voxels_are_decoded():
    rays = along_x([-6.25, 0.25, 0.25])
    samples = march_rays(GRID, wall_at(20), rays, CONFIG, False)
    asked = []

    def decode(voxels):
        asked.append(voxels)
        return torch.ones(len(voxels), 2)

    render_features(ray_voxel_weights(GRID, rays, samples), decode)
    assert len(asked) == 1
    assert len(asked[0]) == len(asked[0].unique()) < 60


def test_errors_name_the_shape():
    rays = along_x([0., 0., 0.])
    with pytest.raises(ValueError, match=r'\(1, 8, 32, 32\)'):
        march_rays(GRID, torch.zeros(1, 32, 32, 8), rays, CONFIG, False)
    with pytest.raises(ValueError, match='near < far'):
        MarchConfig(near=2., far=1.)
    with pytest.raises(ValueError, match='at least 1'):
        MarchConfig(num_samples=0)
    samples = march_rays(GRID, field(), rays, CONFIG, False)
    pairs = ray_voxel_weights(GRID, rays, samples)
    with pytest.raises(ValueError, match='decode returned shape'):
        render_features(pairs, lambda voxels: torch.ones(3, 3))
    assert isinstance(samples, RaySamples)


def test_voxelrender_stands_alone():
    code = ('import sys, voxelrender, voxelrender.ops\n'
            "bad = [m for m in sys.modules if m.split('.')[0] in "
            "('langocc', 'mmengine', 'mmcv', 'mmdet', 'mmdet3d', 'triton')]\n"
            'sys.exit(str(bad) if bad else 0)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
