"""Rendering a field that decodes where rays look, against decoding and interpolating everything."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from voxelrender import (
    FieldRenderer, MarchConfig, RayBundle, RayDecoder, UnitFeatures, VoxelField, VoxelGrid,
    accumulate, march_rays
)

DTYPE = torch.float64
CONFIG = MarchConfig(near=0.05, far=5., num_proposal_samples=12, num_samples=17)


class Density(nn.Module):
    """Channel 0 decides where surfaces are."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, 1)

    def forward(self, feats):
        return 6 * torch.sigmoid(self.linear(feats) + 8 * feats[:, :1] - 4)


class Case:
    """A batch of fields with a floor and a block, rays of every kind, three decoders."""

    def __init__(self, batch=2, rays=14, alignment='centers', dtype=DTYPE, seed=0):
        torch.manual_seed(seed)
        self.grid = VoxelGrid((-3, -2, -1, 3, 2, 1), (0.5, 0.4, 0.25), alignment)
        feats = torch.randn(batch, 6, *self.grid.volume_shape, dtype=dtype)
        feats[:, 0] = 0
        feats[:, 0, :2] = 1
        feats[:, 0, :, 6:, 7:] = 1
        self.feats = feats.requires_grad_()
        self.density = Density(6).to(dtype)
        self.language = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 9)).to(dtype)
        self.narrow = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype)
        self.rays = [self._rays(rays, dtype) for _ in range(batch)]

    @staticmethod
    def _rays(count, dtype):
        directions = F.normalize(torch.randn(count, 3, dtype=dtype), dim=-1)
        origins = torch.randn(count, 3, dtype=dtype) * torch.tensor([1., 1., 0.3])
        axes = torch.eye(3, dtype=dtype)
        through = torch.tensor([[-4., 0., 0.], [0., -3., 0.5], [0.5, 0.4, -2.]], dtype=dtype)
        corner = torch.tensor([[50., 0., 0.], [-3., -2., -1.]], dtype=dtype)
        diagonal = F.normalize(torch.ones(1, 3, dtype=dtype))
        return RayBundle(torch.cat([origins, through, corner]),
                         torch.cat([directions, axes, axes[:1], diagonal]))

    def leaves(self):
        return [self.feats, *self.density.parameters(), *self.language.parameters(),
                *self.narrow.parameters()]

    def decoders(self):
        return dict(lang=UnitFeatures(self.language), narrow=UnitFeatures(self.narrow),
                    plain=RayDecoder(self.narrow))

    def field(self):
        return VoxelField(self.feats, None, self.grid, self.density)

    def ours(self, threshold=0., chunk=8192, field=None, decoders=None):
        renderer = FieldRenderer(CONFIG, threshold, chunk)
        decoders = self.decoders() if decoders is None else decoders
        return renderer(field or self.field(), self.rays, decoders)

    def dense(self):
        """Outputs, distances and opacities of all rays, everything decoded and interpolated."""
        outputs, samples = [], []
        for feats, rays in zip(self.feats, self.rays):
            rows = feats.flatten(1).t()
            densities = self.density(rows).view(1, *self.grid.volume_shape)
            marched = march_rays(self.grid, densities, rays, CONFIG, False)
            rendered = []
            for values in (F.normalize(self.language(rows), dim=-1),
                           F.normalize(self.narrow(rows), dim=-1), self.narrow(rows)):
                volume = values.t().reshape(1, -1, *self.grid.volume_shape)
                sampled = self.grid.sample(volume, rays.points(marched.t_mids)[None])[0]
                rendered.append(accumulate(marched.weights, sampled))
            outputs.append(rendered)
            samples.append(marched)
        names = ('lang', 'narrow', 'plain')
        return (dict(zip(names, (torch.cat(parts) for parts in zip(*outputs)))),
                torch.cat([marched.distances for marched in samples]),
                torch.cat([marched.opacities for marched in samples]))


def loss_of(outputs, distances, opacities):
    """Something that every output and every weight adds to, unevenly."""
    total = distances.square().mean() + opacities.sin().mean()
    for output in outputs.values():
        total = total + (output * torch.linspace(-1, 2, output.shape[1])).square().mean()
    return total


def parts(rendered):
    return rendered.outputs, rendered.distances, rendered.opacities


@pytest.mark.parametrize('alignment', ['centers', 'edges'])
@pytest.mark.parametrize('chunk', [8192, 7])
def test_exact_rendering_equals_dense(alignment, chunk):
    case = Case(alignment=alignment)
    ours, dense = parts(case.ours(chunk=chunk)), case.dense()
    for name, expected in dense[0].items():
        assert torch.allclose(ours[0][name], expected, atol=1e-9), name
    assert torch.allclose(ours[1], dense[1]) and torch.allclose(ours[2], dense[2])
    expected = torch.autograd.grad(loss_of(*dense), case.leaves())
    for got, want in zip(torch.autograd.grad(loss_of(*ours), case.leaves()), expected):
        assert torch.allclose(got, want, atol=1e-9)
        assert want.abs().max() > 1e-4


@settings(deadline=None, max_examples=15)
@given(batch=st.integers(1, 3), rays=st.integers(0, 6), seed=st.integers(0, 1000),
       chunk=st.integers(1, 9))
def test_any_batch_and_chunk_equals_dense(batch, rays, seed, chunk):
    case = Case(batch, rays, seed=seed)
    ours, dense = parts(case.ours(chunk=chunk)), case.dense()
    assert torch.allclose(ours[0]['lang'], dense[0]['lang'], atol=1e-9)
    expected = torch.autograd.grad(loss_of(*dense), case.leaves())
    for got, want in zip(torch.autograd.grad(loss_of(*ours), case.leaves()), expected):
        assert torch.allclose(got, want, atol=1e-9)


def test_single_precision():
    case = Case(dtype=torch.float32)
    ours, dense = parts(case.ours()), case.dense()
    assert torch.allclose(ours[0]['lang'], dense[0]['lang'], atol=1e-5)
    expected = torch.autograd.grad(loss_of(*dense), case.leaves())
    for got, want in zip(torch.autograd.grad(loss_of(*ours), case.leaves()), expected):
        assert torch.allclose(got, want, atol=1e-3 * want.abs().max().item())


def test_a_field_that_knows_its_densities_renders_the_same():
    """With the volume decoded before (a loss needs it), the gradient passes through it."""
    case = Case()
    lazy, full = case.field(), case.field()
    assert full.densities.requires_grad and full.has_densities and not lazy.has_densities
    given = VoxelField(case.feats, full.densities, case.grid)
    losses = [loss_of(*parts(case.ours(field=field))) for field in (lazy, full, given)]
    grads = [torch.autograd.grad(loss, case.leaves(), retain_graph=True) for loss in losses]
    for loss, found in zip(losses[1:], grads[1:]):
        assert torch.allclose(loss, losses[0], atol=1e-12)
        for got, want in zip(found, grads[0]):
            assert torch.allclose(got, want, atol=1e-9)


def test_densities_without_gradient_do_not_cut_a_later_gradient():
    case = Case()
    field = case.field()
    with torch.no_grad():
        field.densities
        assert field.has_densities
    assert not field.has_densities
    expected = torch.autograd.grad(loss_of(*case.dense()), case.leaves())
    got = torch.autograd.grad(loss_of(*parts(case.ours(field=field))), case.leaves())
    assert torch.allclose(got[1], expected[1], atol=1e-9)
    assert field.densities.requires_grad


def test_pruning_changes_little_and_only_what_it_may():
    case = Case()
    exact, pruned = case.ours(), case.ours(threshold=0.004)
    assert torch.equal(exact.weights, pruned.weights)
    assert torch.equal(exact.distances, pruned.distances)
    error = (exact.outputs['lang'] - pruned.outputs['lang']).abs().max()
    assert 1e-6 < error < 0.2
    grads = [torch.cat([grad.flatten() for grad in torch.autograd.grad(
        loss_of(*parts(rendered)), case.leaves())]) for rendered in (exact, pruned)]
    assert F.cosine_similarity(*grads, dim=0) > 0.99 and not torch.allclose(*grads)
    voxels = [grad[:case.feats.numel()].count_nonzero() for grad in grads]
    assert 0 < voxels[1] < voxels[0]


def test_what_pruning_leaves_is_the_same_in_chunks():
    case = Case()
    whole, chunks = (parts(case.ours(0.02, chunk)) for chunk in (8192, 5))
    assert torch.allclose(whole[0]['lang'], chunks[0]['lang'], atol=1e-12)
    expected = torch.autograd.grad(loss_of(*whole), case.leaves())
    for got, want in zip(torch.autograd.grad(loss_of(*chunks), case.leaves()), expected):
        assert torch.allclose(got, want, atol=1e-10)


def test_everything_pruned_is_an_empty_rendering():
    case = Case()
    rendered = case.ours(threshold=2.)
    assert not rendered.outputs['lang'].any() and rendered.opacities.any()
    loss_of(*parts(rendered)).backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in case.leaves())


def test_geometry_alone_needs_no_decoder():
    case = Case()
    rendered = case.ours(decoders={})
    assert rendered.outputs == {}
    loss = rendered.distances.square().mean()
    expected = torch.autograd.grad(case.dense()[1].square().mean(), case.density.parameters())
    for got, want in zip(torch.autograd.grad(loss, case.density.parameters()), expected):
        assert torch.allclose(got, want, atol=1e-9)
    with torch.no_grad():
        assert torch.allclose(case.ours(decoders={}).distances, rendered.distances)


def test_no_gradient_decodes_each_voxel_once():
    case = Case(batch=1)
    asked = []
    case.density.register_forward_hook(lambda module, inputs, output: asked.append(len(output)))
    field = case.field()
    with torch.no_grad():
        first = case.ours(field=field)
        once = sum(asked)
        again = case.ours(field=field, chunk=3)
    assert sum(asked) == once < case.grid.num_voxels
    assert torch.allclose(first.outputs['lang'], again.outputs['lang'], atol=1e-12)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match='rays_per_chunk must be at least 1, got 0'):
        FieldRenderer(CONFIG, rays_per_chunk=0)
    with pytest.raises(ValueError, match='must not be negative, got -1'):
        FieldRenderer(CONFIG, -1)
    case = Case()
    with pytest.raises(ValueError, match='1 ray bundles for a field of 2'):
        FieldRenderer(CONFIG)(case.field(), case.rays[:1], {})
    with pytest.raises(ValueError, match='densities or a density_decoder'):
        VoxelField(case.feats, None, case.grid)
    with pytest.raises(ValueError, match=r'\(2, 2, 8, 12\)'):
        VoxelField(case.feats, torch.zeros(2, 2, 8, 12), case.grid)


def test_threads_add_up_gradients_in_the_same_order_every_time():
    """Bit for bit: a seed must give the same training on a CPU, however threads come and go."""
    case = Case(batch=1, rays=9000, dtype=torch.float32)  # enough that torch takes threads
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = []
        for _ in range(4):
            loss = loss_of(*parts(case.ours()))
            found.append([loss.detach(), *torch.autograd.grad(loss, case.leaves())])
    finally:
        torch.set_num_threads(threads)
    for again in found[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(again, found[0]))
