"""Sampling, compositing and sparse rendering against naive float64 loops and the dense way."""
import math

import pytest
import torch
import torch.nn.functional as F

from voxelrender import (
    MarchConfig, RayBundle, VoxelGrid, accumulate, edges_from_mids, importance_samples, march_rays,
    ray_voxel_weights, render_features, weights_from_densities
)

DTYPE = torch.float64


def naive_trilinear(grid, volume, point):
    """Value (C,) of a volume (C, Z, Y, X) at one point, zero outside."""
    low, high = grid.point_cloud_range[:3], grid.point_cloud_range[3:]
    place = []
    for axis in range(3):
        cells = grid.grid_shape[axis]
        share = (point[axis].item() - low[axis]) / (high[axis] - low[axis])
        place.append(share * (cells - 1) if grid.alignment == 'edges' else share * cells - 0.5)
    base = [math.floor(value) for value in place]
    total = torch.zeros(volume.shape[0], dtype=DTYPE)
    for dx in (0, 1):
        for dy in (0, 1):
            for dz in (0, 1):
                cell = [base[0] + dx, base[1] + dy, base[2] + dz]
                if any(not 0 <= cell[i] < grid.grid_shape[i] for i in range(3)):
                    continue
                share = 1.
                for axis in range(3):
                    share *= 1 - abs(place[axis] - cell[axis])
                total = total + share * volume[:, cell[2], cell[1], cell[0]]
    return total


def naive_importance(edges, sigmas, count):
    """The paper's rule for one ray, as lists."""
    bins, passed, cdf = len(sigmas), 0., []
    for index in range(bins):
        cdf.append(1 - math.exp(-passed))
        passed += sigmas[index] * (edges[index + 1] - edges[index])
    cdf.append(1.)
    found = []
    for index in range(count):
        u = (index + 0.5) / count
        low = max(k for k in range(bins) if cdf[k] <= u)
        share = (u - cdf[low]) / (cdf[low + 1] - cdf[low])
        found.append(edges[low] + share * (edges[low + 1] - edges[low]))
    return found


def naive_weights(sigmas, starts, ends):
    """Weights of one ray by a running product."""
    trans, weights = 1., []
    for sigma, start, end in zip(sigmas, starts, ends):
        alpha = 1 - math.exp(-sigma * (end - start))
        weights.append(trans * alpha)
        trans *= 1 - alpha
    return weights


def scene(alignment='centers', dtype=DTYPE):
    """A small grid with a floor and a block, and rays of every kind."""
    grid = VoxelGrid((-3, -2, -1, 3, 2, 1), (0.5, 0.4, 0.25), alignment)
    densities = torch.rand(1, *grid.volume_shape, dtype=dtype) * 0.2
    densities[:, :2] += 4.
    densities[:, :, 6:, 7:] += 6.
    directions = F.normalize(torch.randn(14, 3, dtype=dtype), dim=-1)
    origins = torch.randn(14, 3, dtype=dtype) * torch.tensor([1., 1., 0.3])
    axes = torch.eye(3, dtype=dtype)
    through = torch.tensor([[-4., 0., 0.], [0., -3., 0.5], [0.5, 0.4, -2.]], dtype=dtype)
    diagonal = F.normalize(torch.ones(1, 3, dtype=dtype))
    outside = torch.tensor([[50., 0., 0.], [-3., -2., -1.]], dtype=dtype)
    rays = RayBundle(torch.cat([origins, through, outside]),
                     torch.cat([directions, axes, axes[:1], diagonal]))
    return grid, densities, rays.validate()


CONFIG = MarchConfig(near=0.05, far=5., num_proposal_samples=12, num_samples=17)


@pytest.mark.parametrize('alignment', ['centers', 'edges'])
def test_trilinear_sampling(alignment):
    grid, densities, _ = scene(alignment)
    volume = torch.cat([densities, torch.randn(2, *grid.volume_shape, dtype=DTYPE)])
    points = (torch.rand(60, 3, dtype=DTYPE) * 2.4 - 1.2) * torch.tensor([3., 2., 1.])
    points = torch.cat([points, grid.voxel_centers(dtype=DTYPE).view(-1, 3)[::97]])
    naive = torch.stack([naive_trilinear(grid, volume, point) for point in points])
    assert torch.allclose(grid.sample(volume[None], points[None])[0], naive, atol=1e-12)
    indices, coefficients = grid.corners(points)
    gathered = volume.flatten(1).T[indices]
    assert torch.allclose((coefficients[..., None] * gathered).sum(1), naive, atol=1e-12)


@pytest.mark.parametrize('bins, count', [(1, 1), (1, 5), (7, 1), (50, 100)])
def test_importance_sampling(bins, count):
    edges = torch.rand(6, bins + 1, dtype=DTYPE).cumsum(-1)
    sigmas = torch.rand(6, bins, dtype=DTYPE) ** 6 * 8
    sigmas[0] = 0
    sigmas[1, bins // 2] = 1e5
    found = importance_samples(edges, sigmas, count)
    for ray in range(6):
        naive = naive_importance(edges[ray].tolist(), sigmas[ray].tolist(), count)
        assert torch.allclose(found[ray], torch.tensor(naive, dtype=DTYPE), atol=1e-9)
    single = importance_samples(edges.float(), sigmas.float(), count)
    assert torch.allclose(single.double(), found, atol=0.05)


def test_compositing():
    mids = torch.rand(5, 9, dtype=DTYPE).cumsum(-1)
    starts, ends = edges_from_mids(mids, 0.05, 4.)
    sigmas, values = torch.rand(5, 9, dtype=DTYPE) * 3, torch.randn(5, 9, 4, dtype=DTYPE)
    weights, _ = weights_from_densities(sigmas, starts, ends)
    total = accumulate(weights, values)
    for ray in range(5):
        naive = naive_weights(sigmas[ray].tolist(), starts[ray].tolist(), ends[ray].tolist())
        assert torch.allclose(weights[ray], torch.tensor(naive, dtype=DTYPE), atol=1e-12)
        summed = sum(weight * value for weight, value in zip(naive, values[ray]))
        assert torch.allclose(total[ray], summed, atol=1e-12)


def test_compositing_gradients():
    edges = torch.rand(3, 7, dtype=DTYPE).cumsum(-1)
    sigmas = (torch.rand(3, 6, dtype=DTYPE) * 2).requires_grad_()
    values = torch.randn(3, 6, 2, dtype=DTYPE, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s, v: accumulate(weights_from_densities(s, edges[:, :-1], edges[:, 1:])[0], v),
        (sigmas, values))


def test_marching():
    grid, densities, rays = scene()
    samples = march_rays(grid, densities, rays, CONFIG, training=False)
    step = (CONFIG.far - CONFIG.near) / CONFIG.num_proposal_samples
    edges = [CONFIG.near + step * i for i in range(CONFIG.num_proposal_samples + 1)]
    for ray in range(len(rays)):
        def density(distance):
            point = rays.origins[ray] + distance * rays.directions[ray]
            return naive_trilinear(grid, densities, point).item()
        proposals = [density((a + b) / 2) for a, b in zip(edges, edges[1:])]
        mids = naive_importance(edges, proposals, CONFIG.num_samples)
        inner = [(a + b) / 2 for a, b in zip(mids, mids[1:])]
        starts = [max(2 * mids[0] - inner[0], CONFIG.near)] + inner
        ends = inner + [min(2 * mids[-1] - inner[-1], CONFIG.far)]
        weights = naive_weights([density(mid) for mid in mids], starts, ends)
        assert torch.allclose(samples.t_mids[ray], torch.tensor(mids, dtype=DTYPE), atol=1e-9)
        assert torch.allclose(samples.t_starts[ray], torch.tensor(starts, dtype=DTYPE), atol=1e-9)
        assert torch.allclose(samples.weights[ray], torch.tensor(weights, dtype=DTYPE), atol=1e-9)
        mean = sum(w * t for w, t in zip(weights, mids)) / max(sum(weights), 1e-6)
        assert samples.distances[ray].item() == pytest.approx(mean, abs=1e-9)


def test_marching_gradient():
    grid = VoxelGrid((-1, -1, -1, 1, 1, 1), (1., 1., 0.5))
    densities = (torch.rand(1, *grid.volume_shape, dtype=DTYPE) + 0.1).requires_grad_()
    rays = RayBundle(torch.tensor([[-2., 0.1, 0.2], [0.3, -0.2, -0.9]], dtype=DTYPE),
                     F.normalize(torch.tensor([[1., 0.2, -0.1], [0.1, 0.3, 1.]], dtype=DTYPE)))
    config = MarchConfig(near=0.05, far=3.5, num_proposal_samples=6, num_samples=8)
    fixed = march_rays(grid, densities, rays, config, False)

    def weights(volume):
        sigmas = grid.sample(volume[None], rays.points(fixed.t_mids)[None])[0, ..., 0]
        return weights_from_densities(sigmas, fixed.t_starts, fixed.t_ends)[0]

    assert torch.autograd.gradcheck(weights, (densities,))
    expected, = torch.autograd.grad(weights(densities).square().sum(), densities)
    got, = torch.autograd.grad(fixed.weights.square().sum(), densities)
    assert torch.allclose(got, expected, atol=1e-12)


def render_both_ways(alignment, dtype=DTYPE, threshold=0.):
    """(value, gradients) of the paper's loss by the dense way and by ours."""
    torch.manual_seed(4)
    grid, densities, rays = scene(alignment, dtype)
    voxel_feats = torch.randn(grid.num_voxels, 6, dtype=dtype)
    target = F.normalize(torch.randn(len(rays), 5, dtype=dtype), dim=-1)
    decoder = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    decoder = decoder.to(dtype)
    results = []
    for sparse in (False, True):
        leaves = [densities.clone().requires_grad_(), voxel_feats.clone().requires_grad_()]
        decoder.zero_grad()
        samples = march_rays(grid, leaves[0], rays, CONFIG, True, torch.Generator().manual_seed(1))
        if sparse:
            pairs = ray_voxel_weights(grid, rays, samples, threshold)
            rendered = render_features(
                pairs, lambda voxels: F.normalize(decoder(leaves[1][voxels]), dim=-1))
        else:
            decoded = F.normalize(decoder(leaves[1]), dim=-1)
            volume = decoded.T.reshape(1, 5, *grid.volume_shape)
            sampled = grid.sample(volume, rays.points(samples.t_mids)[None])[0]
            rendered = accumulate(samples.weights, sampled)
        loss = (F.normalize(rendered, dim=-1) - target).square().sum(-1).mean()
        loss = loss + samples.distances.mean() + samples.opacities.mean()
        loss.backward()
        grads = [leaf.grad for leaf in leaves] + [p.grad.clone() for p in decoder.parameters()]
        results.append((rendered.detach(), loss.detach(), grads))
    return results


@pytest.mark.parametrize('alignment', ['centers', 'edges'])
def test_sparse_rendering_equals_dense(alignment):
    dense, ours = render_both_ways(alignment)
    assert torch.allclose(ours[0], dense[0], atol=1e-9)
    assert torch.allclose(ours[1], dense[1], atol=1e-9)
    assert dense[2][0].abs().max() > 1e-3 and dense[2][2].abs().max() > 1e-3
    for got, expected in zip(ours[2], dense[2]):
        assert torch.allclose(got, expected, atol=1e-9)


def test_sparse_rendering_equals_dense_in_single_precision():
    dense, ours = render_both_ways('centers', torch.float32)
    assert torch.allclose(ours[0], dense[0], atol=1e-5)
    for got, expected in zip(ours[2], dense[2]):
        assert torch.allclose(got, expected, atol=1e-4)


def test_a_threshold_changes_little_but_something():
    dense, ours = render_both_ways('centers', threshold=0.02)
    difference = (ours[0] - dense[0]).abs().max()
    assert 1e-6 < difference < 0.2


def test_pairs_against_a_dictionary():
    grid, densities, rays = scene()
    samples = march_rays(grid, densities, rays, CONFIG, training=False)
    table = {}
    for ray in range(len(rays)):
        for sample in range(CONFIG.num_samples):
            point = rays.origins[ray] + samples.t_mids[ray, sample] * rays.directions[ray]
            indices, coefficients = grid.corners(point[None])
            for voxel, share in zip(indices[0].tolist(), coefficients[0].tolist()):
                key = (ray, voxel)
                table[key] = table.get(key, 0.) + share * samples.weights[ray, sample].item()
    table = {key: value for key, value in table.items() if value > 0}
    pairs = ray_voxel_weights(grid, rays, samples)
    got = dict(zip(zip(pairs.ray_ids.tolist(), pairs.voxel_ids.tolist()), pairs.weights.tolist()))
    got = {key: value for key, value in got.items() if value > 0}
    assert got.keys() == table.keys()
    assert all(got[key] == pytest.approx(table[key], abs=1e-12) for key in got)
