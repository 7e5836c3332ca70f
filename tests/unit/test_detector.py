"""The detector on tiny random inputs: modes, gradients, frames, preprocessing, one camera."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.structures import CameraRig
from voxelrender import RayBundle

init_default_scope('mmdet3d')
SIZE, GRID = (32, 64), dict(x=[-8, 8, 1.], y=[-8, 8, 1.], z=[-1, 3, 1.], depth=[1., 9., 1.])
CONFIG = dict(
    type='LangOcc', num_adj=1, stereo=True,
    data_preprocessor=dict(type='OccDataPreprocessor'),
    img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=8, stem_channels=8,
                      num_stages=4, out_indices=(0, 2, 3), norm_eval=False,
                      zero_init_residual=False),
    img_neck=dict(type='CustomFPN', in_channels=[32, 64], out_channels=16, num_outs=1,
                  start_level=0, out_ids=[0]),
    img_view_transformer=dict(
        type='LSSViewTransformerBEVStereo', grid_config=GRID, input_size=SIZE, downsample=16,
        in_channels=16, out_channels=4, loss_depth_weight=0.,
        depthnet_cfg=dict(use_dcn=False, aspp_mid_channels=8, stereo=True, bias=5.)),
    pre_process=dict(type='CustomResNet3D', numC_input=4, num_layer=[1], num_channels=[4],
                     stride=[1], backbone_output_ids=[0]),
    img_bev_encoder_backbone=dict(
        type='CustomResNet3D', numC_input=8, num_layer=[1, 1, 1], num_channels=[4, 8, 16],
        stride=[1, 2, 2], backbone_output_ids=[0, 1, 2]),
    img_bev_encoder_neck=dict(type='LSSFPN3D', in_channels=28, out_channels=4),
    occ_head=dict(
        type='LangOccHead', in_channels=4, feat_channels=8,
        grid=dict(point_cloud_range=[-8, -8, -1, 8, 8, 3], voxel_size=[1., 1., 1.]),
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=6, hidden_channels=8)),
        renderer=dict(type='VolumeRenderer', far=12., num_proposal_samples=10, num_samples=12),
        losses=dict(lang=dict(type='RenderedFeatureLoss'))))


def build(**changes):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        config[key] = value
    model = MODELS.build(config)
    model.init_weights()
    return model


def make_rig(frames, cameras, step=0.5):
    """Cameras around the car, looking outwards; the car moves ``step`` metres a frame."""
    cam2img = torch.tensor([[40., 0, 31.5, 0], [0, 40., 15.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    axes = torch.tensor([[0., 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    cam2ego, ego2global = [], []
    for camera in range(cameras):
        angle = torch.tensor(2 * torch.pi * camera / cameras)
        turn = torch.eye(4)
        turn[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]),
                                    torch.stack([angle.sin(), angle.cos()])])
        cam2ego.append(turn @ axes)
    for frame in range(frames):
        pose = torch.eye(4)
        pose[0, 3] = -step * frame
        ego2global.append(pose)
    shape = (frames, cameras, 4, 4)
    return CameraRig(cam2img.expand(shape), torch.stack(cam2ego).expand(shape),
                     torch.stack(ego2global)[:, None].expand(shape), torch.eye(4).expand(shape),
                     torch.eye(4))


def make_batch(size=1, frames=3, cameras=2, rays=30):
    torch.manual_seed(1)
    inputs = dict(imgs=[torch.randint(0, 255, (frames, cameras, 3, *SIZE), dtype=torch.uint8)
                        for _ in range(size)],
                  rig=[make_rig(frames, cameras) for _ in range(size)],
                  bev_aug_matrix=[torch.eye(4) for _ in range(size)])
    samples = []
    for index in range(size):
        sample = Det3DDataSample(metainfo=dict(token=f'sample{index}'))
        directions = F.normalize(torch.randn(rays, 3), dim=-1)
        targets = dict(lang_feats=F.normalize(torch.randn(rays, 6), dim=-1))
        sample.gt_rays = RayBundle(torch.randn(rays, 3) * 0.1, directions, targets=targets)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def run(model, batch, mode):
    return model(**model.data_preprocessor(batch, model.training), mode=mode)


@pytest.mark.parametrize('size, cameras', [(2, 2), (1, 1)])
def test_one_step_reaches_every_parameter(size, cameras):
    model = build()
    model.train()
    losses = run(model, make_batch(size, cameras=cameras), 'loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or _may_be_still(name, size * cameras), name


def _may_be_still(name, images):
    """A bias before a batch norm has no effect; one value a channel has no variance to learn."""
    dead = ('reduce_conv.0.bias', 'cost_volumn_net', 'aspp', 'global_avg_pool', 'depth_net.bn',
            'fc1', 'layer1')
    return any(part in name for part in dead)


def test_modes():
    model = build()
    model.eval()
    batch = make_batch(2)
    with torch.no_grad():
        samples = run(model, batch, 'predict')
        feats, densities = run(model, batch, 'tensor')
    assert [tuple(s.pred_occ.semantics.shape) for s in samples] == [(16, 16, 4)] * 2
    assert feats.shape == (2, 8, 4, 16, 16) and densities.shape == (2, 4, 16, 16)
    with pytest.raises(RuntimeError, match='mode'):
        run(model, batch, 'nonsense')


def test_a_batch_equals_its_items_alone():
    model = build()
    model.eval()
    both = make_batch(2)
    single = dict(inputs={k: v[1:] for k, v in both['inputs'].items()},
                  data_samples=both['data_samples'][1:])
    with torch.no_grad():
        a, b = run(model, both, 'tensor')[1][1], run(model, single, 'tensor')[1][0]
    assert torch.allclose(a, b, atol=1e-5)


def test_only_the_key_frame_gets_a_gradient():
    model = build()
    model.train()
    data = model.data_preprocessor(make_batch(2), True)
    data['inputs']['imgs'].requires_grad_()
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    moved = data['inputs']['imgs'].grad.abs().sum(dim=(0, 2, 3, 4, 5))
    assert moved[0] > 0 and moved[1] == 0 and moved[2] == 0


def test_earlier_frames_matter():
    model = build()
    model.eval()
    batch = make_batch(1)
    other = copy.deepcopy(batch)
    for frame in (1, 2):
        changed = copy.deepcopy(batch)
        changed['inputs']['imgs'][0][frame] = 255 - changed['inputs']['imgs'][0][frame]
        with torch.no_grad():
            difference = (run(model, changed, 'tensor')[1] - run(model, other, 'tensor')[1]).abs()
        assert difference.max() > 0, frame


def test_wrong_number_of_frames_is_named():
    with pytest.raises(ValueError, match=r'F = 3.*\(1, 2, 2, 3, 32, 64\)'):
        run(build(), make_batch(1, frames=2), 'tensor')


def test_without_stereo_and_adjacent_frames():
    transformer = dict(CONFIG['img_view_transformer'], type='LSSViewTransformer')
    del transformer['depthnet_cfg'], transformer['loss_depth_weight']
    backbone3d = dict(CONFIG['img_bev_encoder_backbone'], numC_input=4)
    backbone = dict(CONFIG['img_backbone'], out_indices=(2, 3))
    model = build(img_view_transformer=transformer, img_bev_encoder_backbone=backbone3d,
                  img_backbone=backbone, num_adj=0, stereo=False, pre_process=None)
    model.train()
    loss, _ = model.parse_losses(run(model, make_batch(1, frames=1), 'loss'))
    loss.backward()
    assert torch.isfinite(loss)


def test_lss_depth_loss_needs_depth_and_uses_it():
    transformer = dict(CONFIG['img_view_transformer'], loss_depth_weight=0.5)
    model = build(img_view_transformer=transformer)
    batch = make_batch(1)
    with pytest.raises(KeyError, match='gt_depth.*sample0.*PointToMultiViewDepth'):
        run(model, batch, 'loss')
    batch['data_samples'][0].gt_depth = torch.rand(2, *SIZE) * 6 + 2
    losses = run(model, batch, 'loss')
    assert losses['loss_lss_depth'] > 0
    losses['loss_lss_depth'].backward()
    assert model.img_view_transformer.depth_net.depth_conv[-1].weight.grad.any()


def test_preprocessor_normalises_and_bgr_is_the_published_order():
    batch = make_batch(1)
    plain = build().data_preprocessor(batch)['inputs']['imgs']
    raw = batch['inputs']['imgs'][0].float()
    assert torch.allclose(plain[0, 1, 0, 2], (raw[1, 0, 2] - 103.53) / 57.375)
    parity = build(data_preprocessor=dict(type='OccDataPreprocessor', bgr=True))
    swapped = parity.data_preprocessor(batch)['inputs']['imgs']
    assert torch.allclose(swapped[0, 1, 0, 0], (raw[1, 0, 2] - 123.675) / 58.395)
    batch['inputs']['imgs'] = [torch.zeros(3, 2, 3, 8, 8), torch.zeros(3, 2, 3, 8, 9)]
    with pytest.raises(ValueError, match='different shapes'):
        build().data_preprocessor(batch)


def test_autocast_keeps_rendering_in_float32():
    model = build()
    model.train()
    data = model.data_preprocessor(make_batch(1), True)
    # No gradient: torch's bfloat16 backward crashes on some CPUs.
    with torch.autocast('cpu', dtype=torch.bfloat16), torch.no_grad():
        losses = model(**data, mode='loss')
        field = model.extract_field(data['inputs'])
    assert field.feats.dtype == torch.bfloat16 and field.densities.dtype == torch.float32
    assert losses['loss_lang'].dtype == torch.float32 and torch.isfinite(losses['loss_lang'])


def test_a_grid_that_the_strides_do_not_divide_is_an_error():
    grid = dict(GRID, y=[-7.5, 7.5, 1.])
    transformer = dict(CONFIG['img_view_transformer'], grid_config=grid)
    head = dict(CONFIG['occ_head'], grid=dict(point_cloud_range=[-8, -7.5, -1, 8, 7.5, 3],
                                              voxel_size=[1., 1., 1.]))
    with pytest.raises(ValueError, match='15'):
        build(img_view_transformer=transformer, occ_head=head)
