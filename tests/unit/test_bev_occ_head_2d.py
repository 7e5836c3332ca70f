"""BEVOccHead2D and the 2D network below it: columns, labels, layouts, inputs that are wrong."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope
from test_occ_head_supervised import make_sample

import langocc  # noqa: F401

init_default_scope('mmdet3d')
SHAPE = (6, 4, 2)  # X, Y, Z
CONFIG = dict(
    type='BEVOccHead2D', in_channels=3, feat_channels=5,
    grid=dict(point_cloud_range=[-3, -2, -1, 3, 2, 1], voxel_size=[1., 1., 1.]))


def build(**changes):
    torch.manual_seed(0)
    return MODELS.build(dict(copy.deepcopy(CONFIG), **changes))


def plane(batch=1, shape=SHAPE[1::-1], channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *shape, generator=generator).requires_grad_()


def plain_logits(head, feats):
    """(B, X, Y, Z, 18) by FlashOcc's formula, one column at a time."""
    conv, (first, _, last) = head.final_conv.conv, head.predicter
    feats = F.conv2d(feats, conv.weight, conv.bias, padding=1).relu()
    out = torch.empty(len(feats), *SHAPE, 18)
    for b, x, y in torch.cartesian_prod(*map(torch.arange, (len(feats), SHAPE[0], SHAPE[1]))):
        hidden = F.softplus(first(feats[b, :, y, x]))
        out[b, x, y] = last(hidden).view(SHAPE[2], 18)
    return out


def test_layout():
    shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    assert shapes == {
        'final_conv.conv.weight': (5, 3, 3, 3), 'final_conv.conv.bias': (5,),
        'predicter.0.weight': (10, 5), 'predicter.0.bias': (10,),
        'predicter.2.weight': (2 * 18, 10), 'predicter.2.bias': (2 * 18,)}


@pytest.mark.parametrize('changes', [{}, dict(mask='lidar'), dict(mask='none'),
                                     dict(chunk_size=3, with_cp=True)])
def test_loss_and_prediction_are_those_of_all_columns(changes):
    head, feats = build(**changes), plane(2)
    samples = [make_sample(0, camera=0.2), make_sample(1, camera=0.8)]
    expected = plain_logits(head, feats)
    keep = torch.stack([torch.ones(SHAPE, dtype=torch.bool) if head.labels.mask == 'none' else
                        getattr(s.gt_occ, f'mask_{head.labels.mask}') for s in samples])
    labels = torch.stack([sample.gt_occ.semantics for sample in samples]).long()
    loss = head.loss(feats, samples)['loss_occ']
    torch.testing.assert_close(loss, F.cross_entropy(expected[keep], labels[keep]),
                               rtol=1e-5, atol=1e-6)
    grad, = torch.autograd.grad(loss, feats)
    wanted, = torch.autograd.grad(F.cross_entropy(expected[keep], labels[keep]), feats)
    torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(head(feats).permute(0, 4, 3, 2, 1), expected)
    for prediction, classes in zip(head.predict(feats), expected.argmax(-1)):
        assert prediction.semantics.dtype == torch.uint8
        assert torch.equal(prediction.semantics.long(), classes)


def test_labels_are_indexed_x_y_z():
    head, feats = build(), plane()
    head.final_conv.conv.weight.data[:] = 0
    head.final_conv.conv.weight.data[:, :, 1, 1] = 1  # a column sees itself only
    head.final_conv.conv.bias.data.fill_(10.)
    sample = make_sample()
    sample.gt_occ.mask_camera[:] = False
    sample.gt_occ.mask_camera[5, 2, 1] = True
    head.loss(feats, [sample])['loss_occ'].backward()
    assert feats.grad[0].abs().sum(0).nonzero().tolist() == [[2, 5]]
    used = head.predicter[2].bias.grad.view(SHAPE[2], 18).abs().sum(1)
    assert used[0] == 0 and used[1] > 0  # the upper height


def test_nothing_seen_is_a_zero_with_a_graph():
    head, feats = build(class_counts=[100] * 18), plane(2)
    samples = [make_sample(0, camera=0.), make_sample(1, camera=0.)]
    loss = head.loss(feats, samples)['loss_occ']
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_a_volume_is_stacked_as_the_view_transformer_stacks_it():
    head = build(in_channels=6)
    volume = torch.randn(2, 3, 2, 4, 6)  # B, C, Z, Y, X
    stacked = torch.cat([volume[:, :, 0], volume[:, :, 1]], dim=1)
    torch.testing.assert_close(head(volume), head(stacked), rtol=0, atol=0)


def test_upsampling_leads_to_the_grid():
    head = build(upsample=2)
    feats = plane(shape=(2, 3))
    assert head(feats).shape == (1, 18, *SHAPE[::-1])
    flat = head(torch.ones(1, 3, 2, 3))[0, :, 0]
    assert flat.shape == (18, 4, 6)
    head.loss(feats, [make_sample()])['loss_occ'].backward()
    assert feats.grad.abs().sum() > 0


def test_wrong_settings_and_inputs_are_named():
    with pytest.raises(ValueError, match="BEVOccHead2D: mask='all', expected one of"):
        build(mask='all')
    with pytest.raises(ValueError, match='upsample is 0, expected at least 1'):
        build(upsample=0)
    head, sample = build(), make_sample()
    with pytest.raises(ValueError, match=r'give \(4, 5\) columns .*\(4, 6\) of the grid'):
        head.loss(plane(shape=(4, 5)), [sample])
    with pytest.raises(ValueError, match='have 4 channels .* expected 3 channels'):
        head.predict(plane(channels=4))
    with pytest.raises(ValueError, match=r'semantics has shape \(4, 6, 2\), expected \(6, 4, 2\)'):
        head.loss(plane(), [make_sample(shape=(4, 6, 2))])
    with pytest.raises(ValueError, match=r'expected \[0, 9\)'):
        build(num_classes=9).loss(plane(), [sample])


def test_the_plane_network_has_bevdets_names_and_sizes():
    backbone = MODELS.build(dict(type='CustomResNet', numC_input=6, num_layer=[1, 2, 1],
                                 num_channels=[4, 8, 16], stride=[2, 2, 2]))
    neck = MODELS.build(dict(type='FPN_LSS', in_channels=20, out_channels=5))
    names = set(backbone.state_dict())
    assert {'layers.0.0.conv1.weight', 'layers.0.0.bn1.weight', 'layers.0.0.downsample.bias',
            'layers.1.1.conv2.weight'} < names and 'layers.1.1.downsample.weight' not in names
    shapes = {name: tuple(value.shape) for name, value in neck.state_dict().items()
              if value.dim() == 4}
    assert shapes == {'conv.0.weight': (10, 20, 3, 3), 'conv.3.weight': (10, 10, 3, 3),
                      'up2.1.weight': (5, 10, 3, 3), 'up2.4.weight': (5, 5, 1, 1)}
    levels = backbone(torch.randn(2, 6, 16, 24))
    assert [tuple(level.shape[1:]) for level in levels] == [(4, 8, 12), (8, 4, 6), (16, 2, 3)]
    assert neck(levels).shape == (2, 5, 16, 24)
    plain = MODELS.build(dict(type='FPN_LSS', in_channels=20, out_channels=5, extra_upsample=1))
    assert plain(levels).shape == (2, 5, 8, 12) and plain.up2 is None


def test_the_plane_network_names_what_does_not_fit():
    config = dict(type='CustomResNet', numC_input=6, num_layer=[1, 1], num_channels=[4, 8],
                  stride=[1, 2])
    backbone = MODELS.build(config)
    backbone.check_grid((5, 8, 8))  # of a (Z, Y, X) grid the plane counts
    with pytest.raises(ValueError, match=r'CustomResNet: grid \(Y, X\) = \(8, 9\).*X=9'):
        backbone.check_grid((5, 8, 9))
    volume = torch.randn(1, 3, 2, 8, 8)
    stacked = torch.cat([volume[:, :, 0], volume[:, :, 1]], dim=1)
    assert torch.equal(backbone.eval()(volume)[1], backbone(stacked)[1])
    for shape in ((1, 5, 8, 8), (1, 6, 2, 8, 8)):
        with pytest.raises(ValueError, match=r'expected \(B, 6, Y, X\).*frames x Z x out_ch'):
            backbone(torch.zeros(shape))
    with pytest.raises(ValueError, match='CustomResNet: num_layer, num_channels and stride'):
        MODELS.build(dict(config, stride=[1]))
    neck = MODELS.build(dict(type='FPN_LSS', in_channels=12, out_channels=5, scale_factor=2,
                             input_feature_index=(0, 1)))
    with pytest.raises(ValueError, match='expected one size and 12 channels together'):
        neck([torch.zeros(1, 4, 8, 8), torch.zeros(1, 7, 4, 4)])
    with pytest.raises(ValueError, match='expected one size'):
        neck([torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 2, 2)])
