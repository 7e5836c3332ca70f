"""Decoding where rays look: gathers, norms and recomputed decoders against the plain way."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from voxelrender import (
    KnownDensities, MarchConfig, RayBundle, UnitFeatures, VoxelGrid, decoded_before, decoding,
    gather_voxels, importance_samples, in_chunks, march_rays, place_samples, uniform_edges,
    unit_scales
)

DTYPE = torch.float64


def mlp(*widths):
    layers = []
    for fan_in, fan_out in zip(widths, widths[1:]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1]).to(DTYPE)


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 3), channels=st.integers(1, 4), chosen=st.integers(0, 12))
def test_gathered_voxels_are_the_volumes(batch, channels, chosen):
    volume = torch.randn(batch, channels, 2, 2, 3, dtype=DTYPE, requires_grad=True)
    ids = [torch.randperm(12)[:max(chosen - item, 0)] for item in range(batch)]
    rows = gather_voxels(volume, ids)
    for item in range(batch):
        assert torch.equal(rows[item], volume[item].flatten(1).t()[ids[item]])
    assert torch.autograd.gradcheck(lambda v: tuple(gather_voxels(v, ids)), (volume,))
    with pytest.raises(ValueError, match=f'{batch + 1} index tensors for a batch of {batch}'):
        gather_voxels(volume, ids + ids[:1])


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(0, 5), hidden=st.integers(1, 4), more=st.integers(0, 3),
       rank=st.integers(1, 4), biased=st.booleans())
def test_scales_are_one_over_the_norm(rows, hidden, more, rank, biased):
    """Also for weights of a lower rank than they have columns."""
    weight = torch.randn(hidden + more, rank, dtype=DTYPE) @ torch.randn(rank, hidden, dtype=DTYPE)
    bias = torch.randn(hidden + more, dtype=DTYPE) * biased
    leaves = [torch.rand(rows, hidden, dtype=DTYPE) + 0.1, weight, bias]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    plain = 1 / F.linear(*leaves).norm(dim=-1)
    scales = unit_scales(*leaves)
    assert torch.allclose(scales, plain, rtol=1e-7)
    expected = torch.autograd.grad(plain.sum(), leaves)
    for got, want in zip(torch.autograd.grad(scales.sum(), leaves), expected):
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-9 * want.abs().max().item()
                              if want.numel() else 0)


def test_a_feature_of_length_zero_is_finite():
    hidden = torch.zeros(2, 3, requires_grad=True)
    scales = unit_scales(hidden, torch.randn(4, 3), torch.zeros(4))
    assert torch.equal(scales, torch.full((2,), 1e12))
    scales.sum().backward()
    assert torch.isfinite(hidden.grad).all()


@pytest.mark.parametrize('embed_dims', [3, 9])
@pytest.mark.parametrize('recompute', [False, True])
def test_rendered_unit_features_are_weighted_sums(embed_dims, recompute):
    """Whether the last layer meets voxels or rays, values and gradients are the plain ones."""
    layers = mlp(4, 6, 5, embed_dims)
    feats = torch.randn(7, 4, dtype=DTYPE, requires_grad=True)
    weights = torch.rand(3, 7, dtype=DTYPE, requires_grad=True)
    leaves = [feats, weights, *layers.parameters()]
    plain = weights @ F.normalize(layers(feats), dim=-1)
    decoder = UnitFeatures(layers, chunk_size=3, recompute=recompute)
    values, factors = decoder.encode(feats)
    assert decoder.widens == (factors is not None) == (embed_dims == 9)
    assert values.shape == (7, 5 if embed_dims == 9 else 3)
    if factors is None:
        ours = decoder.project(weights @ values, None)
    else:
        ours = decoder.project((weights * factors) @ values, (weights * factors).sum(-1))
    assert torch.allclose(ours, plain, atol=1e-12)
    expected = torch.autograd.grad(plain.square().sum(), leaves)
    for got, want in zip(torch.autograd.grad(ours.square().sum(), leaves), expected):
        assert torch.allclose(got, want, atol=1e-10)


@pytest.mark.parametrize('count', [0, 1, 11])
def test_decoding_again_gives_the_plain_gradient(count, monkeypatch):
    monkeypatch.setattr(decoding, 'CHUNK_SIZE', 4)
    layers = mlp(3, 8, 1)
    feats = torch.randn(count, 3, dtype=DTYPE, requires_grad=True)
    factors = torch.randn(count, dtype=DTYPE)
    factors[2:5] = 0
    asked = []

    def decode(rows):
        asked.append(len(rows))
        return layers(rows)[:, 0]

    with torch.no_grad():
        values = decode(feats)
    asked.clear()
    connected = decoded_before(decode, values, feats, layers.parameters())
    assert torch.equal(connected, values) and not asked
    leaves = [feats, *layers.parameters()]
    got = torch.autograd.grad((connected * factors).sum(), leaves)
    assert sum(asked) == int(factors.count_nonzero()) and max(asked) <= 4
    expected = torch.autograd.grad((layers(feats)[:, 0] * factors).sum(), leaves)
    for mine, theirs in zip(got, expected):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_decoding_again_leaves_out_what_needs_no_gradient():
    layers = mlp(3, 4, 1).requires_grad_(False)
    layers[2].weight.requires_grad_()
    feats = torch.randn(5, 3, dtype=DTYPE)
    values = layers(feats)[:, 0]
    connected = decoded_before(lambda rows: layers(rows)[:, 0], values.detach(), feats,
                               layers.parameters())
    connected.sum().backward()
    expected, = torch.autograd.grad(values.sum(), [layers[2].weight])
    assert torch.allclose(layers[2].weight.grad, expected)
    assert layers[0].weight.grad is None


def test_chunks_of_several_outputs():
    feats = torch.randn(7, 2)
    both = in_chunks(lambda rows: (rows * 2, None, rows.sum(1)), feats, 3)
    assert torch.equal(both[0], feats * 2) and both[1] is None
    assert torch.equal(both[2], feats.sum(1))
    assert in_chunks(lambda rows: rows, feats[:0], 3).shape == (0, 2)


GRID = VoxelGrid((-3, -2, -1, 3, 2, 1), (0.5, 0.4, 0.25))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 20), spread=st.sampled_from([0.5, 1., 4., 1e6]),
       alignment=st.sampled_from(['centers', 'edges']), on_corners=st.booleans())
def test_touched_voxels_are_those_that_are_read(count, spread, alignment, on_corners):
    grid = VoxelGrid(GRID.point_cloud_range, GRID.voxel_size, alignment)
    points = torch.randn(count, 3, dtype=DTYPE) * spread
    if on_corners:
        points = torch.cat([points, torch.tensor([[0., 0., 0.], [-3., -2., -1.], [3., 2., 1.],
                                                  [-3.25, 0., 0.], [0., 2.19, 1.12]])])
    volume = torch.zeros(1, 1, *grid.volume_shape, dtype=DTYPE, requires_grad=True)
    grid.sample(volume, points[None].to(DTYPE)).sum().backward()
    touched = grid.touched(points)
    assert touched.shape == grid.volume_shape
    assert not (volume.grad[0, 0].ne(0) & ~touched).any()
    assert touched.sum() <= 8 * len(points)
    voxels, shares = grid.corners(points)
    ours = torch.zeros(grid.num_voxels, dtype=torch.bool)
    ours[voxels[shares > 0]] = True
    assert not (ours & ~touched.flatten()).any()


def surfaces():
    """A floor and a block, and rays that look at both, past them, and from outside."""
    densities = torch.rand(*GRID.volume_shape, dtype=DTYPE) * 0.1
    densities[:2] += 8.
    densities[:, 6:, 7:] += 20.
    directions = F.normalize(torch.randn(40, 3, dtype=DTYPE), dim=-1)
    origins = torch.randn(40, 3, dtype=DTYPE) * torch.tensor([1., 1., 0.3])
    origins[-3:] = torch.tensor([50., 0., 0.])
    return densities, RayBundle(origins, directions)


@pytest.mark.parametrize('samples', [1, 7, 64])
def test_proposals_behind_surfaces_are_never_read(samples):
    """Reading in stages, and stopping behind surfaces, places every sample where it was."""
    densities, rays = surfaces()
    config = MarchConfig(near=0.05, far=6., num_proposal_samples=23, num_samples=samples)
    asked = []

    def decode(voxels):
        asked.append(voxels)
        return densities.flatten()[voxels]

    known = KnownDensities(GRID, decode, densities)
    placed = place_samples(known, rays, config, True, torch.Generator().manual_seed(3))
    edges = uniform_edges(len(rays), 23, 0.05, 6., True, torch.Generator().manual_seed(3),
                          dtype=DTYPE)
    points = rays.points((edges[:, 1:] + edges[:, :-1]) / 2)
    proposals = GRID.sample(densities[None, None], points[None])[0, ..., 0]
    expected = importance_samples(edges, proposals, samples)
    assert torch.allclose(placed, expected, atol=1e-12)
    decoded = torch.cat(asked)
    assert len(decoded) == len(decoded.unique()) < GRID.touched(points).sum()
    complete = march_rays(GRID, densities[None], rays, config, True,
                          torch.Generator().manual_seed(3))
    assert torch.allclose(complete.t_mids, expected, atol=1e-12)


def test_known_densities_are_decoded_once():
    densities, rays = surfaces()
    counts = torch.zeros(GRID.num_voxels)

    def decode(voxels):
        counts[voxels] += 1
        return densities.flatten()[voxels]

    known = KnownDensities(GRID, decode, densities)
    points = rays.points(torch.rand(len(rays), 9, dtype=DTYPE) * 5)
    expected = GRID.sample(densities[None, None], points[None])[0, ..., 0]
    for _ in range(2):
        assert torch.allclose(known.read(points), expected, atol=1e-12)
    assert counts.max() == 1
    assert torch.equal(counts > 0, GRID.touched(points).flatten())
