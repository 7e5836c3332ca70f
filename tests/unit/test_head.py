"""LangOccHead on a small volume: rendering, losses, prediction, queries, bad settings."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.models.heads.positions import encode_positions
from langocc.teachers import TextEncoder, Vocabulary
from voxelrender import RayBundle

init_default_scope('mmdet3d')
CONFIG = dict(
    type='LangOccHead', in_channels=3, feat_channels=8,
    grid=dict(point_cloud_range=[-4, -4, -1, 4, 4, 1], voxel_size=[1., 1., 0.5]),
    density_decoder=dict(type='DensityDecoder', hidden_channels=8),
    decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=6, hidden_channels=8)),
    renderer=dict(type='VolumeRenderer', far=8., num_proposal_samples=10, num_samples=12,
                  weight_threshold=0.),
    losses=dict(lang=dict(type='RenderedFeatureLoss')))


class LetterEncoder(TextEncoder):
    """Unit embeddings by the hash-free order of words: one axis a word."""
    embed_dims = 6

    def encode(self, prompts):
        return torch.eye(6)[:len(prompts)]


def build(**changes):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIG)
    config.update(changes)
    return MODELS.build(config)


def make_rays(num=20, embed_dims=6):
    directions = F.normalize(torch.randn(num, 3), dim=-1)
    targets = dict(lang_feats=F.normalize(torch.randn(num, embed_dims), dim=-1),
                   rgb=torch.rand(num, 3), classes=torch.randint(0, 4, (num,)),
                   distances=torch.rand(num) * 6 + 0.5, sky=torch.rand(num) < 0.2)
    return RayBundle(torch.randn(num, 3) * 0.2, directions, targets=targets)


def volume(batch=1):
    return torch.randn(batch, 3, 4, 8, 8, requires_grad=True)


ALL = dict(
    decoders=dict(
        lang=dict(type='LanguageDecoder', embed_dims=6, hidden_channels=8),
        rgb=dict(type='RGBDecoder', degree=1, hidden_channels=8),
        semantic=dict(type='SemanticDecoder', num_classes=5, hidden_channels=8)),
    losses=dict(
        lang=dict(type='RenderedFeatureLoss'), rgb=dict(type='RenderedRGBLoss'),
        semantic=dict(type='RenderedSemanticLoss'), depth=dict(type='RenderedDepthLoss'),
        termination=dict(type='RenderedDepthLoss', mode='termination'),
        sky=dict(type='SkyLoss'), ground=dict(type='GroundLoss'),
        distortion=dict(type='DistortionLoss'), tv=dict(type='TotalVariationLoss'),
        sparsity=dict(type='DensitySparsityLoss')))


@pytest.mark.parametrize('rays', [20, 1, 0])
def test_every_loss_is_finite_and_reaches_every_parameter(rays):
    head, feats = build(**ALL), volume(2)
    losses = head.loss_by_field(head(feats), [make_rays(rays), make_rays(rays)])
    logged = {'opacity', 'opacity_sky'}
    assert set(losses) == {f'loss_{name}' for name in ALL['losses']} | logged
    total = sum(value for name, value in losses.items() if name.startswith('loss_'))
    assert torch.isfinite(total)
    total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    if rays == 20:
        assert all(p.grad.any() for p in head.parameters())
        assert feats.grad.any()


def test_language_starts_near_the_mean_of_the_vocabulary(tmp_path):
    """Away from it by the small initial weights only; without the option, anywhere."""
    cosines = {}
    config = dict(type='Vocabulary', path=str(write_vocabulary(tmp_path).path),
                  text_encoder=LetterEncoder())
    for start in (True, False):
        head = build(vocabulary=config, start_at_vocabulary=start)
        head.init_weights()
        mean = F.normalize(head.vocabulary.text_embeds.mean(0), dim=0)
        feats = head.decoder('lang')(torch.randn(50, 8).relu())
        cosines[start] = (feats @ mean).min()
    assert cosines[True] > 0.9 > cosines[False]


def test_a_start_without_a_vocabulary_is_an_error():
    with pytest.raises(ValueError, match='start_at_vocabulary=True needs a vocabulary'):
        build(start_at_vocabulary=True)


def test_normalised_decoder_input_does_not_depend_on_its_scale():
    """And its parameters keep the published names where the option is off."""
    config = dict(type='LanguageDecoder', embed_dims=6, hidden_channels=8, in_channels=8)
    feats = torch.rand(5, 8)
    plain, normed = MODELS.build(config), MODELS.build(dict(config, norm_input=True))
    for decoder in (plain, normed):
        decoder.init_weights()
    assert torch.allclose(normed(feats), normed(50 * feats + 3), atol=1e-3)
    assert 'layers.0.weight' in plain.state_dict() and plain.layers[0].in_features == 8
    assert len(normed.state_dict()) == len(plain.state_dict()) + 2


def test_an_empty_bundle_beside_a_full_one():
    """A frame without rays adds nothing: the loss is that of the other frame."""
    head, feats = build(), volume(2)
    head.eval()
    rays = make_rays()
    field = head(feats)
    alone = head.loss_by_field(head(feats[:1]), [rays])
    beside = head.loss_by_field(field, [rays, rays[:0]])
    assert torch.allclose(alone['loss_lang'], beside['loss_lang'], atol=1e-6)


def test_rays_outside_or_away_from_the_grid():
    head = build(**ALL)
    rays = make_rays(3)
    rays.origins[:] = torch.tensor([[100., 0., 0.], [0., 0., 50.], [5., 5., 0.]])
    rays.directions[:] = torch.tensor([[1., 0., 0.], [0., 0., 1.], [0.7071068, 0.7071068, 0.]])
    losses = head.loss_by_field(head(volume()), [rays])
    total = sum(value for name, value in losses.items() if name.startswith('loss_'))
    assert torch.isfinite(total) and losses['opacity'] == 0
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_rendering_equals_the_dense_computation():
    """Decode every voxel, interpolate at every sample, composite: the paper's way."""
    head = build().eval()
    field, rays = head(volume()), make_rays()
    rendered = head.render(field, [rays], ('lang',))
    decoded = head.decoder('lang')(field.feats[0].flatten(1).t())
    dense = decoded.t().view(1, 6, *field.grid.volume_shape)
    sampled = field.grid.sample(dense, rays.points(rendered.t_mids)[None])[0]
    expected = (rendered.weights[..., None] * sampled).sum(1)
    assert torch.allclose(rendered.outputs['lang'], expected, atol=1e-5)


def test_chunks_of_rays_change_nothing():
    head, feats, rays = build().eval(), volume(), make_rays(23)
    with torch.no_grad():
        whole = head.render(head(feats), [rays], ('lang',))
        head.renderer.rays_per_chunk = 5
        parts = head.render(head(feats), [rays], ('lang',))
    assert torch.allclose(whole.outputs['lang'], parts.outputs['lang'], atol=1e-6)
    assert torch.equal(whole.rays.origins, parts.rays.origins)


def test_upsampling_halves_the_voxels():
    head = build(upsample=(2, 2, 2))
    volume = torch.randn(1, 3, 2, 4, 4)
    field = head(volume)
    assert field.densities.shape == (1, 4, 8, 8)
    coarse = head.final_conv(volume)
    # Half a coarse voxel is a quarter of its neighbours' distance: 3/4 of one and 1/4 of the next.
    expected = 0.75 * coarse[0, :, 0, 0, 1] + 0.25 * coarse[0, :, 0, 0, 2]
    assert torch.allclose(field.feats[0, :, 0, 0, 3], expected, atol=1e-6)


def test_wrong_volume_is_named():
    with pytest.raises(ValueError, match=r'\(2, 8, 8\) cells .*\(4, 8, 8\)'):
        build()(torch.randn(1, 3, 2, 8, 8))
    with pytest.raises(ValueError, match=r'trunk gives .*\(8, 8, 4\) cells .*volume_order'):
        build()(torch.randn(1, 3, 8, 8, 4))


def test_axes_of_the_volume():
    """A head of another order gives what this one gives of the same volume."""
    plain, turned = build(), build(volume_order='xyz')
    turned.load_state_dict(plain.state_dict())
    feats = torch.randn(2, 3, 4, 8, 8)
    assert torch.equal(turned(feats.permute(0, 1, 4, 3, 2)).feats, plain(feats).feats)
    with pytest.raises(ValueError, match="order is 'xyy'"):
        build(volume_order='xyy')


def test_wrong_channels_and_dimensions_are_named():
    with pytest.raises(ValueError, match=r'5 channels, \(1, 5, 4, 8, 8\).*in_channels=3'):
        build()(torch.randn(1, 5, 4, 8, 8))
    with pytest.raises(ValueError, match=r'shape \(1, 3, 8, 8\) has not the axes'):
        build()(torch.randn(1, 3, 8, 8))


def test_samples_without_rays_are_named():
    from mmdet3d.structures import Det3DDataSample
    samples = [Det3DDataSample(metainfo=dict(token=token)) for token in 'ab']
    samples[0].gt_rays = make_rays()
    with pytest.raises(KeyError, match=r"missing in samples \['b'\].*PrepareRays"):
        build().loss(volume(2), samples)


def test_loss_without_its_decoder_is_named():
    with pytest.raises(ValueError, match="loss 'colour' .*'rgb'.*'lang'"):
        build(losses=dict(colour=dict(type='RenderedRGBLoss')))


def write_vocabulary(tmp_path):
    path = tmp_path / 'words.txt'
    path.write_text('car: car, van\nvegetation: tree\nmanmade: wall\n')
    return Vocabulary(path, text_encoder=LetterEncoder())


def test_prediction_is_threshold_and_nearest_prompt(tmp_path):
    head = build().eval()
    head.set_vocabulary(write_vocabulary(tmp_path))
    field = head(volume())
    head.density_threshold = field.densities.median().item()
    predicted = head.predict_by_field(field)[0].semantics
    assert predicted.shape == (8, 8, 4) and predicted.dtype == torch.uint8
    decoded = head.decoder('lang')(field.feats[0].flatten(1).t())
    classes = torch.tensor([4, 4, 16, 15])[decoded[:, :4].argmax(-1)]
    for x, y, z in [(0, 0, 0), (3, 5, 1), (7, 2, 3), (6, 6, 2)]:
        flat = (z * 8 + y) * 8 + x
        occupied = field.densities[0, z, y, x] >= head.density_threshold
        expected = classes[flat] if occupied else 17
        assert predicted[x, y, z] == expected
    assert (predicted == 17).any() and (predicted != 17).any()


def test_vocabulary_of_another_width_is_named(tmp_path):
    head = build(decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=7)))
    with pytest.raises(ValueError, match='6 dimensions.*decoder 7'):
        head.set_vocabulary(write_vocabulary(tmp_path))


def test_reducer_is_frozen_saved_and_used(tmp_path):
    head = build(reducer=dict(dims=(6, 3)),
                 decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=3, hidden_channels=8)))
    assert 'reducer.matrix' in head.state_dict()
    assert 'reducer.matrix' not in dict(head.named_parameters())
    head.set_vocabulary(write_vocabulary(tmp_path))
    losses = head.loss_by_field(head(volume()), [make_rays()])
    assert torch.isfinite(losses['loss_lang'])
    words = F.normalize(torch.randn(2, 6), dim=-1)
    field = head(volume())
    ids = torch.tensor([3, 77])
    expected = head.language(field, 0, ids) @ F.normalize(words @ head.reducer.matrix, dim=-1).t()
    assert torch.allclose(head.query(field, 0, ids, words), expected, atol=1e-6)


def test_geometry_only_and_semantic_predictions():
    geometry = build(decoders=dict(rgb=dict(type='RGBDecoder')),
                     losses=dict(rgb=dict(type='RenderedRGBLoss'))).eval()
    assert set(geometry.predict(volume())[0].semantics.unique().tolist()) <= {0, 17}
    head = build(decoders=dict(semantic=dict(type='SemanticDecoder', num_classes=5)),
                 losses=dict(semantic=dict(type='RenderedSemanticLoss'))).eval()
    field = head(volume())
    logits = head.decoder('semantic')(field.gather(0, torch.arange(4)))
    assert torch.equal(head.classify(field, 0, torch.arange(4)).long(), logits.argmax(-1))


def test_language_sampled_between_voxels():
    """Decoded unit features are interpolated, then normalised; on a centre they are the voxel's."""
    head = build().eval()
    field = head(volume())
    centers = field.grid.voxel_centers().reshape(-1, 3)
    points = torch.cat([centers[[5, 100]], torch.tensor([[0.3, -1.2, 0.1], [50., 0., 0.]])])
    sampled = head.sample_language(field, 0, points, chunk=2)
    assert torch.allclose(sampled[:2], head.language(field, 0, torch.tensor([5, 100])), atol=1e-5)
    decoded = head.decoder('lang')(field.feats[0].flatten(1).t()).t()
    dense = decoded.reshape(1, 6, *field.grid.volume_shape)
    expected = F.normalize(field.grid.sample(dense, points[None])[0], dim=-1)
    assert torch.allclose(sampled, expected, atol=1e-5)
    assert not sampled[3].any()


def test_training_lowers_the_loss():
    head, feats, rays = build(), volume().detach(), make_rays(64)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    history = []
    for _ in range(30):
        loss = head.loss_by_field(head(feats), [rays])['loss_lang']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) < 0.8 * sum(history[:5])


def test_positions_are_the_voxels_own():
    """Channels 0-2 are x, y, z of the centres in [-1, 1]; then the waves, octave by octave."""
    places = encode_positions((4, 8, 8), 2, torch.zeros(1))
    assert places.shape == (1, 15, 4, 8, 8)
    head = build()
    centers = head.grid.normalize(head.grid.voxel_centers()).permute(3, 0, 1, 2)
    assert torch.allclose(places[0, :3], centers, atol=1e-6)
    assert torch.allclose(places[0, 9:12], torch.sin(2 * torch.pi * centers), atol=1e-5)


def test_positions_reach_the_field():
    head = build(position_frequencies=1)
    assert head.final_conv.conv.in_channels == 3 + 9
    field = head(torch.zeros(2, 3, 4, 8, 8))
    assert field.densities[0].std() > 1e-4  # equal features, different places
    assert torch.equal(field.densities[0], field.densities[1])


def test_heights_reach_every_decoder():
    head = build(height_frequencies=2, upsample=(2, 1, 1))
    width = head.final_conv.conv.out_channels + 5
    assert head.out_channels == width == head.density_decoder.in_channels
    assert head.language_decoder.in_channels == width
    with torch.no_grad():
        head.final_conv.conv.weight.zero_()
    densities = head(torch.zeros(1, 3, 2, 8, 8)).densities[0]
    assert densities.std(dim=0).min() > 1e-5  # layers of one cell of the volume differ too
    assert densities.flatten(1).std(dim=1).max() < 1e-6  # and nothing else


def test_a_kept_volume_is_read_as_it_is():
    head = build(keep_volume=True, upsample=(2, 1, 1), position_frequencies=1)
    width = head.final_conv.conv.out_channels
    assert head.out_channels == width + 3 == head.density_decoder.in_channels
    feats = torch.randn(2, 3, 2, 8, 8)
    made = head.features(feats).volume()
    assert torch.equal(made[:, width:], F.interpolate(
        feats, scale_factor=(2, 1, 1), mode='trilinear', align_corners=False))
    plain = build(upsample=(2, 1, 1), position_frequencies=1)
    plain.final_conv.load_state_dict(head.final_conv.state_dict())
    assert torch.equal(made[:, :width], plain.features(feats).volume())
    with pytest.raises(ValueError, match='keep_volume=True needs upsample'):
        build(keep_volume=True)


def test_image_gain_scales_what_reads_the_volume():
    weights = []
    for gain in (1., 0.25):
        torch.manual_seed(0)
        head = build(position_frequencies=1, image_gain=gain)
        head.init_weights()
        weights.append(head.final_conv.conv.weight)
    assert torch.equal(weights[1][:, :3], weights[0][:, :3] * 0.25)
    assert torch.equal(weights[1][:, 3:], weights[0][:, 3:])
