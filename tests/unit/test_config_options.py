"""--cfg-options that nothing reads, options that no class takes, images of two sizes."""
import argparse

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from langocc.engine import add_runner_arguments, read_config
from langocc.engine.config_options import check_image_sizes, merge_options

BASE = """
os = __import__('os')
data_root = os.environ.get('SYNTHETIC_ROOT') or 'data'
input_size = (144, 256)
rays_per_sample = 8
loss = dict(type='RenderedFeatureLoss')
teacher = dict(type='FeatureMapTeacher', root=data_root)
train_pipeline = [
    dict(type='PrepareImageInputs', data_config=dict(input_size=input_size)),
    dict(type='PrepareRays', num_rays=rays_per_sample, teacher=teacher)]
train_dataloader = dict(batch_size=8, dataset=dict(type='NuScenesOccDataset',
                                                   pipeline=train_pipeline))
model = dict(type='LangOcc', img_view_transformer=dict(input_size=input_size),
             occ_head=dict(type='LangOccHead', density_threshold=0.1, losses=dict(lang=loss)))
"""
RECIPE = """
_base_ = ['base.py']
train_cfg = dict(max_iters=9)
model = dict(occ_head=dict(losses=dict(lang=dict(sky_behind=True))))
"""


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.delenv('SYNTHETIC_ROOT', raising=False)
    init_default_scope('mmdet3d')
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'recipe.py').write_text(RECIPE)
    return Config.fromfile(tmp_path / 'recipe.py')


IN_PIPELINE = 'train_dataloader.dataset.pipeline'


@pytest.mark.parametrize('option, said', [
    ('input_size', rf'input_size: .* only a variable .* set model.img_view_transformer.input_size, '
                   rf'{IN_PIPELINE}.0.data_config.input_size, or .*docs/your_dataset.md'),
    ('rays_per_sample', f'set {IN_PIPELINE}.1.num_rays, or'),  # not batch_size, which is 8 too
    ('teacher.root', f'set {IN_PIPELINE}.1.teacher.root, or'),
    ('loss.mode', 'set model.occ_head.losses.lang.mode, or'),
    ('train_pipeline.1.num_rays', 'set train_dataloader.dataset.pipeline.1.num_rays, or'),
    ('data_root', 'set SYNTHETIC_ROOT in the environment'),
    ('modle.type', "nothing reads 'modle'; 'model' is near")])
def test_what_nothing_reads_is_refused(cfg, option, said):
    with pytest.raises(ValueError, match=said):
        merge_options(cfg, {'train_cfg.max_iters': 2, option: 1})
    assert cfg.train_cfg.max_iters == 9  # nothing was merged


def test_what_is_read_is_merged(cfg):
    merge_options(cfg, {'train_cfg.max_iters': 2, f'{IN_PIPELINE}.1.num_rays': 4,
                        'model.occ_head.density_threshold': 0.3, 'val_cfg': None,
                        'train_dataloader.dataset.indices': [0], 'randomness.seed': 3,
                        'model.occ_head.start_at_vocabulary': True, 'extract.type': 'X'},
                  also_read=['extract'])
    assert cfg.train_dataloader.dataset.pipeline[1].num_rays == 4
    assert (cfg.train_cfg.max_iters, cfg.randomness.seed, cfg.extract.type) == (2, 3, 'X')
    assert cfg.model.occ_head.start_at_vocabulary and cfg.train_dataloader.dataset.indices == [0]
    merge_options(cfg, None)


@pytest.mark.parametrize('option, said', [
    ('model.pts_head', "LangOcc takes no 'pts_head'"),
    ('model.occ_head.density_treshold', "LangOccHead takes no .*'density_threshold' is near"),
    (f'{IN_PIPELINE}.1.num_ray.x', "PrepareRays takes no 'num_ray'; 'num_rays' is near")])
def test_an_option_that_its_class_does_not_take(cfg, option, said):
    with pytest.raises(ValueError, match=said):
        merge_options(cfg, {option: 3})


def test_images_have_one_size(cfg):
    check_image_sizes(cfg)
    place = f'{IN_PIPELINE}.0.data_config.input_size'
    merge_options(cfg, {place: (192, 352)})
    with pytest.raises(ValueError, match=r'\(144, 256\) at model.img_view_transformer.input_size; '
                                         rf'\(192, 352\) at {place}'):
        check_image_sizes(cfg)
    merge_options(cfg, {'model.img_view_transformer.input_size': [192, 352]})
    check_image_sizes(cfg)
    cfg.model.pop('img_view_transformer')  # a prior looks at no image
    check_image_sizes(cfg)


def test_the_command_line_says_it_in_a_line(cfg, capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['tools/train.py'])
    monkeypatch.delenv('LANGOCC_TRACEBACK', raising=False)
    parser = argparse.ArgumentParser()
    add_runner_arguments(parser)
    for option in ('input_size=(192,352)', 'model.img_view_transformer.input_size=(192,352)',
                   f'{IN_PIPELINE}.7.num_rays=3'):
        with pytest.raises(SystemExit, match='2'):
            read_config(parser.parse_args([cfg.filename, '--cfg-options', option]))
        said = capsys.readouterr().err
        assert said.startswith('train: ') and said.count('\n') == 1
    read_config(parser.parse_args([cfg.filename, '--cfg-options', 'train_cfg.max_iters=3']))
