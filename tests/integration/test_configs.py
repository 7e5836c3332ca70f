"""Every recipe loads, builds, and says what its name says."""
import json

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from langocc.teachers import Reducer, Vocabulary


@pytest.fixture(scope='module')
def data_roots(tmp_path_factory):
    """Stand-ins for both data roots: the files that building a model reads."""
    root = tmp_path_factory.mktemp('data')
    prompts = sorted({*Vocabulary('occ3d_nuscenes').prompts,
                      *Vocabulary('pandaset_cityscapes').prompts})
    (root / 'text_embeds').mkdir()
    (root / 'teacher_probs').mkdir()
    (root / 'teacher_feats').mkdir()
    rows = np.random.default_rng(0).standard_normal((len(prompts), 512))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.savez(root / 'text_embeds' / 'clip_vit_b16.npz', all=rows.astype(np.float16))
    (root / 'text_embeds' / 'names.json').write_text(json.dumps(dict(all=prompts)))
    Reducer(torch.randn(512, 128) * 0.1).save(root / 'reducer_128.safetensors')
    patch = pytest.MonkeyPatch()
    patch.setenv('NUSCENES_ROOT', str(root))
    patch.setenv('PANDASET_ROOT', str(root))
    patch.setenv('LANGOCC_INFO_ROOT', f'{root}/')
    yield root
    patch.undo()


def recipes():
    from tests.conftest import REPOSITORY
    return sorted(path.name for path in (REPOSITORY / 'configs').glob('*.py'))


@pytest.mark.parametrize('recipe', recipes())
def test_recipe_builds(recipe, repository, data_roots):
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(repository / 'configs' / recipe)
    model = MODELS.build(cfg.model)
    METRICS.build(cfg.test_evaluator)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert Config.fromstring(cfg.pretty_text, '.py').model == cfg.model  # can be dumped and read
    if cfg.get('train_dataloader') is None:
        return
    rays = [t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'PrepareRays'][0]
    for loss in model.occ_head.losses.values():
        needed = {'lang': 'lang_feats', 'rgb': 'rgb'}.get(loss.output)
        assert needed is None or needed in rays.targets


@pytest.mark.parametrize('recipe, rays, epochs, batch', [
    ('full', 8192, 18, 4), ('reduced', 14336, 18, 4), ('rgb', 8192, 18, 4)])
def test_paper_recipes_hold_the_papers_numbers(recipe, rays, epochs, batch, repository,
                                               data_roots):
    cfg = Config.fromfile(repository / f'configs/langocc-{recipe}_r50_4xb4-18e_nus-occ3d.py')
    pipeline = cfg.train_dataloader.dataset.pipeline
    prepare = [t for t in pipeline if t.type == 'PrepareRays'][0]
    assert prepare.num_rays == rays and prepare.source.type == 'LidarPixelSource'
    assert cfg.train_dataloader.batch_size == batch and cfg.train_cfg.max_epochs == epochs
    assert list(cfg.train_dataloader.dataset.ray_frame_ids) == list(range(-12, 13))
    ema = [hook for hook in cfg.custom_hooks if hook.type == 'EMAHook'][0]
    assert ema.ema_type == 'WarmupEMA' and ema.decay == 0.999 and ema.init_updates == 10560
    renderer = cfg.model.occ_head.renderer
    assert (renderer.near, renderer.far, renderer.num_proposal_samples,
            renderer.num_samples) == (0.05, 40., 50, 100)
    assert cfg.auto_scale_lr.base_batch_size == 16
