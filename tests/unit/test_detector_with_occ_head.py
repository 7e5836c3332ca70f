"""An occupancy head on mmdet3d's ImVoxelNet: taps, one and several cameras, two tasks, errors."""
import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from test_detector import CONFIG as LANGOCC

from langocc.models.detectors import VolumeTap
from langocc.models.view_transforms import ego_to_pixels
from langocc.structures import CameraRig
from voxelrender import RayBundle, project_points

init_default_scope('mmdet3d')
RANGE, SHAPE, SIZE = [-8, -6, -1, 8, 6, 3], [8, 6, 4], (32, 64)
HEAD = dict(
    type='LangOccHead', in_channels=6, feat_channels=8,
    grid=dict(point_cloud_range=RANGE, voxel_size=[2., 2., 1.]),
    density_decoder=dict(type='DensityDecoder', hidden_channels=8),
    decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=5, hidden_channels=8)),
    renderer=dict(type='VolumeRenderer', far=12., num_proposal_samples=10, num_samples=12),
    losses=dict(lang=dict(type='RenderedFeatureLoss', mode='mse')))
CENTER_HEAD = dict(
    type='CenterHead', in_channels=8, tasks=[dict(num_class=2, class_names=['car', 'bus'])],
    common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
    share_conv_channel=8, loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
    loss_bbox=dict(type='mmdet.L1Loss', reduction='mean', loss_weight=0.25),
    bbox_coder=dict(type='CenterPointBBoxCoder', pc_range=RANGE[:2], max_num=20, code_size=9,
                    post_center_range=[-9, -9, -9, 9, 9, 9], score_threshold=0.,
                    out_size_factor=1, voxel_size=[2., 2.]),
    separate_head=dict(type='BiasedSeparateHead', init_bias=-2.19, final_kernel=3,
                       head_conv=8))
IMVOXELNET = dict(
    type='MultiViewImVoxelNet', data_preprocessor=dict(type='OccDataPreprocessor'),
    backbone=dict(type='mmdet.ResNet', depth=18, base_channels=8, stem_channels=8, num_stages=4,
                  out_indices=(1, 2, 3), norm_eval=False),
    neck=dict(type='CustomFPN', in_channels=[16, 32, 64], out_channels=6, out_ids=[0]),
    neck_3d=dict(type='IndoorImVoxelNeck', in_channels=6, out_channels=6, n_blocks=[1, 1]),
    prior_generator=dict(type='AlignedAnchor3DRangeGenerator', ranges=[RANGE], rotations=[.0]),
    n_voxels=SHAPE, coord_type='LIDAR')
TWO_STAGES = dict(type='SequentialNeck', stages=[
    IMVOXELNET['neck_3d'],
    dict(type='VolumeToBEV', in_channels=6, num_layers=4, out_channels=8, order='xyz')])
TRAIN_CFG = dict(grid_size=[8, 6, 1], voxel_size=[2., 2., 4.], out_size_factor=1, dense_reg=1,
                 point_cloud_range=RANGE, gaussian_overlap=0.1, max_objs=10, min_radius=1,
                 code_weights=[1.] * 10)
TEST_CFG = dict(nms_type='circle', min_radius=[1.], post_max_size=10)


def build(detector=None, **changes):
    torch.manual_seed(0)
    config = dict(type='DetectorWithOccHead', detector={**IMVOXELNET, **(detector or {})},
                  occ_head=HEAD, volume=dict(module='neck_3d', order='xyz'),
                  without=('bbox_head',))
    config.update(changes)
    model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    return model


def two_tasks(**changes):
    return build(dict(neck_3d=TWO_STAGES, bbox_head=CENTER_HEAD, train_cfg=TRAIN_CFG,
                      test_cfg=TEST_CFG), volume=dict(module='neck_3d.0', order='xyz'),
                 without=(), **changes)


def make_rig(cameras=3):
    """Cameras that look around, each with an augmentation and a pose of its own; one frame."""
    cam2img = torch.tensor([[30., 0, 31.5, 0], [0, 30., 15.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    axes = torch.tensor([[0., 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    cam2ego = []
    for angle in torch.arange(cameras) * 2 * torch.pi / cameras:
        turn = torch.eye(4)
        turn[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]),
                                    torch.stack([angle.sin(), angle.cos()])])
        cam2ego.append(turn @ axes)
    aug = torch.tensor([[0.9, 0.05, 0, 3.], [-0.05, 0.9, 0, -2.], [0, 0, 1, 0], [0, 0, 0, 1]])
    pose = torch.eye(4)
    pose[0, 3] = 0.3
    shape = (1, cameras, 4, 4)
    return CameraRig(cam2img.expand(shape), torch.stack(cam2ego).expand(shape), pose.expand(shape),
                     aug.expand(shape), torch.eye(4))


def make_batch(size=1, cameras=3, rays=40):
    torch.manual_seed(1)
    flip = torch.diag(torch.tensor([1., -1, 1, 1]))
    inputs = dict(
        imgs=[torch.randint(0, 255, (1, cameras, 3, *SIZE), dtype=torch.uint8)
              for _ in range(size)],
        rig=[make_rig(cameras) for _ in range(size)], bev_aug_matrix=[flip] * size)
    samples = []
    for index in range(size):
        sample = Det3DDataSample(metainfo=dict(token=f'sample{index}',
                                               box_type_3d=LiDARInstance3DBoxes))
        sample.gt_rays = RayBundle(
            torch.randn(rays, 3) * 0.1, F.normalize(torch.randn(rays, 3), dim=-1),
            targets=dict(lang_feats=F.normalize(torch.randn(rays, 5), dim=-1)))
        boxes = torch.tensor([[3., 2, 0, 4, 2, 1.5, 0.3, 1, 0], [-5, -3, 0, 4, 2, 1.5, 2, 0, 0]])
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor([0, 1]))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def run(model, batch, mode):
    return model(**model.data_preprocessor(copy.deepcopy(batch), model.training), mode=mode)


def step(model, batch):
    model.train()
    losses = run(model, batch, 'loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert model.detector.backbone.conv1.weight.grad.any()
    return losses


# ------------------------------------------------------------------- several cameras

def test_a_voxel_has_the_mean_feature_of_the_pixels_it_falls_on():
    """Against a loop over voxels and cameras that overlap; features say where they are."""
    whole, cameras = build(), 6
    model, batch = whole.detector, whole.data_preprocessor(make_batch(1, cameras), False)['inputs']
    rig, flip = batch['rig'].frame(0), batch['bev_aug_matrix'][0]
    height, width = 8, 16
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    feats = torch.stack([torch.stack([u, v, torch.full_like(u, n)]) for n in range(cameras)])
    points = model.prior_generator.grid_anchors([SHAPE[::-1]], device='cpu')[0][:, :3]
    matrices = ego_to_pixels(rig, batch['bev_aug_matrix'])[0].float()
    volume, mask = model._lift(feats.float(), matrices, points, SIZE)
    seen_by = []
    for (z, y, x) in itertools.product(range(4), range(6), range(8)):
        center = model.grid.voxel_centers()[z, y, x]
        point = (flip @ torch.cat([center, torch.ones(1)]))[:3]  # the flip is its own inverse
        values = []
        for n in range(cameras):
            pixel, depth = project_points(point[None].double(), rig.cam2img[0, n],
                                          rig.cam2key()[0, n], rig.img_aug_matrix[0, n])
            column, row = pixel[0].tolist()
            if depth[0] > 0 and 0 < column < SIZE[1] and 0 < row < SIZE[0]:
                # mmdet3d's rule: image borders meet the centres of the outermost features.
                values.append([round(column / SIZE[1] * (width - 1)),
                               round(row / SIZE[0] * (height - 1)), n])
        seen_by.append(len(values))
        expected = torch.tensor(values or [[0., 0, 0]]).float().mean(0)
        torch.testing.assert_close(volume[:, x, y, z], expected)
        assert mask[0, x, y, z] == (len(values) > 0)
    assert {0, 1, 2} <= set(seen_by)


def test_one_camera_gives_imvoxelnets_own_volume():
    """mmdet3d's class, given the same projection, where its camera looks."""
    model = build().detector
    plain = MODELS.build(dict({k: v for k, v in copy.deepcopy(IMVOXELNET).items()
                               if k != 'data_preprocessor'}, type='ImVoxelNet',
                              bbox_head=dict(type='LeftOut')))
    plain.load_state_dict(model.state_dict())
    seen = {}
    for name, detector in (('ours', model), ('mmdet3d', plain)):
        detector.eval()
        detector.neck_3d.register_forward_hook(
            lambda module, args, out, name=name: seen.update({name: args[0]}))
    batch = build().data_preprocessor(make_batch(1, cameras=1), False)['inputs']
    lidar2img = ego_to_pixels(batch['rig'].frame(0), batch['bev_aug_matrix'])[0, 0]
    sample = Det3DDataSample(metainfo=dict(lidar2img=lidar2img.numpy(), img_shape=SIZE))
    with torch.no_grad():
        _, mask = model.extract_feat(batch)
        plain.extract_feat(dict(imgs=batch['imgs'][:, 0, 0]), [sample])
    assert 0.05 < mask.mean() < 0.5 and seen['ours'].any()
    assert torch.equal(seen['ours'], seen['mmdet3d'] * mask)


def test_several_frames_are_refused():
    batch = make_batch(1)
    batch['inputs']['imgs'] = [imgs.repeat(2, 1, 1, 1, 1) for imgs in batch['inputs']['imgs']]
    with pytest.raises(ValueError, match=r'key frame alone, got \(1, 2, 3, 3, 32, 64\).*stereo=F'):
        run(build(), batch, 'tensor')


# ------------------------------------------------------------------- one and two tasks

def test_occupancy_alone():
    model = build()
    losses = step(model, make_batch(2))
    assert set(losses) == {'loss_lang', 'opacity'}
    assert not any('bbox_head' in name for name in model.state_dict())
    model.eval()
    with torch.no_grad():
        samples = run(model, make_batch(2), 'predict')
        data = model.data_preprocessor(make_batch(2), False)
        field = model.extract_field(data['inputs'])
    assert [tuple(s.pred_occ.semantics.shape) for s in samples] == [(8, 6, 4)] * 2
    assert 'bboxes_3d' not in samples[0].get('pred_instances_3d', {})
    assert field.feats.shape == (2, 8, 4, 6, 8)
    occupied = field.densities[0] >= model.occ_head.density_threshold
    assert torch.equal(occupied, (samples[0].pred_occ.semantics != 17).permute(2, 1, 0))


def test_two_tasks_share_one_pass():
    model = two_tasks()
    calls = []
    model.detector.backbone.register_forward_hook(lambda *args: calls.append(1))
    losses = step(model, make_batch(2))
    assert set(losses) == {'task0.loss_heatmap', 'task0.loss_bbox', 'loss_lang', 'opacity'}
    assert len(calls) == 1
    model.eval()
    with torch.no_grad():
        samples = run(model, make_batch(2), 'predict')
        outputs = run(model, make_batch(2), 'tensor')
    assert [tuple(s.pred_occ.semantics.shape) for s in samples] == [(8, 6, 4)] * 2
    assert samples[0].pred_instances_3d.bboxes_3d.tensor.shape[1] == 9
    assert len(outputs) == 3 and outputs[1].shape == (2, 8, 4, 6, 8)


def test_heatmaps_start_at_their_bias():
    """Which mmdet3d's own task head never does: there the loss is many times as loud."""
    plain = dict(CENTER_HEAD, separate_head=dict(CENTER_HEAD['separate_head'],
                                                 type='SeparateHead'))
    losses = {}
    for name, head in (('biased', CENTER_HEAD), ('plain', plain)):
        model = build(dict(neck_3d=TWO_STAGES, bbox_head=head, train_cfg=TRAIN_CFG,
                           test_cfg=TEST_CFG), volume=dict(module='neck_3d.0', order='xyz'),
                      without=())
        bias = model.detector.bbox_head.task_heads[0].heatmap[-1].bias
        assert (bias == -2.19).all() == (name == 'biased')
        losses[name] = step(model, make_batch(1))['task0.loss_heatmap']
    assert losses['biased'] < losses['plain'] / 3


@pytest.mark.parametrize('make', [build, two_tasks])
def test_training_lowers_every_loss(make):
    """One batch: rays ahead and behind render two words, boxes stay where they are."""
    model, batch = make(), make_batch(1)
    rays = batch['data_samples'][0].gt_rays
    rays.targets['lang_feats'] = F.one_hot((rays.directions[:, 0] > 0).long(), 5).float()
    model.train()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=5e-3), []
    for _ in range(40):
        losses.append(run(model, batch, 'loss'))
        optimizer.zero_grad()
        model.parse_losses(losses[-1])[0].backward()
        optimizer.step()
    taught = [name for name in losses[0] if 'loss' in name]
    assert len(taught) == (1 if make is build else 3)
    for name in taught:
        assert losses[-1][name] < 0.5 * losses[0][name], name


def test_both_tasks_teach_the_shared_part_and_none_the_others_head():
    gradients = {}
    for task in ('loss_lang', 'task0.loss_heatmap'):
        model = two_tasks()
        model.train()
        run(model, make_batch(1), 'loss')[task].backward()
        gradients[task] = {name: parameter.grad is not None and bool(parameter.grad.any())
                           for name, parameter in model.named_parameters()}
    for task, other in (('loss_lang', 'bbox_head'), ('task0.loss_heatmap', 'occ_head')):
        assert gradients[task]['detector.backbone.conv1.weight']
        assert not any(has for name, has in gradients[task].items() if other in name)


def test_the_projected_volume_itself_and_a_neck_of_the_head():
    """Before neck_3d, encoded by modules of this project."""
    neck = dict(type='CustomResNet3D', numC_input=6, num_layer=[1], num_channels=[6], stride=[1],
                backbone_output_ids=[0])
    model = build(volume=dict(module='neck_3d', value='input', order='xyz'), volume_neck=neck)
    step(model, make_batch(1))
    assert model.volume_neck.layers[0][0].conv1.conv.weight.grad.any()


def test_weights_of_the_detector_are_loaded_by_its_own_init_cfg(tmp_path):
    source = build()
    for parameter in source.detector.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(source.detector.state_dict(), tmp_path / 'imvoxelnet.pth')
    model = build(dict(init_cfg=dict(type='Pretrained',
                                     checkpoint=str(tmp_path / 'imvoxelnet.pth'))))
    for name, value in model.detector.state_dict().items():
        assert torch.equal(value, source.detector.state_dict()[name]), name


# ------------------------------------------------------------------- taps and errors

class Toy(Base3DDetector):
    """A detector whose stem gives a dict, is called twice on demand, and has losses."""

    def __init__(self, times=1, losses=None):
        super().__init__()
        self.stem, self.times, self.losses = Stem(), times, losses

    def _forward(self, inputs, samples=None):
        return [self.stem(x=inputs) for _ in range(self.times)]

    extract_feat = _forward

    def loss(self, inputs, samples):
        self._forward(inputs)
        return dict(self.losses)

    def predict(self, inputs, samples):
        self._forward(inputs)
        return samples


class Stem(torch.nn.Module):
    def forward(self, x):
        return dict(bev=x * 2, planes=(x, x + 1))


def listened(inputs, detector=None, **kwargs):
    detector = detector or Toy()
    tap = VolumeTap('stem', **kwargs)
    with tap.listen(detector) as heard:
        detector._forward(inputs)
    return tap.read(heard, detector)


def test_taps():
    x = torch.randn(1, 2, 3, 4)
    assert torch.equal(listened(x, level='bev', order='xy'), (x * 2).transpose(2, 3))
    assert torch.equal(listened(x, value='input', order='yx'), x)
    assert torch.equal(listened(x, level=None)['planes'][1], x + 1)
    detector = Toy()
    listened(x, detector, level='bev', order='yx')
    assert not detector.stem._forward_hooks  # removed


def test_wrong_taps_are_named():
    x = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match="dict of .*'bev', 'planes'.*no level 'depth'"):
        listened(x, level='depth', order='yx')
    with pytest.raises(ValueError, match='stem of Toy was called 2 times'):
        listened(x, Toy(times=2), level='bev', order='yx')
    with pytest.raises(ValueError, match="Toy has no module 'neck'; it has .*'stem'"):
        VolumeTap('neck').find(Toy())
    with pytest.raises(ValueError, match="volume.value is 'both'"):
        VolumeTap('stem', value='both')
    with pytest.raises(ValueError, match="order is 'xxy'"):
        VolumeTap('stem', order='xxy')
    with pytest.raises(ValueError, match="MultiViewImVoxelNet has no module 'middle'"):
        build(volume=dict(module='middle'))


def test_missing_rays_are_named_before_anything_is_computed():
    batch = make_batch(2)
    del batch['data_samples'][1].gt_rays
    model = build()
    model.detector.backbone.register_forward_hook(lambda *args: pytest.fail('computed'))
    with pytest.raises(KeyError, match=r"gt_rays, missing in samples \['sample1'\].*PrepareRays"):
        run(model, batch, 'loss')


@pytest.mark.parametrize('changes, message', [
    (dict(volume=dict(module='neck_3d')),
     r"\(8, 6, 4\) cells \(Z, Y, X\).*grid of \(4, 6, 8\).*order='xyz' "),
    (dict(occ_head=dict(HEAD, in_channels=9)),
     r'the output of neck_3d gives a volume of 6 channels, \(1, 6, 4, 6, 8\).*in_channels=9'),
    (dict(occ_head=dict(HEAD, upsample=(2, 2, 1))),
     r"\(4, 6, 8\) cells.*upsample=\(2, 2, 1\) and expects \(2, 3, 8\)"),
    (dict(occ_head=dict(HEAD, grid=dict(point_cloud_range=RANGE, voxel_size=[1, 1, 1]))),
     r'\(4, 6, 8\) cells.*grid of \(4, 12, 16\)'),
    (dict(volume=dict(module='neck', order='yx')), r'\(3, 6, 4, 8\), expected \(B, C, Z, Y, X\)'),
])
def test_volumes_that_do_not_fit_name_both_shapes(changes, message):
    with pytest.raises(ValueError, match=message):
        run(build(**changes), make_batch(1), 'loss')


@pytest.mark.parametrize('detector', ['MultiViewImVoxelNet', 'ImVoxelNet'])
def test_another_range_is_an_error_at_once(detector):
    build(dict(type=detector))
    grid = dict(point_cloud_range=[-8, -6, -2, 8, 6, 2], voxel_size=[2., 2., 1.])
    with pytest.raises(ValueError, match=rf'of {detector} has the range .*-1.0, 8.0.*one place'):
        build(dict(type=detector), occ_head=dict(HEAD, grid=grid))


def test_lift_and_head_of_different_places_are_an_error():
    """The same check in this project's own detector."""
    grid = dict(LANGOCC['img_view_transformer']['grid_config'], z=[0, 4, 1.])
    lift = dict(LANGOCC['img_view_transformer'], grid_config=grid)
    with pytest.raises(ValueError, match=r'img_view_transformer has the range .*, 4.0\), '):
        MODELS.build(dict(LANGOCC, img_view_transformer=lift))


def test_losses_of_one_name_are_an_error():
    model = build(volume_neck=None)
    model.detector = Toy(losses=dict(loss_lang=torch.zeros(())))
    model.tap, model.detects = VolumeTap('stem', level='bev'), True
    with pytest.raises(ValueError, match=r"Toy and LangOccHead both have the losses \['loss_lang'"):
        model.loss(torch.randn(1, 6, 4, 6, 8), make_batch(1)['data_samples'])


def test_what_is_left_out_must_be_an_argument():
    with pytest.raises(TypeError, match='roi_head'):
        build(without=('roi_head',))
