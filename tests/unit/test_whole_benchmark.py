"""tools/benchmark.py predict and profile: rows, stages, a clock that counts each second once."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
STAGES = {'backbone', 'cost volume', 'depth net', 'splat', 'pre-process', '3D encoder', '3D neck',
          'final conv', 'density', 'language'}


@pytest.fixture
def benchmarks(monkeypatch):
    """The modules of the tool."""
    monkeypatch.syspath_prepend(str(TOOLS))
    from benchmarks import stages, whole
    return stages, whole


def run(command, path):
    """The JSON of a command at the smallest size."""
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark.py'), command, '--preset', 'tiny', '--repeats',
         '1', '--json', str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout


def test_predict(tmp_path):
    result, printed = run('predict', tmp_path / 'predict.json')
    row = result['predict']
    for name in ('', 'streaming_'):
        assert row[f'{name}max_error'] < 1e-4 and row[f'{name}different_where_clear'] == 0
        assert row[f'{name}agreement'] > 0.99 and row[f'{name}speedup'] > 0
    assert {'published_s', 'ours_s', 'streaming_s', 'published_peak_mb', 'ours_peak_mb',
            'published_max_error'} <= set(row)
    assert STAGES <= set(result['stages'])
    for name in STAGES:
        stage = result['stages'][name]
        assert all(stage[key] > 0 for key in ('published_s', 'ours_s', 'streaming_s', 'floor_s'))
    assert 'streaming_speedup' in printed and 'cost volume' in printed
    assert '*' not in printed and '  floor_s: ' in printed  # a legend with the columns' names


def test_profile(tmp_path):
    """The two sides are the same computation: loss and gradients of the whole model agree."""
    result, _ = run('profile', tmp_path / 'profile.json')
    for side in ('published', 'ours'):
        stages = {name: row[f'{side}_s'] for name, row in result['profile'].items()
                  if f'{side}_s' in row}
        total = stages.pop('total')
        assert STAGES - {'density', 'language', 'final conv'} | {
            'rendering', 'loss', 'backward', 'optimizer'} <= set(stages)
        assert sum(stages.values()) == pytest.approx(total, rel=1e-3)
        assert all(value >= 0 for value in stages.values()) and stages['backward'] > 0
    summary = result['summary']
    assert summary['loss_error'] < 1e-3 and summary['grad_cosine'] > 0.999
    assert summary['published_peak_mb'] > 10 and summary['ours_peak_mb'] > 10
    assert summary['speedup'] > 0


def test_a_clock_counts_every_second_once(benchmarks):
    now = [0.]
    clock = benchmarks[0].StageClock(reading=lambda: now[0])

    def work(seconds):
        now[0] += seconds

    with clock.stage('rest'):
        work(1)
        with clock.stage('head'):
            work(2)
            clock.wrap('conv', work)(4)
            clock.wrap('conv', work)(8)
        work(16)
    assert clock.seconds == dict(conv=12., head=2., rest=17.)


def test_compare(benchmarks):
    import torch
    expected = dict(
        densities=torch.tensor([0.5, 0.5, 0.5, 0.01]), classes=torch.tensor([1, 2, 3, 17]),
        scores=torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5], [0.3, 0.1]]))
    found = benchmarks[1].compare(torch.tensor([0.5, 0.4, 0.5, 0.01]), torch.tensor([1, 4, 4, 17]),
                                  expected, 0.1)
    assert found['max_error'] == pytest.approx(0.1)
    assert found['agreement'] == pytest.approx(1 / 3)
    assert found['different_where_clear'] == 1  # the third is a tie
