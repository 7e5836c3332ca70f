"""Predicting a sequence sample by sample: the same as predicting every sample alone."""
import copy
import gc
import weakref

import pytest
import torch
from mmengine.config import Config
from nusc_factory import CAMERAS, DATA_CONFIG
from test_detector import CONFIG, SIZE, build, make_rig
from torch import nn

from langocc.apis import OccInferencer
from langocc.models import LangOcc, StreamState, optimize_for_inference
from langocc.structures import CameraRig


class Drive:
    """A car that turns while it drives; cameras fire at their own times.

    So a frame's cameras stand elsewhere in its own key ego frame than its neighbours' do in theirs.
    """

    def __init__(self, length=6, cameras=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(length, cameras, 3, *SIZE, generator=generator)
        self.still = make_rig(1, cameras)
        self.cameras = cameras
        self.poses = torch.stack([torch.stack(
            [self.pose(frame + 0.1 * (camera + frame % 2)) for camera in range(cameras)])
            for frame in range(length)])

    def pose(self, time):
        angle, pose = torch.tensor(0.1 * time), torch.eye(4, dtype=torch.float64)
        pose[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]),
                                    torch.stack([angle.sin(), angle.cos()])])
        pose[0, 3], pose[1, 3] = 1.3 * time, 0.2 * time * time
        return pose

    def sample(self, key, frames=3, scene_start=0, bev=None):
        """Batch of one; frames before the scene's start are the key frame again."""
        order = [key - back if key - back >= scene_start else key for back in range(frames)]
        shape = (1, frames, self.cameras, 4, 4)
        rig = CameraRig(self.still.cam2img.expand(shape), self.still.cam2ego.expand(shape),
                        self.poses[order][None], self.still.img_aug_matrix.expand(shape),
                        self.pose(key)[None])
        bev = torch.eye(4) if bev is None else bev
        return dict(imgs=self.images[order][None].clone(), rig=rig, bev_aug_matrix=bev[None])


def pair(one, other):
    """A batch of two."""
    rigs = [CameraRig(**{name: value[0] for name, value in vars(batch['rig']).items()})
            for batch in (one, other)]
    return dict(imgs=torch.cat([one['imgs'], other['imgs']]), rig=CameraRig.stack(rigs),
                bev_aug_matrix=torch.cat([one['bev_aug_matrix'], other['bev_aug_matrix']]))


def eval_model(**changes):
    model = build(**changes)
    model.eval()
    return model


@pytest.fixture
def model():
    return eval_model()


@pytest.fixture
def backbone_runs(model):
    """One entry for each time the whole backbone runs."""
    runs = []
    model.img_backbone.register_forward_hook(lambda *_: runs.append(1))
    return runs


@torch.no_grad()
def check(model, batches, state=None):
    """Streamed volumes and depths are those of each batch alone."""
    state = StreamState() if state is None else state
    for batch in batches:
        volume, depth = model.extract_volume(batch)
        streamed, streamed_depth = model.extract_volume(batch, state)
        assert torch.equal(streamed, volume) and torch.equal(streamed_depth, depth)
    return state


def test_a_drive_is_the_same_and_meets_the_backbone_once(model, backbone_runs):
    drive = Drive()
    with torch.no_grad():
        expected = [model.extract_volume(drive.sample(key))[0] for key in range(6)]
        assert len(backbone_runs) == 12
        backbone_runs.clear()
        state = StreamState()
        for key, volume in enumerate(expected):
            assert torch.equal(model.extract_volume(drive.sample(key), state)[0], volume)
    assert len(backbone_runs) == 6 == state.misses == state.hits


def test_the_depth_net_is_asked_anew(model):
    """Else the test above would show nothing: the camera's place in the key ego frame differs."""
    rigs = [Drive().sample(key)['rig'] for key in (3, 4)]
    moved = rigs[0].frame(0).cam2key() - rigs[1].frame(0).cam2key()
    assert moved.abs().max() > 0.1
    calls = []
    match = model.img_view_transformer.match
    model.img_view_transformer.match = lambda *args: (calls.append(1), match(*args))[1]
    with torch.no_grad():
        state = StreamState()
        for key in range(3, 6):
            model.extract_volume(Drive().sample(key), state)
    assert len(calls) == 4  # two of the first sample, then the new frame's only


def test_jumps_scenes_gaps_and_repeats(model):
    drive, other = Drive(), Drive(seed=1)
    batches = [drive.sample(4), drive.sample(2), drive.sample(2), drive.sample(5),
               other.sample(5), other.sample(3, scene_start=3), other.sample(4, scene_start=3),
               drive.sample(5)]
    state = check(model, batches)
    assert state.hits >= 4


def test_a_corrected_pose_and_a_repaired_image_are_new_frames(model, backbone_runs):
    drive = Drive()
    state = check(model, [drive.sample(3)])
    drive.poses[3, 1, 0, 3] += 0.5
    check(model, [drive.sample(4)], state)
    drive.images[4, 0, 0, 0, 0] += 1
    backbone_runs.clear()
    check(model, [drive.sample(5)], state)
    assert len(backbone_runs) == 4 and state.hits == 0


def test_another_frame_before_changes_the_match_only(model, backbone_runs):
    """The same frame, whose stereo reference is another one than when it was the key frame."""
    drive = Drive()
    state = check(model, [drive.sample(3)])
    gap = drive.sample(4)
    drive.images[2] = drive.images[0]
    backbone_runs.clear()
    check(model, [drive.sample(4)], state)
    assert len(backbone_runs) == 3 and state.hits == 1
    with torch.no_grad():
        assert not torch.equal(*(model.extract_volume(b)[0] for b in (gap, drive.sample(4))))


def test_bev_augmentation_may_change(model):
    drive, flip = Drive(), torch.diag(torch.tensor([1., -1, 1, 1]))
    state = check(model, [drive.sample(3), drive.sample(4, bev=flip), drive.sample(5)])
    assert state.hits == 2


def test_a_batch_of_two_drives(model):
    drives = Drive(), Drive(seed=1)
    state = check(model, [pair(*(drive.sample(key) for drive in drives)) for key in range(2, 6)])
    assert state.hits == 3
    check(model, [drives[1].sample(5)], state)  # another batch size: nothing is known


@pytest.mark.parametrize('num_adj, stereo', [(0, True), (2, True), (1, False), (0, False)])
def test_other_numbers_of_frames(num_adj, stereo):
    frames = 1 + num_adj + stereo
    model = eval_model(
        num_adj=num_adj, stereo=stereo,
        img_backbone=dict(CONFIG['img_backbone'], out_indices=(0, 2, 3) if stereo else (2, 3)),
        img_bev_encoder_backbone=dict(CONFIG['img_bev_encoder_backbone'],
                                      numC_input=4 * (1 + num_adj)))
    state = check(model, [Drive().sample(key, frames) for key in range(6)])
    assert state.misses == 6


def test_only_the_last_frames_are_kept(model):
    drive, state = Drive(), StreamState()
    with torch.no_grad():
        model.extract_volume(drive.sample(2), state)
        kept = [weakref.ref(frame) for frame in state._frames]
        for key in (3, 4, 5):
            model.extract_volume(drive.sample(key), state)
    gc.collect()
    assert len(state._frames) == 3 and all(frame() is None for frame in kept)


def test_another_model_or_precision_forgets(model):
    drive, state = Drive(), StreamState()
    check(model, [drive.sample(3)], state)
    other = copy.deepcopy(model)
    other.img_backbone.conv1.weight.data *= 2
    check(other, [drive.sample(4)], state)
    with torch.autocast('cpu', torch.bfloat16):
        check(other, [drive.sample(4)], state)
    check(other, [drive.sample(4)], state)
    assert state.hits == 0
    check(other, [drive.sample(5)], state)
    assert state.hits == 1
    state.clear()
    check(other, [drive.sample(5)], state)
    assert state.hits == 0


def test_streams_are_for_prediction(model):
    with pytest.raises(RuntimeError, match='no_grad'):
        model.extract_volume(Drive().sample(3), StreamState())
    model.train()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r'eval\(\)'):
        model.extract_volume(Drive().sample(3), StreamState())


def test_predict_takes_a_stream(model):
    state, samples = StreamState(), [copy.copy(s) for s in make_samples(3)]
    with torch.no_grad():
        model.occ_head.density_threshold = 0.5
        for key, sample in zip((3, 4, 5), samples):
            streamed, = model.predict(Drive().sample(key), [sample], stream=state)
            occupancy = streamed.pred_occ.semantics.clone()
            alone, = model.predict(Drive().sample(key), [sample])
            assert torch.equal(occupancy, alone.pred_occ.semantics)
    assert state.hits == 2


def make_samples(count):
    from mmdet3d.structures import Det3DDataSample
    return [Det3DDataSample() for _ in range(count)]


# --------------------------------------------------------------- the inferencer

@pytest.fixture
def config(tiny_root):
    head = copy.deepcopy(CONFIG['occ_head'])
    pipeline = [dict(type='PrepareImageInputs', data_config=dict(DATA_CONFIG, input_size=SIZE)),
                dict(type='PackOccInputs')]
    dataset = dict(type='NuScenesOccDataset', data_root=str(tiny_root),
                   ann_file='tiny_infos_all.json', camera_names=list(CAMERAS), pipeline=pipeline,
                   test_mode=True)
    return Config(dict(model=dict(copy.deepcopy(CONFIG), occ_head=head),
                       test_dataloader=dict(dataset=dataset)))


@pytest.fixture
def inferencer(config):
    torch.manual_seed(0)
    inferencer = OccInferencer(config, device='cpu')
    inferencer.model.occ_head.density_threshold = inferencer.field(0)[0].densities.median().item()
    return inferencer


def test_the_inferencer_streams_a_data_set(inferencer):
    runs = []
    inferencer.model.img_backbone.register_forward_hook(lambda *_: runs.append(1))
    streamed = list(inferencer.stream())
    assert len(runs) == 6  # two scenes of three samples
    alone = [inferencer([index])['predictions'][0] for index in range(6)]
    assert [r.token for r in streamed] == [r.token for r in alone]
    for one, other in zip(streamed, alone):
        assert 0 < len(one.voxel_indices) and (one.voxel_indices == other.voxel_indices).all()
    assert [r.token for r in inferencer.stream(['scene-b-1', 0])] == ['scene-b-1', 'scene-a-0']


def test_a_detector_without_frames_to_keep_is_named(inferencer):
    inferencer.model.extract_field = lambda batch: None
    with pytest.raises(TypeError, match='LangOcc.extract_field takes no stream'):
        inferencer.stream()


def test_reduced_precision_of_the_inferencer(config, inferencer):
    torch.manual_seed(0)
    half = OccInferencer(config, device='cpu', dtype='bfloat16')
    half.model.load_state_dict(inferencer.model.state_dict())
    full, half = inferencer.field(3)[0], half.field(3)[0]
    assert half.feats.dtype == torch.bfloat16 and half.densities.dtype == torch.float32
    error = (half.densities - full.densities).abs().max()
    assert 0 < error < 0.02
    with pytest.raises(ValueError, match="'float8' is not one of .*bfloat16"):
        OccInferencer(config, dtype='float8')


def test_reduced_precision_streams_and_answers(config):
    half = OccInferencer(config, device='cpu', dtype='bfloat16')
    half.model.occ_head.density_threshold = half.field(0)[0].densities.median().item()
    for one, index in zip(half.stream(), range(6)):
        other, = half([index])['predictions']
        assert (one.voxel_indices == other.voxel_indices).all() and len(one.voxel_indices)
    assert half.index(0).feats.dtype == torch.float32


# ---------------------------------------------------------- folded batch norms

@pytest.mark.parametrize('low_memory', [False, True])
def test_an_optimized_model_predicts_the_same(low_memory):
    model = eval_model(img_bev_encoder_neck=dict(CONFIG['img_bev_encoder_neck'],
                                                 low_memory=low_memory))
    for name, value in model.state_dict().items():
        if value.ndim == 1 and value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5)
    batch = Drive().sample(4)
    with torch.no_grad():
        expected, depth = model.extract_volume(batch)
        expected_density = model.extract_field(batch).densities
        assert optimize_for_inference(model) is model
        volume, found_depth = model.extract_volume(batch)
        densities = model.extract_field(batch).densities
    scale = expected.abs().max()
    assert scale > 0 and (volume - expected).abs().max() < 1e-5 * scale
    assert (found_depth - depth).abs().max() < 1e-5
    assert (densities - expected_density).abs().max() < 1e-5
    left = [name for name, module in model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert left == ['img_view_transformer.depth_net.bn']


def test_a_model_in_training_is_not_optimized():
    model = build()
    model.train()
    with pytest.raises(RuntimeError, match=r'eval\(\)'):
        optimize_for_inference(model)
    assert isinstance(model, LangOcc)


def test_norms_that_do_not_follow_their_convolution_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.context_conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm1d(27)
            self.parts = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(),
                                       nn.BatchNorm2d(2))

    net = optimize_for_inference(Net().eval())
    assert [type(m) for m in net.parts] == [nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    assert isinstance(net.bn, nn.BatchNorm1d)
