"""Features made where rays look, against those of the whole volume."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from voxelrender import (
    ConvolvedFeatures, LayeredFeatures, UpsampledFeatures, VoxelFeatures, decoding, features
)

DTYPE = torch.float64


def make(batch, channels, shape, out=5):
    inputs = torch.randn(batch, channels, *shape, dtype=DTYPE, requires_grad=True)
    return inputs, nn.Conv3d(channels, out, 3, padding=1).to(DTYPE)


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(1, 3), channels=st.integers(1, 3),
       shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)),
       share=st.sampled_from([0., 0.3, 1.]), chunk=st.sampled_from([3, 1000]))
def test_chosen_voxels_equal_the_whole_convolution(batch, channels, shape, share, chunk):
    inputs, convolution = make(batch, channels, shape)
    whole = torch.relu(convolution(inputs)).flatten(2)
    voxels = whole.shape[2]
    ids = [torch.randperm(voxels)[:round(voxels * share)] for _ in range(batch)]
    saved, features.CHUNK_SIZE = features.CHUNK_SIZE, chunk
    try:
        ours = ConvolvedFeatures(inputs, convolution)
        rows = ours.rows(ids)
        expected = [whole[item][:, ids[item]].t() for item in range(batch)]
        leaves = [inputs, *convolution.parameters()]
        weight = torch.linspace(-1, 2, 5, dtype=DTYPE)
        got = torch.autograd.grad(sum((r * weight).square().sum() for r in rows), leaves)
    finally:
        features.CHUNK_SIZE = saved
    want = torch.autograd.grad(sum((r * weight).square().sum() for r in expected), leaves)
    for mine, theirs in zip([*rows, *got], [*expected, *want]):
        assert torch.allclose(mine, theirs, atol=1e-10)
    with torch.no_grad():
        for item in range(batch):
            assert torch.allclose(ours.gather(item, ids[item]), expected[item], atol=1e-10)
    assert len(ours) == batch and ours.volume_shape == shape


@pytest.mark.parametrize('recompute', [False, True])
def test_the_whole_volume_is_made_once_and_then_read(recompute):
    inputs, convolution = make(2, 3, (2, 3, 4))
    calls = []
    convolution.register_forward_hook(lambda *_: calls.append(1))
    ours = ConvolvedFeatures(inputs, convolution, recompute=recompute)
    ids = [torch.tensor([0, 23]), torch.tensor([5])]
    with torch.no_grad():
        ours.gather(0, ids[0])
        assert not calls
        volume = ours.volume()
        assert ours.volume() is volume and len(calls) == 1
        assert torch.equal(ours.gather(1, ids[1]), volume[1].flatten(1).t()[ids[1]])
    # Without gradient then, with it now.
    rows = ours.rows(ids)
    assert rows[0].requires_grad and len(calls) == 1
    volume = ours.volume()
    assert volume.requires_grad and len(calls) == 2
    assert torch.allclose(ours.rows(ids)[0], rows[0])
    first, = torch.autograd.grad(rows[0].sum(), [inputs])
    second, = torch.autograd.grad(ours.rows(ids)[0].sum(), [inputs])
    assert torch.allclose(first, second, atol=1e-12)
    assert len(calls) == (3 if recompute else 2)


@settings(deadline=None, max_examples=40)
@given(batch=st.integers(1, 3), channels=st.integers(1, 3),
       shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)),
       factors=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
       share=st.sampled_from([0., 0.3, 1.]))
def test_chosen_voxels_equal_the_whole_upsampling(batch, channels, shape, factors, share):
    coarse = torch.randn(batch, channels, *shape, dtype=DTYPE, requires_grad=True)
    whole = nn.Upsample(scale_factor=factors, mode='trilinear')(coarse)
    ours = UpsampledFeatures(coarse, factors)
    assert len(ours) == batch and ours.volume_shape == tuple(whole.shape[2:])
    voxels = whole[0, 0].numel()
    ids = [torch.randperm(voxels)[:round(voxels * share)] for _ in range(batch)]
    rows = ours.rows(ids)
    expected = [whole[item].flatten(1)[:, ids[item]].t() for item in range(batch)]
    weight = torch.linspace(-1, 2, channels, dtype=DTYPE)
    got, = torch.autograd.grad(sum((r * weight).square().sum() for r in rows), [coarse])
    want, = torch.autograd.grad(sum((r * weight).square().sum() for r in expected), [coarse])
    for mine, theirs in zip([*rows, got, ours.volume()], [*expected, want, whole]):
        assert torch.allclose(mine, theirs, atol=1e-10)
    with torch.no_grad():
        for item in range(batch):
            assert torch.allclose(ours.gather(item, ids[item]), expected[item], atol=1e-10)


def test_places_are_exact_for_features_in_half_precision():
    coarse = torch.arange(100, dtype=torch.bfloat16)[None, None, None, None]
    rows = UpsampledFeatures(coarse, (1, 1, 2)).gather(0, torch.arange(200))
    expected = nn.Upsample(scale_factor=(1, 1, 2), mode='trilinear')(coarse.float())
    assert (rows.float()[:, 0] - expected.flatten()).abs().max() <= 0.25  # spacing of bf16 at 64


@pytest.mark.parametrize('factors', [(2, 2), (2, 0, 1), (1.5, 2, 2)])
def test_other_factors_are_refused(factors):
    with pytest.raises(ValueError, match='three whole numbers'):
        UpsampledFeatures(torch.zeros(1, 1, 2, 2, 2), factors)


@pytest.mark.parametrize('whole', [False, True])
def test_layers_are_appended(whole):
    volume = torch.randn(2, 3, 4, 2, 5, dtype=DTYPE, requires_grad=True)
    layers = torch.randn(4, 2, dtype=DTYPE)
    ours = LayeredFeatures(VoxelFeatures(volume), layers)
    assert len(ours) == 2 and ours.volume_shape == (4, 2, 5) and ours.like is volume
    expected = torch.empty(2, 5, 4, 2, 5, dtype=DTYPE)
    for z in range(4):
        expected[:, :3, z] = volume[:, :, z]
        expected[:, 3:, z] = layers[z][:, None, None]
    if whole:
        assert torch.equal(ours.volume(), expected)
    ids = [torch.randperm(40)[:17], torch.randperm(40)[:0]]
    rows = ours.rows(ids)
    for item in range(2):
        wanted = expected[item].flatten(1)[:, ids[item]].t()
        assert torch.equal(rows[item], wanted)
        assert torch.equal(ours.gather(item, ids[item]), wanted)
    rows[0].sum().backward()
    assert volume.grad[0].sum() == 17 * 3 and volume.grad[1].sum() == 0


def test_layers_must_fit_the_grid():
    with pytest.raises(ValueError, match='3 layers for features of'):
        LayeredFeatures(VoxelFeatures(torch.zeros(1, 1, 4, 2, 2)), torch.zeros(3, 2))


def test_features_that_are_there():
    volume = torch.randn(2, 3, 2, 2, 2, requires_grad=True)
    ours = VoxelFeatures(volume)
    assert len(ours) == 2 and ours.volume() is volume and ours.volume_shape == (2, 2, 2)
    assert torch.equal(ours.gather(1, torch.tensor([7, 0]))[1], volume[1, :, 0, 0, 0])
    assert [len(rows) for rows in ours.rows([torch.tensor([1]), torch.tensor([2, 3])])] == [1, 2]
    assert decoding.CHUNK_SIZE == features.CHUNK_SIZE


def test_another_convolution_is_refused():
    with pytest.raises(ValueError, match=r"'stride': \(2, 2, 2\).*expected.*\(1, 1, 1\)"):
        ConvolvedFeatures(torch.zeros(1, 2, 4, 4, 4), nn.Conv3d(2, 3, 3, stride=2, padding=1))


@pytest.mark.parametrize('batch, channels_last', [(1, False), (1, True), (2, False), (2, True)])
def test_a_gradient_follows_what_was_read_without_one(batch, channels_last):
    """Rows that are a view of the source: proposals read them before they are trained on."""
    inputs = torch.randn(batch, 3, 2, 3, 4, dtype=DTYPE, requires_grad=True)
    source = 2 * inputs
    if channels_last:
        source = source.to(memory_format=torch.channels_last_3d)
    ours = UpsampledFeatures(source, (2, 1, 2))
    ids = [torch.arange(7)] * batch
    with torch.no_grad():
        before = ours.gather(0, ids[0])
    rows = ours.rows(ids)
    assert torch.equal(rows[0].detach(), before)
    got, = torch.autograd.grad(sum(r.square().sum() for r in rows), inputs)
    whole = torch.nn.functional.interpolate(2 * inputs, scale_factor=(2, 1, 2), mode='trilinear')
    want, = torch.autograd.grad(whole.flatten(2)[..., :7].square().sum(), inputs)
    assert want.any() and torch.allclose(got, want, atol=1e-10)
