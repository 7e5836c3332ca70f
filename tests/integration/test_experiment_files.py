"""The files of configs/experiments: the options of every run reach what they are meant for."""
import pytest
import torch
from mmdet3d.registry import MODELS, TRANSFORMS
from mmengine.registry import init_default_scope

from langocc.experiments import definition_of, load_config, read_experiments
from langocc.files import write_json
from langocc.synthetic.text import write_text_embeddings
from langocc.teachers import Reducer

FOLDER = 'configs/experiments'


@pytest.fixture(scope='module')
def synthetic_stand_in(tmp_path_factory):
    """What building the recipes reads from a synthetic data root."""
    root = tmp_path_factory.mktemp('synthetic')
    write_text_embeddings(root)
    (root / 'teacher_probs').mkdir()
    write_json(root / 'synthetic.json', {})
    Reducer(0.1 * torch.randn(512, 128, generator=torch.Generator().manual_seed(0))).save(
        root / 'reducer_128.safetensors')
    return root


@pytest.fixture
def runs(synthetic_stand_in, repository, monkeypatch):
    """Reads a file of experiments -> run name -> run."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv('SYNTHETIC_ROOT', str(synthetic_stand_in))
    monkeypatch.delenv('LANGOCC_INFO_ROOT', raising=False)
    init_default_scope('mmdet3d')
    return lambda name: {run.name: run for run in read_experiments(f'{FOLDER}/{name}.yaml')}


@pytest.mark.parametrize('name', ['synthetic', 'synthetic_ablations', 'synthetic_baselines'])
def test_configs_follow_seed_and_steps(runs, name):
    for run in runs(name).values():
        cfg = load_config(run)
        if run.train:
            assert cfg.train_cfg.max_iters == run.steps and cfg.randomness.seed == run.seed


def test_the_table_has_what_it_must_show(runs):
    entries = {}
    for run in runs('synthetic').values():
        entries.setdefault((run.entry, run.budget), []).append(run.seed)
    several = ['camera', 'photometric', 'photometric-ground', 'silhouettes', 'path',
               'path-photometric', 'path-photometric-ground', 'twin']
    trained = [*several, 'lidar', 'rgb']
    assert set(entries) == {
        ('prior', None), ('slab', None), ('slab-thick', None), ('mixed', 'quickstart'),
        *((name, budget) for name in trained for budget in ('quickstart', 'long'))}
    for name in several:
        assert entries[name, 'long'] == entries[name, 'quickstart'] == [0, 1, 2]


@pytest.mark.parametrize('name, shared', [
    ('synthetic_ablations', {'camera-quickstart-s0'}),
    ('synthetic_baselines', {'prior', 'slab', 'lidar-quickstart-s0', *(
        f'{entry}-quickstart-s{seed}' for entry in ('camera', 'twin') for seed in range(3))})])
def test_files_share_rows_of_the_main_table(runs, name, shared):
    main, other = runs('synthetic'), runs(name)
    assert main.keys() & other.keys() == shared
    for run in shared:
        assert definition_of(other[run]) == definition_of(main[run]), run
        assert (other[run].retrieval, other[run].title) == (
            main[run].retrieval, main[run].title) or name == 'synthetic_ablations'


def test_every_ablation_changes_what_it_says(runs):
    found = runs('synthetic_ablations')
    base = load_config(found.pop('camera-quickstart-s0'))
    for run in found.values():
        cfg = load_config(run)
        for key, value in run.options.items():
            assert value_at(cfg, key) == value, run.name
            assert value_at(base, key) != value, f'{run.name}: {key} is {value} in the recipe too'


def test_ablations_reach_the_objects(runs):
    """Options of the losses, the decoder and the rays arrive in what is built from the config."""
    found = runs('synthetic_ablations')

    def built(name):
        cfg = load_config(found[f'{name}-quickstart-s0'])
        return cfg, MODELS.build(cfg.model).occ_head

    _, head = built('density-paper')
    assert (head.density_decoder.scale, head.density_decoder.shift) == (1, 0)
    assert head.density_threshold == 0.1
    assert built('density-softplus')[1].density_decoder.activation is torch.nn.functional.softplus
    assert built('loss-weighted')[1].losses['lang'].distance.mode == 'weighted_mse'
    assert built('sky-off')[1].losses['sky'].loss_weight == 0
    assert built('nothing-behind')[1].losses['lang'].sky_behind is False
    weighed = built('opacity-weighs')[1].losses['lang']
    assert weighed.weigh_by_opacity and not weighed.sky_behind
    assert built('threshold-exact')[1].renderer.weight_threshold == 0
    cfg = load_config(found['moving-masked-quickstart-s0'])
    rays = TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[2])
    assert type(rays).__name__ == 'PrepareRays' and rays.mask_dynamic
    assert load_config(found['frames-key-quickstart-s0']
                       ).train_dataloader.dataset.ray_frame_ids == [0]


def value_at(cfg, key):
    """The value at a dotted key, None where an argument is left to its default."""
    value = cfg
    for name in key.split('.'):
        value = value[int(name)] if name.isdigit() else value.get(name)
    return value
