"""docs/protocols.md: what it names exists, its configs load, its commands have their options."""
import re
from pathlib import Path

import pytest
from mmdet3d.datasets import SemanticKittiDataset
from mmdet3d.registry import METRICS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from langocc.evaluation import MASKS, VARIANTS, OccMetric, RayIoUMetric
from langocc.evaluation.point_segmentation import occ_classes

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'protocols.md'


def blocks(language):
    return re.findall(rf'```{language}\n(.*?)```', PAGE.read_text(), re.S)


def config(part, folder):
    path = folder / 'mine.py'
    path.write_text(next(block for block in blocks('python') if part in block))
    init_default_scope('mmdet3d')
    return Config.fromfile(path)


def test_keys_of_the_tables_are_the_metrics():
    keys = set(re.findall(r'`(\w+(?:@\d)?)`', PAGE.read_text()))
    assert {f'{variant}_mIoU' for variant in VARIANTS} <= keys and set(MASKS) <= keys
    metric = RayIoUMetric()
    found = set(metric.compute_metrics([])) | set(OccMetric().compute_metrics([]))
    named = {key for key in keys if re.match(r'(RayIoU|rayiou15|occ\d+\w*_mIoU|geo_IoU)(@|$)', key)}
    assert len(named) >= 9 and named <= found


def test_both_metrics_in_a_config(tmp_path):
    cfg = config('val_evaluator', tmp_path)
    built = [type(METRICS.build(metric)) for metric in cfg.val_evaluator]
    assert built == [OccMetric, RayIoUMetric]


@pytest.mark.parametrize('recipe, model', [
    ('constant-slab_pandaset.py', 'ConstantOccupancy'),
    ('constant-prior_synthetic.py', 'PriorOccupancy')])
def test_the_floors_on_nuscenes(recipe, model, repository, tmp_path):
    """With the data set of nuScenes in place of their own, as the page says."""
    (tmp_path / '_base_').symlink_to(repository / 'configs' / '_base_')
    code, count = re.subn(r"_base_/datasets/\w+\.py", '_base_/datasets/nus_occ3d.py',
                          (repository / 'configs' / recipe).read_text())
    (tmp_path / recipe).write_text(code)
    cfg = Config.fromfile(tmp_path / recipe)
    assert count == 1 and cfg.model.type == model and cfg.train_dataloader is None
    assert cfg.test_dataloader.dataset.ann_file.endswith('nuscenes_infos_val.json')
    assert [t.type for t in cfg.test_dataloader.dataset.pipeline][1:] == [
        'LoadOccGTFromFile', 'PackOccInputs']


def test_the_recipe_for_a_segmentation_model(tmp_path):
    cfg = config('cylinder3d', tmp_path)
    names = tuple(cfg.test_evaluator.classes)
    assert names == SemanticKittiDataset.METAINFO['classes']
    assert (occ_classes(names, cfg.test_evaluator.class_mapping) > 0).all()
    metric = METRICS.build(cfg.test_evaluator)
    assert set(metric.META_KEYS) == set(cfg.test_pipeline[1]['meta_keys'])
    assert cfg.test_dataloader.dataset.type == 'NuScenesOccDataset'
    assert cfg.model.type == 'Cylinder3D'


def test_commands_have_their_options(repository):
    common = (repository / 'projects/LangOcc/langocc/engine/command_line.py').read_text()
    commands = [line for block in blocks('bash') for line in
                block.replace('\\\n', ' ').splitlines() if line.startswith('python ')]
    assert len(commands) >= 6
    for command in commands:
        words = command.split()
        code = (repository / words[1]).read_text() + common
        for option in re.findall(r'--[\w-]+', command):
            assert f"'{option}'" in code, (words[1], option)
    named = set(re.findall(r'\b(?:configs|tools|tests)/[\w./-]+\.\w+', PAGE.read_text()))
    assert [name for name in named if not (repository / name).exists()] == []
