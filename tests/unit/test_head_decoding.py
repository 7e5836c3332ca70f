"""What LangOccHead decodes and where: densities on demand, folded classes, kept language."""
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.models.voxel_field import VoxelField
from langocc.teachers import TextEncoder, Vocabulary
from voxelrender import RayBundle

init_default_scope('mmdet3d')


class RandomEncoder(TextEncoder):
    """Unit rows."""
    embed_dims = 12

    def encode(self, prompts):
        return F.normalize(torch.randn(len(prompts), 12,
                                       generator=torch.Generator().manual_seed(0)), dim=-1)


def build(hidden=8, losses=None, threshold=0., **density):
    torch.manual_seed(0)
    return MODELS.build(dict(
        type='LangOccHead', in_channels=3, feat_channels=8,
        grid=dict(point_cloud_range=[-4, -4, -1, 4, 4, 1], voxel_size=[0.5, 0.5, 0.5]),
        density_decoder=dict(dict(type='DensityDecoder', hidden_channels=8), **density),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=12, hidden_channels=hidden)),
        renderer=dict(type='VolumeRenderer', far=8., num_proposal_samples=10, num_samples=12,
                      weight_threshold=threshold),
        losses=losses or dict(lang=dict(type='RenderedFeatureLoss'))))


def volume(batch=1):
    return torch.randn(batch, 3, 4, 16, 16, requires_grad=True)


def make_rays(num=6):
    directions = F.normalize(torch.randn(num, 3), dim=-1)
    targets = dict(lang_feats=F.normalize(torch.randn(num, 12), dim=-1))
    return RayBundle(torch.randn(num, 3) * 0.2, directions, targets=targets)


def count_rows(module):
    rows = []
    module.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    return rows


def test_densities_are_decoded_where_rays_look():
    head, rays = build(), make_rays(3)
    rows = count_rows(head.density_decoder)
    head.loss_by_field(head(volume()), [rays])['loss_lang'].backward()
    assert 0 < sum(rows) < head.grid.num_voxels


@pytest.mark.parametrize('loss', ['TotalVariationLoss', 'DensitySparsityLoss'])
def test_a_loss_on_the_volume_has_it_decoded_once(loss):
    head = build(losses=dict(lang=dict(type='RenderedFeatureLoss'), volume=dict(type=loss)))
    rows = count_rows(head.density_decoder)
    losses = head.loss_by_field(head(volume(2)), [make_rays(3), make_rays(2)])
    assert sum(rows) == 2 * head.grid.num_voxels
    assert losses['loss_volume'] > 0
    (losses['loss_volume'] + losses['loss_lang']).backward()
    assert all(parameter.grad.any() for parameter in head.parameters())


def test_loss_and_gradients_are_those_of_the_whole_volume():
    # In float64: gradients of biases are sums that nearly cancel. Positions remain float32.
    head, feats = build().double().eval(), volume(2).detach().double().requires_grad_()
    rays = [make_rays(5), make_rays(7)]
    leaves = [feats, *head.parameters()]
    found = []
    for whole in (False, True):
        field = head(feats)
        if whole:
            everywhere = head.final_conv(feats)
            field = VoxelField(everywhere, head.density_decoder.forward_volume(everywhere),
                               head.grid)
        loss = head.loss_by_field(field, rays)['loss_lang']
        found.append([loss, *torch.autograd.grad(loss, leaves)])
    for got, want in zip(*found):
        assert torch.allclose(got, want, rtol=0, atol=3e-5 * want.abs().max().item())


def test_measured_distances_are_held_against_the_voxels_beside_their_rays_only():
    feats = volume(2)
    head = build(losses=dict(depth=dict(type='RenderedDepthLoss', mode='termination')))
    rays = [make_rays(1), make_rays(2)]
    for bundle in rays:
        bundle.targets['distances'] = torch.rand(len(bundle)) + 0.5
    leaves = [feats, *head.density_decoder.parameters()]
    found, rows = [], count_rows(head.density_decoder)
    for whole in (False, True):
        field = head(feats)
        if whole:
            field.densities
        torch.manual_seed(1)
        loss = head.loss_by_field(field, rays)['loss_depth']
        found.append([loss, *torch.autograd.grad(loss, leaves)])
        assert whole or 0 < sum(rows) < head.grid.num_voxels
    for got, want in zip(*found):
        assert want.any()
        assert torch.allclose(got, want, atol=1e-5 * max(want.abs().max().item(), 1e-3))


def test_sparsity_of_drawn_voxels_decodes_no_others():
    head = build(losses=dict(volume=dict(type='DensitySparsityLoss', num_voxels=50)))
    rows = count_rows(head.density_decoder)
    loss = head.loss_by_field(head(volume(2)), [make_rays(0), make_rays(0)])['loss_volume']
    assert 2 * 40 < sum(rows) <= 2 * 50
    loss.backward()
    assert all(parameter.grad.any() for parameter in head.density_decoder.parameters())
    drawn, field = [], head(volume())
    for seed in range(200):
        torch.manual_seed(seed)
        drawn.append(head.losses['volume'](None, field).item())
    everywhere = torch.log1p((field.densities / 0.5).square()).mean().item() * 0.01
    assert np.mean(drawn) == pytest.approx(everywhere, rel=0.02)
    with pytest.raises(ValueError, match='num_voxels is 0'):
        build(losses=dict(volume=dict(type='DensitySparsityLoss', num_voxels=0)))


def test_dropout_is_drawn_once_a_step():
    """Reading a density twice must not give two: under dropout the volume is decoded at once."""
    head = build(dropout=0.5)
    assert head(volume()).has_densities
    losses = head.loss_by_field(head(volume()), [make_rays()])
    losses['loss_lang'].backward()
    assert not head.eval()(volume()).has_densities


@pytest.mark.parametrize('hidden', [8, 32])
def test_classes_without_features_are_the_nearest_prompts(hidden, tmp_path):
    """Folding the last layer with the text keeps the argmax of the cosines where it is clear."""
    path = tmp_path / 'words.txt'
    path.write_text('car: car, van\nvegetation: tree, bush\nmanmade: wall\n')
    head = build(hidden).eval()
    head.set_vocabulary(Vocabulary(path, text_encoder=RandomEncoder()))
    torch.nn.init.normal_(head.language_decoder.layers[-1].bias, std=0.05)
    field = head(volume())
    ids = torch.randperm(head.grid.num_voxels)[:300]
    feats = head.language(field, 0, ids)
    scores = feats @ head.vocabulary.text_embeds.t()
    best = scores.topk(2).values
    clear = best[:, 0] - best[:, 1] > 1e-5
    folded, plain = head.classify(field, 0, ids), head.classify(field, 0, ids, feats)
    assert folded.dtype == plain.dtype == torch.uint8
    assert clear.sum() > 250 and torch.equal(folded[clear], plain[clear])
    assert len(plain.unique()) > 1
    assert head.classify(field, 0, ids[:0]).shape == (0,)


@pytest.mark.parametrize('hidden', [8, 32])
def test_kept_language_answers_any_text(hidden):
    head = build(hidden).eval()
    torch.nn.init.normal_(head.language_decoder.layers[-1].bias, std=0.05)
    field, ids = head(volume()), torch.tensor([3, 500, 77])
    voxels = head.queryable(field, 0, ids)
    assert len(voxels) == 3 and voxels.values.shape[1] == min(hidden, 12)
    assert not voxels.values.requires_grad
    feats, text = head.language(field, 0, ids), torch.randn(4, 12) * 3
    expected = feats @ F.normalize(text, dim=-1).t()
    assert torch.allclose(voxels.similarity(text), expected, atol=1e-6)
    assert torch.allclose(head.query(field, 0, ids, text), expected, atol=1e-6)
    assert torch.allclose(voxels.features(), feats, atol=1e-6)
    half = pickle.loads(pickle.dumps(voxels.to(torch.float16)))
    assert half.values.dtype == torch.float16
    assert torch.allclose(half.similarity(text), expected, atol=5e-3)
    assert head.queryable(field, 0, ids[:0]).similarity(text).shape == (0, 4)


def test_autocast_leaves_marching_and_losses_in_full_precision():
    """Decoders follow autocast; densities, weights, distances, sums and losses are float32."""
    head, feats, rays = build().eval(), volume(), make_rays(20)
    plain = head.render(head(feats), [rays], ('lang',))
    seen = []
    head.language_decoder.layers[0].register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        field = head(feats)
        rendered = head.render(field, [rays], ('lang',))
        losses = head.loss_by_field(field, [rays])
    assert seen and set(seen) == {torch.bfloat16} and field.feats.dtype == torch.bfloat16
    for name in ('t_starts', 't_ends', 't_mids', 'weights', 'opacities', 'distances'):
        assert getattr(rendered, name).dtype == torch.float32, name
    assert rendered.outputs['lang'].dtype == torch.float32
    assert losses['loss_lang'].dtype == torch.float32
    assert field.known_densities(0).volume.dtype == torch.float32
    assert field.densities.dtype == torch.float32
    assert torch.allclose(rendered.opacities, plain.opacities, atol=0.05)
    assert F.cosine_similarity(rendered.outputs['lang'], plain.outputs['lang']).min() > 0.99


def test_a_field_made_under_autocast_can_be_read_outside():
    head, feats = build().eval(), volume()
    with torch.no_grad():
        with torch.autocast('cpu', dtype=torch.bfloat16):
            field = head(feats)
            expected = head(feats).densities
        assert torch.equal(field.densities, expected)
        rendered = head.render(field, [make_rays()], ('lang',))
    assert torch.isfinite(rendered.outputs['lang']).all()


def test_the_default_prunes_and_zero_is_exact():
    assert MODELS.build(dict(type='VolumeRenderer')).weight_threshold >= 0
    head, feats, rays = build().eval(), volume(), make_rays(20)
    exact = head.render(head(feats), [rays], ('lang',))
    head.renderer.weight_threshold = 1e-2
    pruned = head.render(head(feats), [rays], ('lang',))
    assert torch.equal(exact.opacities, pruned.opacities)
    assert not torch.equal(exact.outputs['lang'], pruned.outputs['lang'])


def test_features_are_convolved_where_rays_look():
    """In training the final convolution never makes its whole output; in prediction it does."""
    head, feats = build(), volume()
    calls = []
    head.final_conv.conv.register_forward_hook(lambda *_: calls.append(1))
    head.loss_by_field(head(feats), [make_rays(3)])['loss_lang'].backward()
    assert not calls and head.final_conv.conv.weight.grad.any() and feats.grad.any()
    head.eval().predict(feats)
    assert len(calls) == 1
