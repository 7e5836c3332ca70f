"""Every baseline's recipe, narrow and small, through its pipeline: two steps, one prediction."""
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from PIL import Image

from langocc.engine import check_setup
from langocc.occ3d import OCC3D_CLASSES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'unit'))
import nusc_factory  # noqa: E402

RECIPES = ['flashocc_r50_4xb4-24e_nus-occ3d', 'flashocc-tiny_r18_1xb1_synthetic',
           'renderocc_r50_4xb4-18e_nus-occ3d', 'renderocc-tiny_r18_1xb1_synthetic',
           'langocc-pseudo_r50_4xb4-18e_nus-occ3d', 'langocc-pseudo-tiny_r18_1xb1_synthetic',
           'langocc-tiny_r18_1xb1_synthetic-camera-depth']
GRID, HALF = (24, 24, 16), 4.8  # cells of 0.4 m, metres
WIDTHS = ('numC_input', 'num_channels', 'in_channels', 'out_channels', 'feat_channels',
          'base_channels', 'stem_channels', 'aspp_mid_channels')


@pytest.fixture(scope='module')
def root(stand_in_root, tmp_path_factory):
    """A few samples in nuScenes format with labels, pseudo-labels and pseudo-depth."""
    from langocc.datasets.nuscenes_prepare import prepare_infos
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nusc_factory, 'GRID_SHAPE', GRID)
        root = nusc_factory.NuScenesFactory(
            tmp_path_factory.mktemp('baselines') / 'data', scenes=('scene-a',)).write().root
    prepare_infos(root, nusc_factory.VERSION, root, splits='all', prefix='nuscenes')
    for name in ('nuscenes', 'synthetic'):
        for split in ('train', 'val'):
            shutil.copy(root / 'nuscenes_infos_all.json', root / f'{name}_infos_{split}.json')
    shutil.copytree(stand_in_root / 'text_embeds', root / 'text_embeds')
    shutil.copy(stand_in_root / 'reducer_128.safetensors', root)
    rng = np.random.default_rng(0)
    for folder in ('teacher_probs', 'pseudo_labels', 'pseudo_depth'):
        (root / folder).mkdir()
    infos = json.loads((root / 'nuscenes_infos_all.json').read_text())['data_list']
    for token in [image['sample_data_token'] for info in infos
                  for image in info['images'].values()]:
        np.savez(root / f'teacher_probs/{token}.npz',
                 probs=rng.integers(0, 255, (19, 6, 10), dtype=np.uint8))
        labels = rng.choice([4, 11, 15, 17, 255], (9, 16)).astype(np.uint8)
        Image.fromarray(labels).save(root / f'pseudo_labels/{token}.png')
        depths = rng.integers(0, 60 * 256, (9, 16)).astype(np.uint16)
        Image.fromarray(depths).save(root / f'pseudo_depth/{token}.png')
    return root


def narrow(value, key=None):
    """The same configuration with an eighth of the channels."""
    if isinstance(value, dict):
        return {name: narrow(item, name) for name, item in value.items()}
    if key in WIDTHS:
        return [width // 8 for width in value] if isinstance(value, (list, tuple)) else value // 8
    return value


def shrink(cfg):
    """A recipe on small images and a small grid; data flow, losses and optimizer stay."""
    cfg.model.img_backbone.setdefault('base_channels', 64)
    cfg.model.img_backbone.setdefault('stem_channels', 64)
    cfg.model = narrow(cfg.model.to_dict())
    lift, head = cfg.model.img_view_transformer, cfg.model.occ_head
    lift.input_size = (32, 64)
    for axis in 'xy':
        lift.grid_config[axis] = [-HALF, HALF, lift.grid_config[axis][2]]
    head.grid.point_cloud_range = [-HALF, -HALF, -1, HALF, HALF, 5.4]
    low, high, step = lift.grid_config.z
    if cfg.model.img_bev_encoder_backbone.type == 'CustomResNet':  # an eighth may be no whole one
        cfg.model.img_bev_encoder_backbone.numC_input = (
            (1 + cfg.model.num_adj) * lift.out_channels * round((high - low) / step))
    if 'image_head' in cfg.model:
        cfg.model.image_head.update(in_channels=lift.out_channels - 1, input_size=(32, 64))
    cfg.model.img_backbone.init_cfg = None
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.camera_names = nusc_factory.CAMERAS
        for step in loader.dataset.pipeline:
            if step.type == 'PrepareImageInputs':
                step.data_config.update(nusc_factory.DATA_CONFIG, input_size=(32, 64),
                                        cams=nusc_factory.CAMERAS, Ncams=2)
            elif step.type == 'LoadOccGTFromFile':
                step.grid_shape = GRID
            elif step.type == 'PrepareRays':
                step.num_rays = 40
    for metric in cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else []:
        if metric.type == 'RayIoUMetric':
            metric.point_cloud_range = head.grid.point_cloud_range
    return cfg


@pytest.fixture
def load(root, repository, monkeypatch):
    for name in ('NUSCENES_ROOT', 'SYNTHETIC_ROOT'):
        monkeypatch.setenv(name, str(root))
    monkeypatch.delenv('LANGOCC_INFO_ROOT', raising=False)
    init_default_scope('mmdet3d')
    return lambda recipe: shrink(Config.fromfile(repository / f'configs/{recipe}.py'))


@pytest.mark.parametrize('recipe', RECIPES)
def test_two_steps_and_a_prediction(recipe, load):
    cfg = load(recipe)
    np.random.seed(0)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for _ in range(2):
        log = model.train_step(pseudo_collate([dataset[0], dataset[1]]), wrapper)
        assert all(torch.isfinite(value).all() for value in log.values()), log
        losses = {name for name in log if name.startswith('loss_')}
        assert losses and all(log[name] >= 0 for name in losses)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    data = model.data_preprocessor(pseudo_collate([dataset[2]]), True)
    model.parse_losses(model(**data, mode='loss'))[0].backward()
    moved = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    for part in ('img_backbone', 'img_view_transformer', 'img_bev_encoder_backbone', 'occ_head'):
        assert any(name.startswith(part) for name in moved), part
    test = DATASETS.build(cfg.test_dataloader.dataset)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = test.metainfo
    check_setup(model, dataset)
    check_setup(model, test, evaluator.metrics)
    sample, = model.eval().test_step(pseudo_collate([test[1]]))
    assert sample.pred_occ.semantics.shape == GRID
    assert 0 <= sample.pred_occ.semantics.max() <= 17
    evaluator.process([sample])
    scores = evaluator.evaluate(1)
    assert 0 <= scores['geo_IoU'] <= 100
    if 'synthetic' in recipe:
        assert 0 <= scores['RayIoU'] <= 100


def test_stored_labels_are_learned(load, root, tmp_path):
    """Road below and building above, four metres away: losses fall, that is predicted."""
    cfg = load('langocc-pseudo-tiny_r18_1xb1_synthetic')
    prepare, = [step for step in cfg.train_dataloader.dataset.pipeline
                if step.type == 'PrepareRays']
    for folder, maps, source in (
            ('labels', np.repeat(np.array([[15], [11]], np.uint8), 16, 1), prepare.teacher),
            ('depth', np.full((2, 16), 4 * 256, np.uint16), prepare.depth)):
        (tmp_path / folder).mkdir()
        source.root = str(tmp_path / folder)
        for path in (root / 'pseudo_labels').glob('*.png'):
            Image.fromarray(maps).save(tmp_path / folder / path.name)
    np.random.seed(0)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    dataset, wrapper = DATASETS.build(cfg.train_dataloader.dataset), build_optim_wrapper(
        model, cfg.optim_wrapper)
    logs = [model.train_step(pseudo_collate([dataset[0]]), wrapper) for _ in range(40)]
    for name in ('loss_semantic', 'loss_depth'):
        values = [log[name].item() for log in logs]
        assert np.mean(values[-5:]) < 0.6 * np.mean(values[:3]), (name, values)
    batch = model.data_preprocessor(pseudo_collate([dataset[0]]), False)
    with torch.no_grad():
        semantics = model.eval()(**batch, mode='predict')[0].pred_occ.semantics
    assert {11, 15} & set(semantics.unique().tolist()) and (semantics == 17).any()


def test_a_missing_map_and_a_foreign_class_stop_the_training(load, root):
    cfg = load('langocc-pseudo_r50_4xb4-18e_nus-occ3d')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    labels = sorted((root / 'pseudo_labels').glob('*.png'))
    hidden = [path.rename(path.with_suffix('.hidden')) for path in labels]
    try:
        with pytest.raises(FileNotFoundError, match='label maps of frame scene-a-'):
            dataset[0]
    finally:
        for path in hidden:
            path.rename(path.with_suffix('.png'))
    cfg.model.occ_head.decoders.semantic.num_classes = 9
    cfg.model.occ_head.losses.semantic.num_classes = 9
    model = MODELS.build(cfg.model).train()
    with pytest.raises(ValueError, match=r'a ray has class 1[15], expected 0 ... 8'):
        model(**model.data_preprocessor(pseudo_collate([dataset[0]]), True), mode='loss')


def test_labels_of_another_grid_stop_the_training(load):
    cfg = load('flashocc-tiny_r18_1xb1_synthetic')
    cfg.model.img_bev_encoder_neck.extra_upsample = 1
    model = MODELS.build(cfg.model).train()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    with pytest.raises(ValueError, match=r'\(12, 12\) columns .*\(24, 24\) of the grid'):
        model(**model.data_preprocessor(pseudo_collate([dataset[0]]), True), mode='loss')


def test_the_page_names_what_exists(repository):
    text = (repository / 'docs/baselines.md').read_text()
    named = set(re.findall(r'`([\w-]+_(?:nus-occ3d|synthetic[\w-]*)\.py)`', text))
    assert named == {f'{recipe}.py' for recipe in RECIPES}
    loop, = re.findall(r'for recipe in (.*?); do', text)
    assert loop.split() == [name for name in RECIPES if name.endswith('_nus-occ3d')]
    tools = set(re.findall(r'(?:tools/|`)([a-z_]+\.(?:py|sh))\b', text))
    assert len(tools) > 5 and all((repository / 'tools' / name).exists() for name in tools)
    types = re.findall(r"type='(\w+)'", text) + re.findall(r'`([A-Z]\w+(?:Maps?|Store|Source|Loss|'
                                                           r'Decoder|Teacher|Head\w*|LSS))`', text)
    assert len(types) > 12
    unknown = [name for name in types if not any(
        name in registry for registry in (MODELS, TASK_UTILS, TRANSFORMS))]
    assert unknown == []


def test_snippets_of_the_page(repository, tmp_path, monkeypatch):
    """Its config is the recipe, its store can be read, its labels are the metric's numbers."""
    text = (repository / 'docs/baselines.md').read_text()
    config, store, labels = re.findall(r'```python\n(.*?)```', text, re.S)
    for name in ('SYNTHETIC_ROOT', 'LANGOCC_INFO_ROOT'):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / 'mine.py').write_text(
        config.replace("_base_ = ['", f"_base_ = ['{repository / 'configs'}/"))
    mine = Config.fromfile(tmp_path / 'mine.py')
    recipe = Config.fromfile(repository / f'configs/{RECIPES[-1]}.py')
    assert mine.model == recipe.model and mine.train_dataloader == recipe.train_dataloader
    monkeypatch.chdir(tmp_path)
    depths = np.array([[0, 10., 20.]])
    exec(store, dict(sample_data_token='a', depths=depths, h=1, w=3))
    init_default_scope('mmdet3d')
    assert TASK_UTILS.build(dict(type='DepthStore', root='depth_store', kind='z')).store.rows(
        'a').shape[:2] == (1, 3)
    names = {}
    exec(labels, names)
    assert names['class_names'] == [*OCC3D_CLASSES[:-1], 'sky']
    teacher = TASK_UTILS.build(dict(names['teacher'], root=tmp_path))
    assert teacher.sky_classes == ('sky',) and teacher._table[13] == OCC3D_CLASSES.index('car')
