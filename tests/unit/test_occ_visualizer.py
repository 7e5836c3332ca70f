"""OccVisualizer and its hook: the pictures that were asked for, of the right samples, and where."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS, VISUALIZERS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from nusc_factory import CAMERAS, DATA_CONFIG, GRID_SHAPE
from PIL import Image

from langocc.apis import SampleVisualizer
from langocc.engine import OccVisualizationHook
from langocc.structures import OccData
from langocc.visualization import (
    DISTANCE_COLORMAP, ERROR_COLORS, OCC3D_PALETTE, VIEWS, CameraMaps, OccVisualizer,
    compare_occupancy, draw_errors_bev, map_colors, voxel_colors
)
from langocc.visualization.comparison import UNSEEN_COLOR
from langocc.visualization.occupancy import BACKGROUND
from voxelrender import VoxelGrid

GRID = dict(point_cloud_range=[-10, -10, -1, 10, 10, 3], voxel_size=[1., 1., 1.])
FREE, CAR, WALL = 17, 4, 15
RENDERED = {'cameras', 'distances', 'opacities', 'classes', 'features', 'occupancy_3d',
            'occupancy_bev', 'errors'}
WORDS = ['car', 'tree', 'wall', 'road']


@MODELS.register_module()
class SeenDetector(BaseModel):
    """A detector with the head whose volume is a function of its images."""

    def __init__(self, occ_head, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.occ_head = MODELS.build(occ_head)
        self.calls = []

    def extract_field(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        self.calls.append(len(batch['imgs']))
        volume = torch.randn(1, 3, 4, 20, 20, generator=torch.Generator().manual_seed(0))
        # Images of noise differ little in their means.
        means = 100 * batch['imgs'].mean(dim=(1, 2, 3, 4, 5)).view(-1, 1, 1, 1, 1)
        return self.occ_head(3 * volume + means)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        predictions = self.occ_head.predict_by_field(self.extract_field(inputs))
        for sample, prediction in zip(data_samples, predictions):
            sample.pred_occ = prediction
        return data_samples


@MODELS.register_module()
class VoxelDetector(BaseModel):
    """A detector without a field: it predicts cars everywhere ahead."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        for sample in data_samples:
            semantics = torch.full(GRID_SHAPE, FREE, dtype=torch.uint8)
            semantics[15:] = CAR
            sample.pred_occ = OccData(semantics=semantics)
        return data_samples


@pytest.fixture
def config(tiny_root, tmp_path):
    rows = np.random.default_rng(0).standard_normal((4, 6))
    np.savez(tiny_root / 'text.npz', all=rows / np.linalg.norm(rows, axis=1, keepdims=True))
    (tiny_root / 'text.json').write_text(json.dumps(dict(all=WORDS)))
    (tiny_root / 'words.txt').write_text('car: car\nvegetation: tree\nmanmade: wall\n')
    text_encoder = dict(type='TextEmbeddings', files=str(tiny_root / 'text.npz'))
    head = dict(
        type='LangOccHead', in_channels=3, feat_channels=8, grid=GRID,
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=6, num_hidden=0)),
        renderer=dict(type='VolumeRenderer', far=15., num_proposal_samples=10, num_samples=12),
        losses=dict(), vocabulary=dict(type='Vocabulary', path=str(tiny_root / 'words.txt'),
                                       text_encoder=text_encoder))
    pipeline = [dict(type='PrepareImageInputs', data_config=DATA_CONFIG),
                dict(type='LoadOccGTFromFile', grid_shape=GRID_SHAPE),
                dict(type='PackOccInputs')]
    dataset = dict(type='NuScenesOccDataset', data_root=str(tiny_root),
                   ann_file='tiny_infos_all.json', camera_names=list(CAMERAS),
                   pipeline=pipeline, test_mode=True)
    loader = dict(batch_size=2, num_workers=0, dataset=dataset,
                  sampler=dict(type='DefaultSampler', shuffle=False))
    return Config(dict(
        default_scope='mmdet3d', work_dir=str(tmp_path / 'work'),
        model=dict(type='SeenDetector', occ_head=head,
                   data_preprocessor=dict(type='OccDataPreprocessor')),
        val_dataloader=loader, test_dataloader=loader, val_cfg=dict(), test_cfg=dict(),
        val_evaluator=dict(type='OccMetric'), test_evaluator=dict(type='OccMetric'),
        visualizer=dict(type='OccVisualizer', vis_backends=[dict(type='LocalVisBackend')],
                        grid=GRID, width=640, map_width=20, far=15.)))


@pytest.fixture
def sample(config):
    """The first sample, with a prediction."""
    config.needs_checkpoint = False
    return SampleVisualizer(config, device='cpu').predict(0)[0]


@pytest.fixture
def visualizer(config, tmp_path):
    return build(config, save_dir=str(tmp_path / 'backend'))


def build(config, **settings):
    """As configured; the registry would return the last test's of the same name."""
    known = {key: value for key, value in config.visualizer.items() if key != 'type'}
    return OccVisualizer(**known, **settings)


def written(folder):
    return sorted(path.name for path in folder.rglob('*.png'))


def test_backends_get_every_picture_and_the_sheet(visualizer, sample, tmp_path):
    visualizer.add_datasample('some', data_sample=sample, step=7)
    names = RENDERED - {'opacities', 'features'} | {'sheet'}
    assert written(tmp_path / 'backend') == sorted(f'some_{view}_7.png' for view in names)
    sheet = np.array(Image.open(next((tmp_path / 'backend').rglob('*sheet*'))))
    assert sheet.shape[1] == 640 and (sheet == visualizer.get_image()).all()
    pictures = visualizer.draw(sample)
    heights = [picture.shape[0] for view, picture in pictures.items() if view != 'sheet']
    assert max(heights) < sheet.shape[0] < 1.3 * sum(heights)
    for picture in pictures.values():
        assert picture.shape[1] <= 640


def test_a_folder_takes_the_place_of_the_backends(visualizer, sample, tmp_path):
    visualizer.add_datasample('some', data_sample=sample, out_dir=tmp_path / 'out')
    assert not written(tmp_path / 'backend')
    assert 'sheet.png' in written(tmp_path / 'out' / 'some')


def test_only_what_is_wanted_and_known_is_drawn(config, visualizer, sample):
    labels = visualizer.draw(sample, draw_pred=False)
    assert set(labels) == {'cameras', 'distances', 'classes', 'occupancy_3d', 'occupancy_bev',
                           'sheet'}
    assert set(visualizer.draw(sample, draw_gt=False)) == set(labels)
    nothing = visualizer.draw(sample, draw_gt=False, draw_pred=False)
    assert set(nothing) == {'cameras', 'sheet'}
    few = build(config, views=['errors', 'cameras'])
    assert list(few.draw(sample)) == ['errors', 'cameras', 'sheet'] and not few.needs_maps
    assert visualizer.needs_maps


def test_labels_are_read_where_the_pipeline_has_not_loaded_them(visualizer, sample):
    whole = visualizer.draw(sample)
    bare = sample.clone()
    del bare.gt_occ
    for view, picture in visualizer.draw(bare).items():
        assert (picture == whole[view]).all(), view
    flip = sample.clone()
    flip.set_metainfo(dict(bev_aug_matrix=np.diag([1., -1., 1., 1.])))
    flip.gt_occ = OccData(**{key: value.flip(1) for key, value in sample.gt_occ.items()})
    expected = visualizer.draw(flip, draw_pred=False)
    labels = visualizer.draw(bare, draw_pred=False)
    # What the cameras see is the same; from above, left and right are exchanged.
    assert (expected['classes'] == labels['classes']).all()
    assert (expected['occupancy_bev'] != labels['occupancy_bev']).any()
    del flip.gt_occ
    for view, picture in visualizer.draw(flip, draw_pred=False).items():
        assert (picture == expected[view]).all(), view
    bare.set_metainfo(dict(occ_path=None))
    assert 'errors' not in visualizer.draw(bare)


def test_labels_that_are_not_there_are_not_drawn(visualizer, sample, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    bare = sample.clone()
    del bare.gt_occ
    bare.set_metainfo(dict(occ_path='/nowhere/labels.npz'))
    pictures = visualizer.draw(bare)
    assert set(pictures) == RENDERED - {'opacities', 'features', 'errors'} | {'sheet'}
    assert said == ['sample scene-a-0: no occupancy labels /nowhere/labels.npz, drawn without']


def test_given_images_are_drawn(visualizer, sample):
    red = np.zeros((45, 80, 3), np.uint8)
    red[..., 0] = 201
    picture = visualizer.draw(sample, {name: red for name in CAMERAS})['cameras']
    assert (picture == red[0, 0]).all(-1).sum() > 5000


def test_rendered_maps_are_drawn_as_given(visualizer, sample):
    """Colour is drawn where the model has it; a ray of no opacity has no class."""
    maps = {}
    for camera in CAMERAS:
        opacities = np.ones((9, 16), np.float32)
        opacities[:, 8:] = 0
        maps[camera] = CameraMaps(
            distances=np.full((9, 16), 15., np.float32), opacities=opacities,
            classes=np.full((9, 16), CAR, np.uint8),
            rgb=np.broadcast_to(np.float32([0, 1, 0]), (9, 16, 3)))
    pictures = visualizer.draw(sample, draw_gt=False, rendered=maps)
    assert set(pictures) == RENDERED - {'features', 'errors'} | {'rgb', 'sheet'}
    both = 2 * 252 * 142  # pixels of two cameras on a sheet of 640

    def share(view, color):
        return (pictures[view] == color).all(-1).sum() / both

    assert share('rgb', [0, 255, 0]) == pytest.approx(1, abs=0.02)
    assert share('classes', OCC3D_PALETTE[CAR]) == pytest.approx(0.5, abs=0.02)
    far = map_colors(np.array(1.), 0., 1., DISTANCE_COLORMAP)
    assert share('distances', far) == pytest.approx(1, abs=0.02)


def test_what_cannot_be_drawn_is_named(config, visualizer, sample):
    with pytest.raises(ValueError, match='data_sample'):
        visualizer.draw(None)
    with pytest.raises(ValueError, match=r"\['depth'\]"):
        OccVisualizer(views=['depth'])
    with pytest.raises(ValueError, match='grey'):
        OccVisualizer(unseen='grey')
    with pytest.raises(ValueError, match='600'):
        OccVisualizer(width=100, grid=GRID).draw(sample)
    with pytest.raises(ValueError, match=r'\(20, 20, 4\).*\(200, 200, 16\)'):
        OccVisualizer().draw(sample)
    bare = sample.clone()
    del bare.images
    with pytest.raises(KeyError, match='images'):
        visualizer.draw(bare)


# ------------------------------------------------------------------------- comparison

def test_errors_are_counted_under_the_mask_and_drawn_in_their_colours():
    truth = np.full((20, 20, 2), FREE, np.uint8)
    prediction, mask = truth.copy(), np.ones(truth.shape, bool)
    truth[0, 0] = CAR  # one class right, one wrong
    prediction[0, 0] = CAR, WALL
    truth[0, 1, 0] = CAR
    prediction[1, 0, 1] = CAR
    truth[1, 1], prediction[1, 2] = CAR, WALL
    mask[1, 1:] = False
    errors = compare_occupancy(prediction, truth, mask)
    assert [int(kind.sum()) for kind in errors] == [1, 1, 1, 1]
    assert errors.geometric_iou == 0.5
    unmasked = compare_occupancy(prediction, truth)
    assert [int(kind.sum()) for kind in unmasked] == [1, 1, 3, 3]
    picture = draw_errors_bev(errors, VoxelGrid(**dict(GRID, voxel_size=[1., 1., 2.])), mask, 1)
    right, confused, missed, false = ERROR_COLORS.astype(float)
    # x up, y left: voxel [0, 0] is at the bottom right.
    expected = {(19, 19): (right + confused) / 2, (19, 18): missed, (18, 19): false,
                (18, 18): UNSEEN_COLOR, (18, 17): UNSEEN_COLOR, (17, 19): BACKGROUND}
    for (row, column), color in expected.items():
        assert np.abs(picture[row, column] - np.array(color)).max() <= 0.5, (row, column)
    with pytest.raises(ValueError, match=r'\(1, 20, 2\)'):
        compare_occupancy(prediction[:1], truth)
    empty = np.full((1, 1, 1), FREE)
    assert np.isnan(compare_occupancy(empty, empty).geometric_iou)


def test_unseen_voxels_are_drawn_pale_or_left_out():
    semantics = np.array([[[CAR, CAR, FREE]]])
    mask = np.array([[[True, False, True]]])
    for unseen, occupied in (('draw', [1, 1, 0]), ('pale', [1, 1, 0]), ('hide', [1, 0, 0])):
        drawn, colors = voxel_colors(semantics, mask, unseen)
        assert drawn[0, 0].tolist() == [bool(value) for value in occupied]
        assert (colors[0, 0, 0] == OCC3D_PALETTE[CAR]).all()
        assert (colors[0, 0, 1] > OCC3D_PALETTE[CAR]).any() == (unseen == 'pale')
    with pytest.raises(ValueError, match='grey'):
        voxel_colors(semantics, mask, 'grey')
    with pytest.raises(ValueError, match='shape'):
        voxel_colors(semantics, mask[..., :2])


# ------------------------------------------------------------------------- the hook

def run(config, mode, **hook):
    """Runs validation or test with the hook; the runner and the pictures' names."""
    config.default_hooks = dict(visualization=dict(type='OccVisualizationHook', **hook),
                                checkpoint=None, logger=None)
    runner = Runner.from_cfg(config)
    getattr(runner, mode)()
    folder = Path(config.work_dir) / runner.timestamp / 'vis_data'
    return runner, {name.split('_')[1] for name in written(folder) if 'sheet' in name}


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_the_hook_draws_the_samples_whose_turn_it_is(config, mode):
    runner, drawn = run(config, mode, draw=True, interval=2, num_samples=2)
    assert drawn == {'00000', '00002'}
    files = written(Path(config.work_dir) / runner.timestamp / 'vis_data' / 'vis_image')
    assert files == sorted(f'{mode}_{index}_{view}_0.png' for index in drawn
                           for view in RENDERED | {'sheet'})
    # Three batches of two, and the two samples that are drawn, alone.
    assert sorted(runner.model.calls) == [1, 1, 2, 2, 2]
    getattr(runner, mode)()
    assert sorted(runner.model.calls) == [1] * 4 + [2] * 6  # counted anew


def test_every_sample_without_a_limit(config):
    assert run(config, 'val', draw=True, interval=1, num_samples=None)[1] == {
        f'{index:05d}' for index in range(6)}


def test_the_hook_and_the_tool_draw_the_same(config, tmp_path):
    """Sample 3 is the second of its batch; its field depends on its images."""
    runner, drawn = run(config, 'test', draw=True, interval=3, out_dir='pictures')
    assert not (Path(config.work_dir) / runner.timestamp / 'vis_data' / 'vis_image').exists()
    config.needs_checkpoint = False
    tool = SampleVisualizer(config, device='cpu')
    tool.model = runner.model.eval()  # of the same weights
    folder, = tool.draw([3], tmp_path / 'tool')
    assert folder.name == '00003_scene-b-0'
    for view in RENDERED | {'sheet'}:
        hooked = Path(config.work_dir, runner.timestamp, 'pictures', 'test_00003', f'{view}.png')
        assert difference(hooked, folder / f'{view}.png') < 0.2, view  # rounding of densities
    first, other = (tool.predict(index)[1][CAMERAS[0]].feats for index in (3, 4))
    assert np.abs(first - other).max() > 1e-2


def difference(first, second):
    """Mean difference of two pictures, in steps of 255."""
    first, second = (np.array(Image.open(path)).astype(float) for path in (first, second))
    return np.abs(first - second).mean()


def test_validation_pictures_in_a_folder_keep_the_iteration(config):
    runner, _ = run(config, 'val', draw=True, interval=9, out_dir='pictures')
    pictures = Path(config.work_dir) / runner.timestamp / 'pictures'
    assert [path.name for path in pictures.iterdir()] == ['val_00000_0']


def test_a_model_without_a_field_is_drawn_by_its_voxels(config):
    config.model = dict(type='VoxelDetector',
                        data_preprocessor=dict(type='OccDataPreprocessor'))
    runner, drawn = run(config, 'val', draw=True, interval=9)
    assert {name.split('_', 2)[2][:-6] for name in written(Path(config.work_dir))} == \
        RENDERED - {'opacities', 'features'} | {'sheet'}


def test_the_hook_is_off_by_default_and_checks_early(config):
    runner, drawn = run(config, 'val')
    assert not drawn and runner.model.calls == [2, 2, 2]
    config.visualizer = dict(type='Visualizer')
    assert not run(config, 'val')[1]
    with pytest.raises(TypeError, match='OccVisualizer'):
        run(config, 'val', draw=True)
    for wrong in (dict(interval=0), dict(num_samples=0)):
        with pytest.raises(ValueError, match='at least 1'):
            OccVisualizationHook(**wrong)


# ------------------------------------------------------------------------- the tool's class

def test_labels_alone_need_no_model(config, tmp_path):
    config.pop('model')
    drawer = SampleVisualizer(config, labels_only=True, views=['cameras', 'classes', 'errors'])
    folder, = drawer.draw(['scene-a-1'], tmp_path / 'out')
    assert folder.name == '00001_scene-a-1'
    assert written(folder) == ['cameras.png', 'classes.png', 'sheet.png']


def test_settings_come_from_the_config_and_are_overridden(config):
    drawer = SampleVisualizer(config, labels_only=True, map_width=9)
    assert drawer.visualizer.width == 640 and drawer.visualizer.map_width == 9
    config.visualizer = dict(type='Visualizer')
    assert SampleVisualizer(config, labels_only=True).visualizer.views == tuple(VIEWS)


def test_missing_checkpoints_and_samples_are_named(config):
    with pytest.raises(ValueError, match='CHECKPOINT'):
        SampleVisualizer(config)
    drawer = SampleVisualizer(config, labels_only=True)
    for wrong in ('nowhere', 6):
        with pytest.raises(KeyError, match=str(wrong)):
            drawer.draw([0, wrong], 'unused')


def test_the_visualizer_is_mmengines():
    assert issubclass(OccVisualizer, Visualizer)
    assert VISUALIZERS.get('OccVisualizer') is OccVisualizer
