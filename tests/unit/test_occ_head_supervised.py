"""BEVOccHead: the loss, its masks and weights, prediction, labels that are wrong."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.models.heads.voxel_labels import class_weights
from langocc.structures import OccData

init_default_scope('mmdet3d')
SHAPE = (6, 4, 2)  # X, Y, Z
CONFIG = dict(
    type='BEVOccHead', in_channels=3, feat_channels=5,
    grid=dict(point_cloud_range=[-3, -2, -1, 3, 2, 1], voxel_size=[1., 1., 1.]))


def build(**changes):
    torch.manual_seed(0)
    return MODELS.build(dict(copy.deepcopy(CONFIG), **changes))


def volume(batch=1, shape=SHAPE):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *shape[::-1], generator=generator).requires_grad_()


def make_sample(seed=0, shape=SHAPE, camera=0.5, lidar=0.7):
    generator = torch.Generator().manual_seed(seed)
    sample = Det3DDataSample(metainfo=dict(token=f'sample{seed}'))
    sample.gt_occ = OccData(
        semantics=torch.randint(0, 18, shape, generator=generator, dtype=torch.uint8),
        mask_camera=torch.rand(shape, generator=generator) < camera,
        mask_lidar=torch.rand(shape, generator=generator) < lidar)
    return sample


def plain_logits(head, voxel_feats):
    """(B, X, Y, Z, 18) by the published formula: convolution, ReLU, Linear, Softplus, Linear."""
    conv, (first, _, last) = head.final_conv.conv, head.predicter
    feats = F.conv3d(voxel_feats, conv.weight, conv.bias, padding=1).relu()
    feats = feats.permute(0, 4, 3, 2, 1)
    hidden = F.softplus(F.linear(feats, first.weight, first.bias))
    return F.linear(hidden, last.weight, last.bias)


def test_layout_is_the_published_one():
    head = build(feat_channels=32, in_channels=32)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {
        'final_conv.conv.weight': (32, 32, 3, 3, 3), 'final_conv.conv.bias': (32,),
        'predicter.0.weight': (64, 32), 'predicter.0.bias': (64,),
        'predicter.2.weight': (18, 64), 'predicter.2.bias': (18,)}


@pytest.mark.parametrize('mask, fields', [
    ('camera', ['mask_camera']), ('lidar', ['mask_lidar']),
    ('camera_lidar', ['mask_camera', 'mask_lidar']), ('none', [])])
def test_loss_is_the_mean_cross_entropy_of_the_masked_voxels(mask, fields):
    head, feats = build(mask=mask), volume(2)
    samples = [make_sample(0, camera=0.2), make_sample(1, camera=0.8)]
    losses = head.loss(feats, samples)
    keep = torch.ones(2, *SHAPE, dtype=torch.bool)
    for name in fields:
        keep &= torch.stack([getattr(sample.gt_occ, name) for sample in samples])
    labels = torch.stack([sample.gt_occ.semantics for sample in samples]).long()
    expected = F.cross_entropy(plain_logits(head, feats)[keep], labels[keep])
    assert list(losses) == ['loss_occ']
    torch.testing.assert_close(losses['loss_occ'], expected, rtol=1e-5, atol=1e-6)


def test_labels_are_indexed_x_y_z():
    """One voxel is trained on: the gradient is at its place, z first in the volume."""
    head, feats = build(), volume()
    head.final_conv.conv.weight.data[:] = 0
    head.final_conv.conv.weight.data[:, :, 1, 1, 1] = 1  # a voxel sees itself only
    head.final_conv.conv.bias.data.fill_(10.)
    sample = make_sample()
    sample.gt_occ.mask_camera[:] = False
    sample.gt_occ.mask_camera[5, 2, 1] = True
    head.loss(feats, [sample])['loss_occ'].backward()
    touched = feats.grad[0].abs().sum(0).nonzero().tolist()
    assert touched == [[1, 2, 5]]


def test_prediction_is_the_likeliest_class():
    head, feats = build(), volume(2)
    predictions = head.predict(feats)
    expected = plain_logits(head, feats).argmax(-1)
    assert len(expected.unique()) > 2
    for prediction, classes in zip(predictions, expected):
        assert prediction.semantics.dtype == torch.uint8
        assert torch.equal(prediction.semantics.long(), classes)
    logits = head(feats)
    assert logits.shape == (2, 18, *SHAPE[::-1])
    torch.testing.assert_close(logits.permute(0, 4, 3, 2, 1), plain_logits(head, feats))


def test_nothing_seen_is_a_zero_with_a_graph():
    head, feats = build(class_counts=[100] * 18), volume()
    sample = make_sample()
    sample.gt_occ.mask_camera[:] = False
    loss = head.loss(feats, [sample])['loss_occ']
    assert loss.item() == 0
    loss.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_an_unseen_sample_beside_a_seen_one_changes_nothing():
    head, feats = build(), volume(2)
    seen, unseen = make_sample(0), make_sample(1, camera=0.)
    both = head.loss(feats, [seen, unseen])['loss_occ']
    torch.testing.assert_close(both, head.loss(feats[:1], [seen])['loss_occ'])


def test_gradients_reach_everything():
    head, feats = build(position_frequencies=1, upsample=(2, 2, 2)), volume(shape=(3, 2, 1))
    head.loss(feats, [make_sample()])['loss_occ'].backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.any() and torch.isfinite(parameter.grad).all(), name
    assert feats.grad.any()


@pytest.mark.parametrize('upsample', [None, (2, 2, 2)])
def test_chunks_and_recomputing_change_nothing(upsample):
    shape = SHAPE if upsample is None else (3, 2, 1)
    results = []
    for changes in (dict(chunk_size=0), dict(chunk_size=5), dict(chunk_size=5, with_cp=True)):
        head, feats = build(upsample=upsample, **changes), volume(2, shape)
        head.loss(feats, [make_sample(0), make_sample(1)])['loss_occ'].backward()
        grads = [feats.grad, *(parameter.grad for parameter in head.parameters())]
        results.append((grads, [p.semantics for p in head.predict(feats)]))
    for grads, classes in results[1:]:
        for ours, whole in zip(grads, results[0][0]):
            torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(classes, results[0][1]))


def test_the_features_are_those_of_the_rendering_head():
    """Same seed, same trunk: the twin differs only in what it makes of the features."""
    shared = dict(upsample=(2, 2, 2), position_frequencies=2)
    twin = build(**shared)
    rendering = build(
        type='LangOccHead', density_decoder=dict(type='DensityDecoder'), decoders={},
        renderer=dict(type='VolumeRenderer'), losses={}, **shared)
    feats = volume(2, (3, 2, 1))
    assert torch.equal(twin.features(feats).volume(), rendering(feats).feats)


def test_class_weights_weigh_the_mean():
    counts = [0, 1, *range(10, 26)]
    head, feats, sample = build(class_counts=counts), volume(), make_sample()
    keep = sample.gt_occ.mask_camera
    weights = 1 / torch.tensor([2., 2., *range(10, 26)]).log()
    expected = F.cross_entropy(plain_logits(head, feats)[0][keep],
                               sample.gt_occ.semantics[keep].long(), weight=weights)
    torch.testing.assert_close(head.loss(feats, [sample])['loss_occ'], expected)
    for wrong in ([5] * 17, [5] * 17 + [-1]):
        with pytest.raises(ValueError, match='class_counts must be 18 numbers'):
            class_weights(wrong, 18)


def test_loss_weight_and_ignored_labels():
    feats, sample = volume(), make_sample()
    loss_occ = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=3.)
    plain, weighted = (build(**changes).loss(feats, [sample])['loss_occ']
                       for changes in (dict(), dict(loss_occ=loss_occ)))
    torch.testing.assert_close(weighted, 3 * plain)
    unknown = copy.deepcopy(sample)
    unknown.gt_occ.semantics[:3] = 255
    sample.gt_occ.mask_camera[:3] = False
    expected, ignored = (build().loss(feats, [item])['loss_occ'] for item in (sample, unknown))
    torch.testing.assert_close(ignored, expected)


def test_wrong_settings_and_labels_are_named():
    with pytest.raises(ValueError, match="mask='cameras', expected one of"):
        build(mask='cameras')
    head, feats, sample = build(), volume(), make_sample()
    with pytest.raises(ValueError, match=r'\(4, 4, 4\) cells .*grid of \(2, 4, 6\)'):
        head.loss(volume(shape=(4, 4, 4)), [sample])
    with pytest.raises(ValueError, match=r'sample0: gt_occ.semantics has shape \(4, 6, 2\), '
                                         r'expected \(6, 4, 2\)'):
        head.loss(feats, [make_sample(shape=(4, 6, 2))])
    sample.gt_occ.set_metainfo(dict(point_cloud_range=[-3, -2, -3, 3, 2, -1]))
    with pytest.raises(ValueError, match=r'sample0: not one place: gt_occ in .*-3.0, 3.0, 2.0, '
                                         r'-1.0\] m, the grid of the head in .*3.0, 2.0, 1.0\] m'):
        head.loss(feats, [sample])
    sample = make_sample()
    sample.gt_occ.semantics[sample.gt_occ.mask_camera] = 18
    with pytest.raises(ValueError, match=r'sample0.*classes from 18 to 18, expected \[0, 18\)'):
        head.loss(feats, [sample])
    del sample.gt_occ.mask_camera
    with pytest.raises(KeyError, match="sample0: gt_occ has no 'mask_camera'.*semantics"):
        head.loss(feats, [sample])
    with pytest.raises(KeyError, match='sample0 has no gt_occ.*LoadOccGTFromFile'):
        head.loss(feats, [Det3DDataSample(metainfo=dict(token='sample0'))])


def test_training_lowers_the_loss_and_learns_the_labels():
    head, feats, sample = build(feat_channels=32), volume().detach(), make_sample()
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
    history = []
    for _ in range(60):
        loss = head.loss(feats, [sample])['loss_occ']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.1 * history[0]
    keep = sample.gt_occ.mask_camera
    assert torch.equal(head.predict(feats)[0].semantics[keep], sample.gt_occ.semantics[keep])
