"""docs/your_dataset.md on the real sequence: labels, infos and config; its commands' options."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from langocc.datasets.nuscenes_prepare import prepare_infos
from langocc.datasets.nuscenes_tables import REQUIRED_FIELDS
from langocc.engine.config_options import check_image_sizes
from langocc.teachers import Reducer, Vocabulary
from langocc.teachers.probability_teacher import CITYSCAPES_CLASSES


@pytest.fixture
def text(repository):
    return (repository / 'docs/your_dataset.md').read_text()


def blocks(text, language):
    return re.findall(rf'```{language}\n(.*?)```', text, re.S)


@pytest.fixture
def config(text, repository, pandaset_root, tmp_path, monkeypatch):
    """The page's config on the pack, in a folder laid out as the page says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/my_street').symlink_to(pandaset_root)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/_base_').symlink_to(repository / 'configs/_base_')
    crop, _, code, split, _ = blocks(text, 'python')
    exec(compile(crop, 'your_dataset.md, labels', 'exec'), {})
    report = prepare_infos(
        pandaset_root, 'v1.0-mini', tmp_path / 'infos', splits='all', prefix='my_street',
        cameras=['CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'], occ_root=tmp_path / 'labels',
        required=('image', 'occupancy'))
    assert report.complete
    Reducer(torch.randn(512, 128) * 0.1).save(tmp_path / 'infos/reducer_128.safetensors')
    (tmp_path / 'configs/my_street.py').write_text(code)
    (tmp_path / 'configs/my_street_split.py').write_text(split)
    init_default_scope('mmdet3d')
    return Config.fromfile('configs/my_street.py')


def test_text_embeddings_as_described_give_the_vocabulary(text, tmp_path, monkeypatch):
    code = blocks(text, 'python')[1]
    monkeypatch.chdir(tmp_path)
    rows = np.eye(19, 512, dtype=np.float16)
    exec(code, dict(my_text_encoder=lambda prompts: rows))
    assert len(json.loads(Path('names.json').read_text())['cityscapes']) == 19
    text_encoder = dict(type='TextEmbeddings', files='clip_vit_b16.npz')
    vocabulary = Vocabulary('pandaset_cityscapes', text_encoder)
    assert set(CITYSCAPES_CLASSES) <= set(vocabulary.prompts)  # what the example's teacher asks for
    assert len(vocabulary) == 19 and np.array_equal(vocabulary.text_embeds.numpy(), rows)


def sizes(part):
    if isinstance(part, dict) and 'input_size' in part:
        yield tuple(part['input_size'])
    for item in part.values() if isinstance(part, dict) else part:
        if isinstance(item, (dict, list, tuple)):
            yield from sizes(item)


def test_larger_images_by_a_config_of_ones_own(text, repository, tmp_path):
    """The page's config changes every place; the variable alone changes none."""
    base = repository / 'configs/langocc-tiny_r18_1xb1_synthetic-camera.py'
    (tmp_path / 'finer.py').write_text(
        blocks(text, 'python')[4].replace(base.name, str(base)))
    parts = ('model', 'train_dataloader', 'val_dataloader', 'test_dataloader')
    finer = Config.fromfile(tmp_path / 'finer.py')
    assert [size for part in parts for size in sizes(finer[part])] == [(192, 352)] * 5
    check_image_sizes(finer)
    (tmp_path / 'alone.py').write_text(f"_base_ = '{base}'\ninput_size = (192, 352)\n")
    alone = Config.fromfile(tmp_path / 'alone.py')
    assert alone.input_size == (192, 352)
    assert {size for part in parts for size in sizes(alone[part])} == {(144, 256)}


def test_the_config_trains_and_predicts(config):
    dataset = DATASETS.build(config.train_dataloader.dataset)
    np.random.seed(0)
    batch = pseudo_collate([dataset[8]])
    assert batch['inputs']['imgs'][0].shape[:2] == (3, 3) and len(dataset) == 16
    model = MODELS.build(config.model)
    model.train()
    loss, log = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    loss.backward()
    assert torch.isfinite(loss) and {'loss_lang', 'loss_sky', 'loss_ground'} <= set(log)
    assert model.img_backbone.conv1.weight.grad.any()
    test = DATASETS.build(config.test_dataloader.dataset)
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(pseudo_collate([test[8]]), False)
        sample, = model(**data, mode='predict')
    shape = tuple(config.grid_shape)
    assert tuple(sample.pred_occ.semantics.shape) == tuple(sample.gt_occ.semantics.shape) == shape
    assert model.occ_head.grid.grid_shape == shape


def test_its_metrics_count_in_its_grid(config):
    metrics = [METRICS.build(metric) for metric in config.test_evaluator]
    assert [type(metric).__name__ for metric in metrics] == ['OccMetric', 'RayIoUMetric']
    assert metrics[1].grid_shape == tuple(config.grid_shape)


def test_the_budget_is_the_length_of_the_schedule(config, monkeypatch):
    """However long the training is, its learning rate falls to its end in the last step."""
    for steps in ('70', '2000'):
        monkeypatch.setenv('LANGOCC_MAX_ITERS', steps)
        cfg = Config.fromfile('configs/my_street.py')
        assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == int(steps)


def test_a_training_and_a_validation_set(config, pandaset_root, tmp_path):
    (tmp_path / 'splits.txt').write_text('pandaset-002: train\npandaset-002: val\n')  # of one scene
    prepare_infos(pandaset_root, 'v1.0-mini', tmp_path / 'infos', prefix='my_street',
                  splits=tmp_path / 'splits.txt')
    split = Config.fromfile('configs/my_street_split.py')
    for name in ('train', 'test'):
        dataset = DATASETS.build(split[f'{name}_dataloader'].dataset)
        assert len(dataset) == 16 and dataset.ann_file.endswith(
            f'/my_street_infos_{"val" if name == "test" else name}.json')


def test_the_table_of_fields_is_what_is_read(text):
    rows = re.findall(r'^\| `(\w+)`(?: \(a key frame\))? \| (.*) \|$', text, re.M)
    found = {table: tuple(re.findall(r'`(\w+)`', fields.split('; of cameras')[0]))
             for table, fields in rows}
    optional = {'camera', 'lidar'}  # values of sensor.modality
    assert REQUIRED_FIELDS == {table: tuple(name for name in fields if name not in optional)
                               for table, fields in found.items()}


def test_the_labels_are_those_of_the_pack(config, pandaset_root):
    """A voxel of the cut-out labels is the pack's voxel at the same place in metres."""
    dataset = DATASETS.build(config.test_dataloader.dataset)
    info = dataset.get_data_info(3)
    original = pandaset_root / 'gts' / info['scene_name'] / info['token'] / 'labels.npz'
    with np.load(info['occ_path']) as ours, np.load(original) as theirs:
        for name in ('semantics', 'mask_camera', 'mask_lidar'):
            assert ours[name].shape == tuple(config.grid_shape)
            for x, y, z in ((0, 0, 0), (119, 119, 15), (30, 77, 3)):
                low = np.array(config.grid.point_cloud_range[:3]) + 0.4 * np.array([x, y, z]) + 0.2
                cell = tuple(np.floor((low - [-40, -40, -1]) / 0.4).astype(int))
                assert ours[name][x, y, z] == theirs[name][cell]


@pytest.mark.parametrize('page', ['your_dataset'])
def test_commands_and_files_exist(page, repository):
    text = (repository / f'docs/{page}.md').read_text()
    code = {path.name: path.read_text() for path in (repository / 'tools').glob('*.py')}
    shared = '\n'.join(path.read_text() for path in
                       (repository / 'projects/LangOcc/langocc').rglob('*.py'))
    commands = re.findall(r'^(?:\w+=\w+ )?python tools/(\S+)((?:.*\\\n)*.*)$', text, re.M)
    assert len(commands) >= 8
    for tool, arguments in commands:
        for option in re.findall(r'(--[\w-]+)', arguments):
            assert f"'{option}'" in code[tool] + shared, (tool, option)
    named = re.findall(r'\b(?:configs|tools|tests|docs|projects)/[\w./-]+\.\w+', text)
    missing = {name for name in named if not (repository / name).exists()}
    assert missing <= {'configs/my_street.py', 'configs/my_street_split.py', 'configs/finer.py'}
