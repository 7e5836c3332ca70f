"""View transformers: where features land, gradients, batches, one camera, precision, settings."""
import pytest
import torch
from mmdet3d.registry import MODELS
from torch import nn

from langocc.models.view_transforms import StereoReference
from langocc.models.view_transforms.batch_norm import SingleValueBatchNorm1d, SingleValueBatchNorm2d
from langocc.structures import CameraRig

GRID = dict(x=[-8, 8, 1], y=[-8, 8, 1], z=[-1, 3, 1], depth=[1., 7., 0.5])
KINDS = ['LSSViewTransformer', 'LSSViewTransformerBEVDepth', 'LSSViewTransformerBEVStereo']
DEPTHNET = dict(use_dcn=False, aspp_mid_channels=4)


def make_rig(batch=1, cameras=2, forward=0.):
    """Cameras that look along +x and -x from (0, 0, 1); ego ``forward`` metres along global x."""
    eye = torch.eye(4, dtype=torch.float64)
    ahead = torch.tensor([[0., 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])
    back = torch.tensor([[0., 0, -1, 0], [1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])
    cam2img = torch.tensor([[48., 0, 48, 0], [0, 48, 32, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    ego = eye.clone()
    ego[0, 3] = forward

    def spread(*matrices):
        return torch.stack([matrices[i % len(matrices)].double() for i in range(cameras)]).expand(
            batch, -1, -1, -1)

    return CameraRig(spread(cam2img), spread(ahead, back), spread(ego), spread(eye),
                     eye.expand(batch, -1, -1))


def make_transformer(kind, **changes):
    settings = dict(type=kind, grid_config=GRID, input_size=(64, 96), downsample=16, in_channels=8,
                    out_channels=4)
    if kind != 'LSSViewTransformer':
        settings['depthnet_cfg'] = dict(DEPTHNET)
    settings.update(changes)
    return MODELS.build(settings)


def make_stereo(batch=1, cameras=2, size=(16, 24)):
    before, now = torch.randn(2, batch, cameras, 6, *size)
    return StereoReference(before, now, make_rig(batch, cameras, forward=-0.5))


def eye(batch=1):
    return torch.eye(4).expand(batch, -1, -1)


@pytest.mark.parametrize('kind', KINDS)
def test_shapes_and_probabilities(kind):
    net = make_transformer(kind)
    volume, depth = net(torch.randn(2, 2, 8, 4, 6), make_rig(2), eye(2), stereo=make_stereo(2))
    assert volume.shape == (2, 4, 4, 16, 16) and depth.shape == (2, 2, 12, 4, 6)
    torch.testing.assert_close(depth.sum(2), torch.ones(2, 2, 4, 6))


@pytest.mark.parametrize('flip', [False, True])
def test_one_pixel_lands_in_its_voxel(flip):
    net = make_transformer('LSSViewTransformer', input_size=(65, 97), downsample=16)
    height, width = net.feature_size
    depth, context = torch.zeros(1, 2, 12, height, width), torch.zeros(1, 2, 4, height, width)
    depth[0, 0, 8, 2, 1], context[0, 0, :, 2, 1] = 0.5, torch.arange(4.)
    # 5 m ahead; pixel (16, 32) of a 97 x 65 image: y = -(16 - 48) / 48 * 5 = 3.33 m, z = 1 m
    bev = torch.diag(torch.tensor([1., -1 if flip else 1, 1, 1]))[None]
    volume = net.splat(depth, context, make_rig(), bev)
    expected = torch.zeros_like(volume)
    expected[0, :, 2, 4 if flip else 11, 13] = 0.5 * torch.arange(4.)
    torch.testing.assert_close(volume, expected)


def test_truncation_folds_points_under_the_low_faces():
    kept = {}
    for truncate in (False, True):
        net = make_transformer('LSSViewTransformer', truncate=truncate)
        depth, context = torch.zeros(1, 1, 12, 4, 6), torch.ones(1, 1, 4, 4, 6)
        depth[0, 0, 0] = 1.
        rig = make_rig(cameras=1)
        rig.cam2ego = rig.cam2ego.clone()
        rig.cam2ego[..., 0, 3] = -9.5  # 1 m ahead is x = -8.5: half a cell under the face
        kept[truncate] = net.splat(depth, context, rig, eye())
    assert kept[False].abs().sum() == 0
    assert kept[True][..., 0].sum() == 4 * 24 and kept[True][..., 1:].sum() == 0


def test_earlier_frame_lands_where_the_world_is():
    net = make_transformer('LSSViewTransformer').eval()
    depth, context = torch.zeros(1, 1, 12, 4, 6), torch.ones(1, 1, 4, 4, 6)
    depth[0, 0, 8] = 1.  # 5 m
    behind = net.splat(depth, context, make_rig(cameras=1, forward=-2.), eye())
    here = net.splat(depth, context, make_rig(cameras=1), eye())
    assert here.sum() > 0
    torch.testing.assert_close(behind[..., :-2], here[..., 2:])


def test_collapse_z_stacks_height_in_channels():
    nets = [make_transformer('LSSViewTransformer', collapse_z=flag) for flag in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    feats = torch.randn(1, 2, 8, 4, 6)
    volume, flat = (net(feats, make_rig(), eye())[0] for net in nets)
    assert flat.shape == (1, 16, 16, 16)
    torch.testing.assert_close(flat[:, 4:8], volume[:, :, 1])


@pytest.mark.parametrize('kind', KINDS)
def test_gradient_reaches_every_parameter(kind):
    net = make_transformer(kind)
    feats = torch.randn(2, 2, 8, 4, 6, requires_grad=True)
    stereo = make_stereo(2)
    stereo.cur_feats.requires_grad_()
    volume, depth = net(feats, make_rig(2), eye(2), stereo=stereo)
    (volume.square().sum() + depth[:, :, ::3].sum()).backward()
    assert feats.grad.abs().sum() > 0 and stereo.cur_feats.grad is None
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        shifted_away = name.endswith(('reduce_conv.0.bias', 'volumn_net.0.bias',
                                      'volumn_net.2.bias'))  # BatchNorm follows at once
        dead_gate = '.conv_reduce' in name or '.fc' in name  # few ReLUs; checked by the others
        if not shifted_away and not dead_gate:
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('kind', KINDS)
def test_batch_equals_its_items_alone(kind):
    net = make_transformer(kind).eval()
    feats, stereo = torch.randn(2, 2, 8, 4, 6), make_stereo(2)
    bev = torch.stack([torch.eye(4), torch.diag(torch.tensor([1., -1, 1, 1]))])
    rig = make_rig(2)
    rig.cam2ego = rig.cam2ego.clone()
    rig.cam2ego[1, :, 2, 3] += 0.5
    together = net(feats, rig, bev, stereo=stereo)
    for i in range(2):
        item = CameraRig(*(getattr(rig, name)[i:i + 1] for name in (
            'cam2img', 'cam2ego', 'ego2global', 'img_aug_matrix', 'key_ego2global')))
        reference = StereoReference(stereo.prev_feats[i:i + 1], stereo.cur_feats[i:i + 1],
                                    make_rig(1, forward=-0.5))
        alone = net(feats[i:i + 1], item, bev[i:i + 1], stereo=reference)
        for one, other in zip(together, alone):
            torch.testing.assert_close(one[i:i + 1], other)


@pytest.mark.parametrize('kind, with_cp', [
    (KINDS[0], False), (KINDS[1], False), (KINDS[2], False), (KINDS[2], True)])
def test_one_camera_at_batch_one_trains(kind, with_cp):
    changes = dict(depthnet_cfg=dict(DEPTHNET, with_cp=with_cp)) if kind != KINDS[0] else {}
    net = make_transformer(kind, **changes)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        with torch.no_grad():  # an earlier frame, then the key frame, then another one
            net(torch.randn(1, 1, 8, 4, 6), make_rig(cameras=1), eye())
        volume, depth = net(torch.randn(1, 1, 8, 4, 6), make_rig(cameras=1), eye(),
                            stereo=make_stereo(1, 1))
        with torch.no_grad():
            net(torch.randn(1, 1, 8, 4, 6), make_rig(cameras=1), eye())
        optimizer.zero_grad()
        (volume.square().mean() + depth[:, :, 0].mean()).backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in net.state_dict().values())


@pytest.mark.parametrize('ours, theirs, shape', [
    (SingleValueBatchNorm1d, nn.BatchNorm1d, (1, 27)),
    (SingleValueBatchNorm2d, nn.BatchNorm2d, (1, 5, 1, 1))])
def test_single_value_norm(ours, theirs, shape):
    norm, reference = ours(shape[1]), theirs(shape[1])
    assert list(norm.state_dict()) == list(reference.state_dict())
    several = torch.randn(6, *shape[1:])
    torch.testing.assert_close(norm(several), reference(several))
    torch.testing.assert_close(norm.running_var, reference.running_var)
    one = torch.randn(shape)
    output = norm(one)
    torch.testing.assert_close(output, norm.eval()(one))
    with pytest.raises(ValueError, match='more than 1 value'):
        reference(one)


def test_one_camera_numbers_get_normalised_over_time():
    norm = SingleValueBatchNorm1d(2)
    values = torch.tensor([560., -3.]) + torch.tensor([10., 0.1]) * torch.randn(500, 2)
    outputs = torch.cat([norm(value[None]) for value in values])
    torch.testing.assert_close(norm.running_mean, values.mean(0), rtol=0.02, atol=0.1)
    assert (outputs[0].abs() < 4).all() and (outputs[200:].std(0) < 2).all()
    assert (outputs[200:].std(0) > 0.5).all()


def test_no_previous_frame_is_a_cost_volume_of_zeros():
    net = make_transformer(KINDS[2]).eval()
    feats, seen = torch.randn(1, 2, 8, 4, 6), []
    net.depth_net.cost_volumn_net.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0]))
    without = net(feats, make_rig(), eye())
    stereo = make_stereo()
    stereo.prev_feats = None
    torch.testing.assert_close(net(feats, make_rig(), eye(), stereo=stereo), without)
    assert all(x.shape == (2, 12, 16, 24) and x.abs().sum() == 0 for x in seen) and len(seen) == 2
    assert not torch.equal(net(feats, make_rig(), eye(), stereo=make_stereo())[1], without[1])


def test_key_rig_reaches_the_depth_net():
    net = make_transformer(KINDS[1]).eval()
    feats, before = torch.randn(1, 2, 8, 4, 6), make_rig(forward=-2.)
    own = net(feats, before, eye())[1]
    as_key = net(feats, before, eye(), key_rig=make_rig())[1]
    assert not torch.equal(own, as_key)
    torch.testing.assert_close(as_key, net(feats, make_rig(), eye())[1])


@pytest.mark.parametrize('kind', KINDS)
def test_autocast_keeps_geometry_and_softmax_in_float32(kind):
    net = make_transformer(kind).eval()
    feats, stereo = torch.randn(1, 2, 8, 4, 6), make_stereo()
    full = net(feats, make_rig(), eye(), stereo=stereo)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = net(feats.bfloat16(), make_rig(), eye(), stereo=stereo)
    assert half[0].dtype == half[1].dtype == torch.float32
    torch.testing.assert_close(half[1].sum(2), torch.ones(1, 2, 4, 6))
    for one, other in zip(full, half):  # 0.1: bfloat16 keeps 8 bits through a dozen layers
        assert (one - other).abs().max() < 0.1 * one.abs().max()


def test_checkpointing_gives_the_same_gradients():
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(3)
        net = make_transformer(KINDS[2], depthnet_cfg=dict(DEPTHNET, with_cp=with_cp))
        volume, _ = net(torch.randn(1, 2, 8, 4, 6), make_rig(), eye(), stereo=make_stereo())
        volume.square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)


def test_depth_loss_is_weighted():
    net = make_transformer(KINDS[1], loss_depth_weight=0.)
    gt = torch.zeros(1, 2, 64, 96)
    gt[:, :, 20, 30] = 3.2
    depth = torch.full((1, 2, 12, 4, 6), 1 / 12, requires_grad=True)
    assert net.get_depth_loss(gt, depth) == 0
    net.loss_depth_weight = 2.
    expected = -2 * (torch.tensor(1 / 12).log() + 11 * torch.tensor(11 / 12).log())
    torch.testing.assert_close(net.get_depth_loss(gt, depth), expected)


@pytest.mark.parametrize('input_size, downsample', [((50, 70), 16), ((64, 96), 8), ((36, 44), 4)])
def test_other_sizes_strides_and_bins(input_size, downsample):
    net = make_transformer(KINDS[2], input_size=input_size, downsample=downsample,
                           grid_config=dict(GRID, depth=[1., 60., 1.]), sid=downsample == 8)
    height, width = (-(-size // downsample) for size in input_size)
    stereo = make_stereo(size=[-(-size // 4) for size in input_size])
    volume, depth = net(torch.randn(1, 2, 8, height, width), make_rig(), eye(), stereo=stereo)
    assert depth.shape == (1, 2, 59, height, width) and volume.shape == (1, 4, 4, 16, 16)
    without, _ = net(torch.randn(1, 2, 8, height, width), make_rig(), eye())
    assert without.shape == volume.shape


def test_no_aspp_and_deformable_convolution():
    cfg = dict(DEPTHNET, use_aspp=False, use_dcn=True)
    net = make_transformer(KINDS[1], depthnet_cfg=cfg)
    volume, _ = net(torch.randn(1, 2, 8, 4, 6), make_rig(), eye())
    volume.square().sum().backward()
    assert torch.isfinite(volume).all()


def test_errors_name_what_is_wrong():
    net = make_transformer(KINDS[2])
    with pytest.raises(ValueError, match=r'\(1, 2, 8, 4, 7\), expected \(1, 2, 8, 4, 6\)'):
        net(torch.zeros(1, 2, 8, 4, 7), make_rig(), eye())
    with pytest.raises(ValueError, match=r'expected \(1, 2, 8'):
        net(torch.zeros(1, 3, 8, 4, 6), make_rig(), eye())
    with pytest.raises(ValueError, match='comes down to'):
        net(torch.randn(1, 2, 8, 4, 6), make_rig(), eye(), stereo=make_stereo(size=(32, 24)))
    stereo = make_stereo()
    stereo.prev_feats = stereo.prev_feats[..., 1:]
    with pytest.raises(ValueError, match='stereo features'):
        net(torch.randn(1, 2, 8, 4, 6), make_rig(), eye(), stereo=stereo)
    with pytest.raises(ValueError, match='downsample=12'):
        make_transformer(KINDS[2], downsample=12)
    with pytest.raises(ValueError, match='stereo=False'):
        make_transformer(KINDS[2], depthnet_cfg=dict(DEPTHNET, stereo=False))
