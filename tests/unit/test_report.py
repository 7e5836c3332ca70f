"""Tables of runs."""
import json
import runpy
import sys

import pytest

from langocc.evaluation.report import read_run, read_runs
from langocc.experiments import comparison_table
from langocc.files import write_json


def test_rows_and_table(tmp_path):
    write_json(tmp_path / 'b' / 'metrics.json', dict(geo_IoU=35.26, occ17_mIoU=10., RayIoU=7.7))
    write_json(tmp_path / 'b' / 'retrieval.json', dict(means=dict(all=dict(
        visible=50., teacher=55., chance=16., all=48.))))
    write_json(tmp_path / 'b' / 'time.json', dict(train_seconds=90))
    write_json(tmp_path / 'a' / 'metrics.json', dict(geo_IoU=23.2, occ17_mIoU=None))
    rows = read_runs(tmp_path)
    assert [row['run'] for row in rows] == ['a', 'b'] and rows[1]['train_seconds'] == 90
    table = comparison_table(rows).splitlines()
    assert table[0] == ("| run | geometric IoU | mIoU (17) | RayIoU | AP at LiDAR points | "
                        "teacher's AP | chance | training, min |")
    assert table[2] == '| a | 23.2 | - | - | - | - | - | - |'
    assert table[3] == '| b | 35.3 | 10.0 | 7.7 | 50.0 | 55.0 | 16.0 | 2 |'


def test_a_run_without_metrics_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='metrics.json'):
        read_run(tmp_path)


@pytest.fixture
def report(monkeypatch, capsys, repository):
    """Runs tools/report.py; returns (exit status, what it printed)."""

    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['report', *map(str, words)])
        try:
            runpy.run_path(str(repository / 'tools' / 'report.py'), run_name='__main__')
            status = 0
        except SystemExit as error:
            status = error.code
        return status, ''.join(capsys.readouterr())

    return run


def test_tables_of_a_work_directory(report, tmp_path):
    write_json(tmp_path / 'a' / 'metrics.json', dict(geo_IoU=35.26, IoU_car=4., RayIoU=8.))
    write_json(tmp_path / 'a' / 'retrieval.json', dict(
        means=dict(all=dict(visible=50., teacher=55., chance=16.)),
        queries=[dict(query='car', visible=40., teacher=80., chance=5.)]))
    status, output = report(tmp_path, '--table', 'main', 'classes', 'queries')
    assert status == 0 and '| a | 35.3 | 8.0 | 50.0 | 55.0 | 16.0 |' in output
    assert '| class | a |\n|---|---:|\n| car | 4.0 |' in output
    assert '| car | 40.0 | 80.0 | 5.0 |' in output


def test_tables_of_rows(report, tmp_path):
    for budget, steps, value in (('short', 4, 10.), ('long', 8, 20.), (None, None, 5.)):
        name = f'a-{budget}'
        write_json(tmp_path / f'{name}.json', dict(
            run=name, entry='a' if budget else 'prior', title='model' if budget else 'prior',
            budget=budget, seed=None, train_steps=steps, fingerprint='x', definition={},
            metrics=dict(geo_IoU=value)))
    status, output = report('--rows', tmp_path)
    assert status == 0 and output.splitlines()[2:] == [
        '| model | 4 | - | 10.0 |', '| model | 8 | - | 20.0 |', '| prior | - | - | 5.0 |']
    output = report('--rows', tmp_path, '--budgets', 'long')[1]
    assert '| model | 8 |' in output and '| prior |' in output and '| 4 |' not in output
    status, output = report('--rows', tmp_path, '--budgets', 'huge')
    assert status == 2 and "no rows of budgets ['huge']; there are ['long', 'short']" in output
    rows = json.loads(report('--rows', tmp_path, '--format', 'json')[1])
    assert [row['run'] for row in rows] == ['a-short', 'a-long', 'a-None']
    assert report()[0] == 2 and report(tmp_path, '--rows', tmp_path)[0] == 2


def test_rows_of_some_experiments(report, tmp_path):
    for entry in 'ab':
        write_json(tmp_path / f'{entry}.json', dict(
            run=entry, entry=entry, title=entry, budget=None, seed=None, train_steps=None,
            fingerprint='x', definition={}, metrics=dict(geo_IoU=1.)))
    experiments = tmp_path / 'both.yaml'
    experiments.write_text('experiments:\n' + ''.join(
        f'  - {{name: {entry}, config: {entry}.py, train: false}}\n' for entry in 'ba'))
    words = '--rows', tmp_path, '--experiments', experiments
    shown = [line[2] for line in report(*words)[1].splitlines()[2:]]
    assert shown == ['b', 'a']
    shown = [line[2] for line in report(*words, '--only', 'a')[1].splitlines()[2:]]
    assert shown == ['a']
    status, output = report(*words, '--only', 'a', 'c*')
    assert status == 2 and "['c*']: no such entry or run; there are ['b', 'a']" in output
    status, output = report('--rows', tmp_path, '--only', 'a')
    assert status == 2 and '--only needs --experiments' in output
