"""Every recipe loads, builds, and says what its name says."""
import re
from pathlib import Path

import pytest
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope

# What losses on rays hold them against; those on the volume alone need nothing.
NEEDED_TARGETS = dict(
    RenderedFeatureLoss='lang_feats', RenderedRGBLoss='rgb', RenderedDepthLoss='distances',
    RenderedClassLoss='classes', SkyLoss='sky', SilhouetteLoss='sky', DrivenPathLoss='ego_poses',
    PhotometricLoss='photometric_costs', GroundPixelLoss='ground')


def recipes():
    from tests.conftest import REPOSITORY
    return sorted(path.name for path in (REPOSITORY / 'configs').glob('*.py'))


def stated_parameters(repository):
    """Recipe -> trained parameters in README's and docs' tables; {a,b} in a name: several."""
    pages = [repository / 'README.md', *sorted((repository / 'docs').glob('*.md'))]
    text = '\n'.join(page.read_text() for page in pages)
    stated = {}
    for name, count in re.findall(r'^\| `(\S+\.py)` \|.*\| ([\d,]+)[^|]*\|$', text, re.M):
        start, choices, end = re.fullmatch(r'([^{]*)(?:{(.*)})?([^}]*)', name).groups()
        for choice in (choices or '').split(','):
            stated[f'{start}{choice}{end}'] = int(count.replace(',', ''))
    return stated


@pytest.mark.parametrize('recipe', recipes())
def test_recipe_builds(recipe, repository, data_roots):
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(repository / 'configs' / recipe)
    model = MODELS.build(cfg.model)
    Evaluator(cfg.test_evaluator)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert Config.fromstring(cfg.pretty_text, '.py').model == cfg.model  # can be dumped and read
    if cfg.get('train_dataloader') is None:
        return
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert stated_parameters(repository)[recipe] == trained
    # Of several PrepareRays the first: its rays are those that are rendered.
    transforms = {t.type: t for t in reversed(cfg.train_dataloader.dataset.pipeline)}
    assert ('PrepareRays' in transforms) != ('LoadOccGTFromFile' in transforms)
    assert ('PrepareRays' in transforms) == any(h.type == 'RayCountHook' for h in cfg.custom_hooks)
    for loss in getattr(model.occ_head, 'losses', {}).values():
        needed = NEEDED_TARGETS.get(type(loss).__name__)
        assert needed is None or needed in transforms['PrepareRays'].targets


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


@pytest.mark.parametrize('twin, rendering', [
    ('bevstereo-occ-tiny_r18_1xb1_synthetic', 'langocc-tiny_r18_1xb1_synthetic-camera'),
    ('bevstereo-occ_r50_4xb4-24e_nus-occ3d', 'langocc-full_r50_4xb4-18e_nus-occ3d')])
def test_the_supervised_twin_has_the_same_trunk(twin, rendering, repository, data_roots):
    """Names and shapes of all that comes before the head; the tiny one shares the features too."""
    init_default_scope('mmdet3d')
    shapes = []
    for name in (twin, rendering):
        model = MODELS.build(Config.fromfile(repository / f'configs/{name}.py').model)
        tiny = 'tiny' in name
        shapes.append({key: value.shape for key, value in model.state_dict().items()
                       if not key.startswith(('occ_head.', 'image_head.'))
                       or tiny and key.startswith('occ_head.final_conv')})
    assert shapes[0] == shapes[1] and len(shapes[0]) > 100


def test_the_supervised_recipe_is_bevdets(repository, data_roots):
    cfg = Config.fromfile(repository / 'configs/bevstereo-occ_r50_4xb4-24e_nus-occ3d.py')
    assert cfg.train_cfg.max_epochs == 24 and cfg.train_dataloader.batch_size == 4
    assert cfg.optim_wrapper.optimizer.type == 'AdamW' and cfg.optim_wrapper.optimizer.lr == 1e-4
    head = cfg.model.occ_head
    assert (head.feat_channels, head.num_classes, head.mask) == (32, 18, 'camera')
    assert head.loss_occ.type == 'mmdet.CrossEntropyLoss' and head.loss_occ.loss_weight == 1
    pipeline = [t.type for t in cfg.train_dataloader.dataset.pipeline]
    assert pipeline.index('BEVAug') < pipeline.index('LoadOccGTFromFile')


@pytest.mark.parametrize('recipe', ['bevstereo-occ-tiny_r18_1xb1_synthetic',
                                    'langocc-tiny_r18_1xb1_synthetic-camera'])
def test_the_budget_comes_from_the_environment(recipe, repository, data_roots, monkeypatch):
    file = repository / f'configs/{recipe}.py'
    for budget, warmup in (('1', 1), ('25', 2), ('2000', 50)):
        monkeypatch.setenv('LANGOCC_MAX_ITERS', budget)
        cfg = Config.fromfile(file)
        assert cfg.train_cfg.max_iters == int(budget) < cfg.train_cfg.val_begin
        linear, cosine = cfg.param_scheduler
        assert linear.end == cosine.begin == warmup
        assert cosine.end == max(int(budget), warmup + 1) and cosine.T_max == cosine.end - warmup
    monkeypatch.setenv('LANGOCC_MAX_ITERS', 'many')
    with pytest.raises(ValueError, match="LANGOCC_MAX_ITERS='many', expected a number"):
        Config.fromfile(file)


@pytest.mark.parametrize('data', ['nus_occ3d', 'pandaset_occ', 'synthetic_occ'])
@pytest.mark.parametrize('slash', ['', '/'])
@pytest.mark.parametrize('relative', [False, True])
def test_roots_are_relative_or_absolute_with_or_without_slash(data, slash, relative, repository,
                                                              tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = '' if relative else f'{tmp_path}/'
    for name in ('NUSCENES_ROOT', 'PANDASET_ROOT', 'SYNTHETIC_ROOT'):
        monkeypatch.setenv(name, f'{start}some data{slash}')
    (tmp_path / 'some data').mkdir()
    file = repository / f'configs/_base_/datasets/{data}.py'

    def check(cfg, folder):
        loader = cfg.test_dataloader.dataset
        file = Path(loader.data_root, loader.ann_file)  # as mmdet3d joins them
        assert file.resolve().parent == folder and file.suffix == '.json'
        assert Path(cfg.reducer_file).resolve() == folder / 'reducer_128.safetensors'
        assert Path(cfg.text_encoder.files).resolve().parent == tmp_path / 'some data/text_embeds'
        assert Path(cfg.teacher.root).resolve().parent == tmp_path / 'some data'

    monkeypatch.setenv('LANGOCC_INFO_ROOT', f'{start}infos{slash}')
    cfg = Config.fromfile(file)
    check(cfg, tmp_path / 'infos')
    cfg.dump(tmp_path / 'dumped.py')
    monkeypatch.delenv('LANGOCC_INFO_ROOT')
    check(Config.fromfile(tmp_path / 'dumped.py'), tmp_path / 'infos')
    check(Config.fromfile(file), tmp_path / 'some data')
    assert Path(Config.fromfile(file).data_root).is_absolute() != relative


def test_the_reduced_recipe_reads_the_map_beside_its_infos(repository, monkeypatch):
    monkeypatch.setenv('LANGOCC_INFO_ROOT', '/infos')
    cfg = Config.fromfile(repository / 'configs/langocc-reduced_r50_4xb4-18e_nus-occ3d.py')
    assert cfg.model.occ_head.reducer == '/infos/reducer_128.safetensors'
