"""tools/benchmark.py: both sides of a step compute the same, and every command gives its rows."""
import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
ROW = {'dense_s', 'ours_s', 'speedup', 'dense_peak_mb', 'ours_peak_mb', 'memory_ratio',
       'loss_error', 'grad_error', 'grad_cosine', 'one_minus_cosine'}


def import_tools(*names):
    """Modules of the benchmarks."""
    sys.path.insert(0, str(TOOLS))
    try:
        return [importlib.import_module(f'benchmarks.{name}') for name in names]
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope='module')
def step():
    """The module of the step."""
    return import_tools('step')[0]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Runs a command at the smallest size; returns its JSON."""
    def run(*arguments):
        path = tmp_path_factory.mktemp('benchmark') / 'new' / 'result.json'
        command = [sys.executable, str(TOOLS / 'benchmark.py'), *arguments, '--preset', 'tiny',
                   '--repeats', '1', '--json', str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [item.name for item in path.parent.iterdir()] == ['result.json']
        assert 'warm-up' in done.stderr and ' s  done' in done.stderr
        assert 'warm-up' not in done.stdout  # the result alone
        result = json.loads(path.read_text())
        check_legend(arguments[0], result, done.stdout)
        return result
    return run


def check_legend(command, result, printed):
    """Under the table stands what its columns mean, and --help has the same and no more."""
    columns, output = import_tools('columns', 'output')
    shown = output.quantities(output.rows_of({command: result[command], **{
        key: result[key] for key in ('step_exact', 'summary', 'stages') if key in result}}))
    assert shown
    for line in columns.legend(command, shown):
        assert line in printed.splitlines()
    used = {columns.pattern_of(command, name) for name in shown}
    assert used == set(columns.MEANINGS[command])


def test_both_sides_agree(step):
    scene = step.make_scene(step.Size.preset('tiny'))
    times, losses, grads = step.run_sides(
        step.make_sides(dict(exact=0., default=1e-3)), scene, repeats=1)
    assert 0 < losses['dense'] < 1
    peaks = dict.fromkeys(times, 1.)
    exact = step.compare('exact', times, peaks, losses, grads)
    assert set(exact) == ROW
    assert exact['loss_error'] < 1e-5 and exact['grad_error'] < 1e-3
    assert exact['grad_cosine'] > 0.9999
    default = step.compare('default', times, peaks, losses, grads)
    assert 0 < default['grad_error'] < 0.1 and default['grad_cosine'] > 0.99


def test_gradient_errors(step):
    dense = [torch.tensor([3., 0.]), torch.tensor([[4.]])]
    ours = [torch.tensor([3., 1.]), torch.tensor([[4.]])]
    found = step.gradient_errors(ours, dense)
    assert found['grad_error'] == pytest.approx(1 / 5)
    assert found['grad_cosine'] == pytest.approx(25 / (5 * 26**0.5))
    assert found['one_minus_cosine'] == pytest.approx(1 - 25 / (5 * 26**0.5))
    # 1 - cos = angle^2 / 2, where the cosine itself is 1 to the last digit
    near = step.gradient_errors([torch.tensor([1., 1e-9])], [torch.tensor([3., 0.])])
    assert near['grad_cosine'] == 1 and near['one_minus_cosine'] == pytest.approx(5e-19)
    assert step.gradient_errors(dense, dense)['one_minus_cosine'] == 0


def test_the_loss_is_the_papers(step):
    rendered = torch.tensor([[2., 0.], [0., 0.], [3., 4.]])
    target = torch.tensor([[1., 0.], [1., 0.], [1., 0.]])
    # cos 1 costs nothing, a ray of zeros has weight 0 but stays in the mean, cos 0.6 the rest.
    expected = 2 * (1 - 0.6) * ((0.6 - 1) ** 2 + 0.8 ** 2) / 3
    assert step.paper_loss(rendered, target).item() == pytest.approx(expected, rel=1e-5)


def test_the_threshold_is_the_renderers(run):
    from langocc.models import VolumeRenderer
    assert VolumeRenderer().weight_threshold == run('step')['threshold'] > 0


def test_step(run, monkeypatch):
    monkeypatch.setenv('MALLOC_ARENA_MAX', '1')
    result = run('step', '--threshold', '1e-3')
    for name in ('step', 'step_exact'):
        assert set(result[name]) == ROW
        assert all(result[name][key] > 0 for key in ROW - {'loss_error'})
        assert result[name]['one_minus_cosine'] == pytest.approx(
            1 - result[name]['grad_cosine'], abs=1e-9)
    assert result['step_exact']['grad_error'] < 1e-3 < result['step']['grad_error'] < 0.1
    assert result['threshold'] == 1e-3
    assert result['environment']['MALLOC_ARENA_MAX'] == '1'


def test_real_rays(step, pandaset_root):
    """They start at cameras, above the road near the car, and most of them meet something."""
    scene = step.make_scene(step.Size(cells=20, rays=500), rays='real')
    origins, directions = scene.rays.origins, scene.rays.directions
    assert ((origins[:, 2] > 1) & (origins[:, 2] < 3)).all() and origins[:, 1].abs().max() < 5
    assert (directions.norm(dim=-1) - 1).abs().max() < 1e-5
    with torch.no_grad():
        assert (step.render(scene, 0.).norm(dim=-1) > 0.5).float().mean() > 0.8


def test_prune(run):
    rows = run('prune', '--thresholds', '0', '1e-3')['prune']
    assert [row['threshold'] for row in rows] == [0, 1e-3]
    assert rows[0]['grad_error'] < rows[1]['grad_error']
    assert set(rows[0]['cosine_by_part']) == {'voxel_feats', 'density', 'language'}


def test_head(run):
    row = run('head')['head']
    assert row['different_where_clear'] == 0 < row['occupied'] < row['voxels']
    assert row['speedup'] > 0 and row['memory_ratio'] > 0


def test_query(run):
    row = run('query', '--voxels', '3000')['query']
    assert row['voxels'] == 3000 and row['error'] < 1e-5
    assert 0 < row['float32']['median_ms'] <= row['float32']['worst_ms']
    assert 0 < row['float16']['error'] < 1e-2 and row['float32']['error'] == row['error']
    assert run('query')['query']['voxels'] == 3000  # the preset's


def test_scale(run):
    rows = {row['name']: row for row in run('scale')['scale']}
    assert rows['voxels x 8']['voxels'] == 8 * rows['base']['voxels']
    assert rows['rays x 4']['rays'] == 4 * rows['base']['rays']
    assert rows['features x 2']['embed_dims'] == 2 * rows['base']['embed_dims']
    assert all(row['geometry_s'] > 0 for row in rows.values())


def test_lift(run):
    rows = run('lift')['lift']
    assert set(rows) == {'reference', 'ours', 'cached'}
    assert rows['ours']['error'] < 1e-4 and rows['cached']['error'] < 1e-4
    assert rows['ours']['forward_speedup'] > 0 and rows['cached']['step_speedup'] > 0


def test_sizes_in_proportion_to_a_preset(run, step):
    scaled = step.Size.of(argparse.Namespace(preset='quarter', scale=dict(grid=0.5, rays=2.)))
    assert scaled == step.Size(cells=50, rays=4096, cells_z=8, embed_dims=512)
    for command in ('step', 'head'):
        result = run(command, '--scale', 'rays=2', 'features=0.125', 'grid=0.5')
        assert result['scaled'] == dict(rays=2, features=0.125, grid=0.5)
    with pytest.raises(ValueError, match="gives .*'rays': 0"):
        step.Size.of(argparse.Namespace(preset='tiny', scale=dict(rays=0.001)))


@pytest.mark.parametrize('scale', ['depth=2', 'grid', 'grid=x', 'rays=0', 'rays=inf'])
def test_other_scales_are_refused(scale):
    done = subprocess.run([sys.executable, str(TOOLS / 'benchmark.py'), 'step', '--scale', scale],
                          capture_output=True, text=True)
    assert done.returncode == 2 and scale.partition('=')[0] in done.stderr.splitlines()[-1]


@pytest.mark.parametrize('command', [
    'step --threshold nan', 'step --threshold -1', 'step --repeats 0', 'prune --thresholds 0 2',
    'query --voxels 0', 'features --vit-images 0', 'head --preset tiny --scale grid=0.01',
    'lift --device nothing'])
def test_values_that_make_no_sense(command):
    done = subprocess.run([sys.executable, str(TOOLS / 'benchmark.py'), *command.split()],
                          capture_output=True, text=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert f'benchmark.py {command.split()[0]}: error:' in done.stderr


def test_help_names_defaults_and_columns():
    done = subprocess.run([sys.executable, str(TOOLS / 'benchmark.py'), 'scale', '--help'],
                          capture_output=True, text=True)
    text = ' '.join(done.stdout.split())
    assert '(default: quarter)' in text and '(default: 3)' in text and 'None' not in text
    assert "an eighth of the preset's voxels" in text
    assert "*_ratio: seconds / those of the row 'base'" in text and '--rays' not in text
    done = subprocess.run([sys.executable, str(TOOLS / 'benchmark.py'), '--help'],
                          capture_output=True, text=True)
    assert all(f'    {name} ' in done.stdout for name in import_tools('columns')[0].MEANINGS)


def test_the_real_sequence_that_is_not_there(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark.py'), 'prune', '--preset', 'tiny', '--rays',
         'real'], capture_output=True, text=True,
        env=dict(os.environ, LANGOCC_SHARED=str(tmp_path)))
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f'benchmark: no real sequence at {tmp_path}')


def test_progress_says_which_run(capsys):
    progress, = import_tools('progress')
    ran = []
    for turn, name in progress.turns(['dense', 'ours'], 2):
        ran.append((turn, name))
        if name == 'dense':
            progress._SHORT = 0.  # every turn is long from now on
    assert ran == [(turn, name) for turn in range(3) for name in ('dense', 'ours')]
    lines = [line.split('  ')[-1] for line in capsys.readouterr().err.splitlines()]
    assert lines[:2] == ['dense: warm-up', 'ours: warm-up'] and lines[-1] == 'ours: run 2 of 2'
    progress._SHORT = 1.
    assert len(list(progress.turns(['quick'], 50))) == 51
    assert len(capsys.readouterr().err.splitlines()) == 1
