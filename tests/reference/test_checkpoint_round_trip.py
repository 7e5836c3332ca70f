"""Published weights converted, loaded and run: every stage gives what the published network gives.

Theirs is computed by plain functions of their own state dict (published_network.py), ours by the
detector that loaded the converted file, with every parity switch on. Small images and a small grid.
"""
import copy
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from published_network import PublishedNetwork
from safetensors.torch import load_file
from test_net_geometry import image_augmentation, rigid

from langocc.apis import init_model
from langocc.checkpoints import FAMILIES
from langocc.structures import CameraRig

SIZE, CHANNELS = (64, 96), 4
GRID = dict(x=[-8., 8., 1.], y=[-8., 8., 1.], z=[-2., 2., 1.], depth=[1., 9., 1.])
BOX = dict(point_cloud_range=[-8, -8, -2, 8, 8, 2], voxel_size=[1., 1., 1.])
LANGOCC = dict(
    type='LangOccHead', in_channels=CHANNELS, feat_channels=16, grid=dict(BOX, alignment='edges'),
    density_decoder=dict(type='DensityDecoder', hidden_channels=16),
    decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=12, hidden_channels=16)),
    renderer=dict(type='VolumeRenderer', far=12., num_proposal_samples=10, num_samples=12,
                  jitter_at_test=True),
    losses=dict(lang=dict(type='RenderedFeatureLoss')))
OCCUPANCY = dict(type='BEVOccHead', in_channels=CHANNELS, feat_channels=4, grid=BOX, num_classes=18)
TOLERANCE = 1e-5


def config(head):
    """The published network at a fifth of its width, with ResNet-50's blocks."""
    return Config(dict(default_scope='mmdet3d', model=dict(
        type='LangOcc', num_adj=1, stereo=True,
        data_preprocessor=dict(type='OccDataPreprocessor', bgr=True),
        img_backbone=dict(type='mmdet.ResNet', depth=50, base_channels=4, stem_channels=4,
                          num_stages=4, out_indices=(0, 2, 3), norm_eval=False, style='pytorch'),
        img_neck=dict(type='CustomFPN', in_channels=[64, 128], out_channels=16, num_outs=1,
                      start_level=0, out_ids=[0]),
        img_view_transformer=dict(
            type='LSSViewTransformerBEVStereo', grid_config=GRID, input_size=SIZE, downsample=16,
            in_channels=16, out_channels=CHANNELS, truncate=True, published_invalid=True,
            depthnet_cfg=dict(use_dcn=False, aspp_mid_channels=8, stereo=True, bias=5.)),
        pre_process=dict(type='CustomResNet3D', numC_input=CHANNELS, num_layer=[1],
                         num_channels=[CHANNELS], stride=[1], backbone_output_ids=[0]),
        img_bev_encoder_backbone=dict(
            type='CustomResNet3D', numC_input=2 * CHANNELS, num_layer=[1, 2, 4],
            num_channels=[CHANNELS, 2 * CHANNELS, 4 * CHANNELS], stride=[1, 2, 2],
            backbone_output_ids=[0, 1, 2]),
        img_bev_encoder_neck=dict(type='LSSFPN3D', in_channels=7 * CHANNELS,
                                  out_channels=CHANNELS, low_memory=True),
        occ_head=head)))


def random_weights(shapes):
    """Numbers with which activations are about 1, and norms that are not the identity."""
    weights = {}
    for name, shape in shapes.items():
        if name.endswith('num_batches_tracked'):
            weights[name] = torch.tensor(3)
        elif len(shape) > 1:
            weights[name] = torch.randn(shape) / shape[1:].numel()**0.5
        elif name.endswith(('bias', 'running_mean')):
            weights[name] = 0.2 * torch.randn(shape)
        else:
            weights[name] = torch.empty(shape).uniform_(0.5, 1.5)
            if '.bn3.' in name:  # the end of a residual branch
                weights[name] *= 0.3 if name.endswith('weight') else 1
    for name in ('running_mean', 'running_var'):  # of the numbers of a camera: tens of pixels
        weights[f'img_view_transformer.depth_net.bn.{name}'] *= 100
    return weights


def run_tool(repository, *arguments):
    """tools/convert_checkpoint.py in this process."""
    argv = sys.argv
    sys.argv = ['convert_checkpoint.py', *map(str, arguments)]
    try:
        runpy.run_path(str(repository / 'tools/convert_checkpoint.py'), run_name='__main__')
    finally:
        sys.argv = argv


class Case:
    """Weights of one family, converted by the tool, both networks run on one sample."""

    def __init__(self, head, family, folder, repository):
        cfg = config(head)
        cfg.dump(folder / 'config.py')
        shapes = {FAMILIES[family].theirs(name): value.shape
                  for name, value in init_model(copy.deepcopy(cfg)).state_dict().items()}
        self.weights = random_weights(shapes)
        state = {f'module.{name}': value for name, value in self.weights.items()}
        torch.save(dict(state_dict=state, epoch=24), folder / 'theirs.pth')
        self.folder, self.run = folder, lambda *a: run_tool(repository, *a)
        self.run(folder / 'theirs.pth', folder / 'ours.pth', '--config', folder / 'config.py',
                 '--report', folder / 'report.json')
        self.model = init_model(str(folder / 'config.py'), str(folder / 'ours.pth'))
        self.theirs, self.ours = self.run_both()

    def run_both(self):
        """Stage -> tensors, of the published network and of ours, on one sample."""
        rig, bev_aug = drive(), torch.diag(torch.tensor([-1., 1, 1, 1]))
        images = torch.randint(0, 256, (3, 2, 3, *SIZE), dtype=torch.uint8,
                               generator=torch.Generator().manual_seed(1))
        rigs = [dict(cam2img=frame.cam2img, img_aug_matrix=frame.img_aug_matrix,
                     cam2global=frame.cam2global(), key=frame.key_ego2global)
                for frame in map(rig.frame, range(3))]
        network = PublishedNetwork(self.weights, GRID, SIZE, (3, 4, 6, 3))
        theirs = network(images.float(), rigs, bev_aug)
        data = self.model.data_preprocessor(dict(inputs=dict(
            imgs=[images], rig=[rig], bev_aug_matrix=[bev_aug])))
        return theirs, our_stages(self.model, data['inputs'])


def drive(cameras=2):
    """Cameras looking out of a moving car, each a little late, images augmented: (3, N, 4, 4)."""
    rng = np.random.default_rng(5)
    forward = np.array([[0., 0, 1, 0.8], [-1, 0, 0, 0], [0, -1, 0, 0.3], [0, 0, 0, 1]])
    origin = rigid(rng, 1000)  # of the whole drive, kilometres away
    cam2img, cam2ego, ego2global, img_aug = (np.tile(np.eye(4), (3, cameras, 1, 1))
                                             for _ in range(4))
    cam2img[..., 0, 0], cam2img[..., 1, 1], cam2img[..., :2, 2] = 75., 80., (98., 71.)
    for camera in range(cameras):
        turn, angle = np.eye(4), 2.2 * np.pi * camera / cameras + 0.2
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        cam2ego[:, camera] = turn @ forward
        img_aug[:, camera] = image_augmentation(rng)
        # Their rotation and scale; shifted so that image centres meet image centres.
        img_aug[:, camera, :2, 3] = (47.5, 31.5) - img_aug[0, camera, :2, :2] @ (98., 71.)
        for frame in range(3):
            step = np.eye(4)
            step[:2, 3] = -0.7 * frame + 0.05 * camera, 0.1 * frame
            ego2global[frame, camera] = origin @ step
    return CameraRig(*map(torch.tensor, (cam2img, cam2ego, ego2global, img_aug, origin)))


@torch.no_grad()
def our_stages(model, inputs):
    """What our modules were given and gave in one pass, by the names of published_network.py."""
    stages, lifter = {}, model.img_view_transformer
    net, hooks = lifter.depth_net, []

    def watch(module, given=None, gave=None):
        def note(_, args, output):
            for name, value in ((given, args[0]), (gave, output)):
                if name is not None:
                    values = value if isinstance(value, (list, tuple)) else [value]
                    stages.setdefault(name, []).extend(values)
        hooks.append(module.register_forward_hook(note))

    watch(model.img_neck, given='backbone', gave='image neck')
    watch(model.img_backbone.layer1, gave='all stride 4')
    watch(net.bn, given='camera numbers')
    watch(net.cost_volumn_net, given='cost volume')
    watch(net.depth_conv, gave='depth logits')
    watch(net.context_conv, gave='context')
    watch(model.pre_process_net, given='volume', gave='pre-process')
    watch(model.img_bev_encoder_backbone, given='concatenation', gave='3D encoder')
    watch(model.img_bev_encoder_neck, gave='3D neck')
    volume = model.extract_feat(inputs)
    stages['frustum'] = [lifter.points(inputs['rig'].frame(i), inputs['bev_aug_matrix'])
                         for i in (1, 0)]
    for hook in hooks:
        hook.remove()
    stages['stride 4 of t-2'], stages['stride 4'] = (
        stages['all stride 4'][:1], stages['all stride 4'][1:])
    stages['stride 32'] = stages['backbone'][1::2]
    return dict(stages, **our_head(model.occ_head, volume))


def our_head(head, volume):
    """Its stages, at every voxel in flat order."""
    if hasattr(head, 'predicter'):
        return {'final convolution': [head.features(volume).volume()],
                'class logits': [head(volume)[0].flatten(1).t()]}
    field = head(volume)
    ids = torch.arange(field.grid.num_voxels)
    return {'final convolution': [field.feats], 'density': [field.densities.flatten()],
            'language': [head.language(field, 0, ids)]}


@pytest.fixture(scope='module', params=['langocc', 'bevdet-occ'])
def case(request, tmp_path_factory, repository):
    torch.manual_seed(0)
    head = dict(langocc=LANGOCC).get(request.param, OCCUPANCY)
    return Case(head, request.param, tmp_path_factory.mktemp('case'), repository)


def test_every_stage(case):
    assert len(case.theirs) >= 15
    for stage, expected in case.theirs.items():
        found = case.ours[stage]
        assert len(found) == len(expected), stage
        for theirs, ours in zip(expected, found):
            ours, theirs = ours.reshape(theirs.shape).double(), theirs.double()
            scale = theirs.abs().max().clamp(min=1)
            assert theirs.std() > 1e-4 and theirs.isfinite().all(), stage  # it says something
            assert (ours - theirs).abs().max() <= TOLERANCE * scale, stage


def test_the_comparison_sees_what_it_should(case):
    """Points meet the grid and its low faces, warps leave the image, depths differ."""
    points = torch.stack(case.theirs['frustum'])
    low, high = (torch.tensor([GRID[axis][i] for axis in 'xyz']) for i in (0, 1))
    inside = ((points >= low) & (points < high)).all(-1)
    folded = ((points > low - 1) & (points < high)).all(-1) & ~inside
    assert inside.sum() > 50 and folded.sum() > 5
    cost = torch.stack(case.theirs['cost volume'])
    assert cost.max() > 0.9 and (cost.max(2).values < 0.5).any()


def test_back_again(case):
    """Ours to theirs gives every bit back; the report names every tensor."""
    case.run(case.folder / 'ours.pth', case.folder / 'back.safetensors', '--to',
             'bevdet-occ' if 'predicter.0.bias' in case.weights else 'langocc',
             '--config', case.folder / 'config.py')
    back = load_file(case.folder / 'back.safetensors')
    assert set(back) == set(case.weights)
    assert all(torch.equal(back[name], value) for name, value in case.weights.items())
    report = json.loads((case.folder / 'report.json').read_text())
    assert set(report['mapped']) == set(case.weights)
    assert not report['unused'] and not report['missing']


@pytest.mark.parametrize('switch, stage', [
    (dict(bgr=False), 'stride 4'), (dict(truncate=False), 'volume'),
    (dict(published_invalid=False), 'cost volume')])
def test_each_switch_is_seen(case, switch, stage):
    """Without it that stage differs, and the stages before it do not."""
    (name, value), = switch.items()
    owner = case.model.data_preprocessor if name == 'bgr' else case.model.img_view_transformer
    published = getattr(owner, name)
    try:
        setattr(owner, name, value)
        _, ours = case.run_both()
    finally:
        setattr(owner, name, published)
    order = ['frustum', 'stride 4', 'cost volume', 'volume']
    for other in order[:order.index(stage) + 1]:
        difference = max((a - b).abs().max().item() for a, b in zip(ours[other], case.ours[other]))
        assert (difference > 1e-3) == (other == stage), other
