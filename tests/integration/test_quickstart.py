"""tools/quickstart.sh --tiny from data to report, and tools/compare.py on what it made."""
import json
import os
import subprocess
import sys

import pytest
import torch

from langocc.engine import allow_mmengine_checkpoints

EXPERIMENTS = '''
budgets: {two: 2}
data: ['${SYNTHETIC_ROOT}/synthetic.json']
experiments:
  - name: camera
    config: configs/langocc-tiny_r18_1xb1_synthetic-path-photometric-ground.py
    budgets: [two]
  - {name: prior, config: configs/constant-prior_synthetic.py, train: false}
'''


@pytest.fixture(scope='module')
def work_dir(repository, tmp_path_factory):
    """The folder of a tiny run; ``output.txt`` in it is what was printed."""
    folder = tmp_path_factory.mktemp('quickstart') / 'work'
    done = subprocess.run(
        ['bash', 'tools/quickstart.sh', '--tiny', folder], cwd=repository, text=True, timeout=1800,
        env=dict(os.environ, OMP_NUM_THREADS='2', PYTHON=sys.executable), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-4000:]
    (folder / 'output.txt').write_text(done.stdout)
    return folder


def read(path):
    return json.loads(path.read_text())


def test_report_and_what_it_names(work_dir):
    report = (work_dir / 'report.md').read_text()
    assert report.strip() in (work_dir / 'output.txt').read_text()
    assert '--tiny' in report and '| camera | ' in report and '| prior | ' in report
    sheets = list(work_dir.glob('pictures/*/sheet.png'))
    assert len(sheets) == 1 and f'pictures/{sheets[0].parent.name}/sheet.png' in report
    for pattern in ('queries/*.png', 'queries/*.ply', 'queries/*.npz', 'camera/iter_2.pth'):
        assert list(work_dir.glob(pattern)), pattern
    for name in ('curves.png', 'report.json', 'data/synthetic.json', 'camera/metrics.json'):
        assert (work_dir / name).stat().st_size > 0, name
    queries = read(work_dir / 'camera' / 'retrieval.json')['queries']
    assert queries and all(f'| {row["query"]} | ' in report for row in queries)


def test_the_same_command_again_does_nothing_but_the_report(work_dir, repository):
    before = (work_dir / 'camera' / 'iter_2.pth').stat().st_mtime_ns
    done = subprocess.run(
        ['bash', 'tools/quickstart.sh', '--tiny', work_dir], cwd=repository, text=True, timeout=600,
        env=dict(os.environ, PYTHON=sys.executable), capture_output=True)
    assert done.returncode == 0 and done.stdout.count('there already') == 10
    assert (work_dir / 'camera' / 'iter_2.pth').stat().st_mtime_ns == before


def test_compare_trains_and_scores(work_dir, repository, tmp_path):
    """Two steps by tools/compare.py; the prior scores what it scored in the quickstart."""
    (tmp_path / 'list.yaml').write_text(EXPERIMENTS)
    done = subprocess.run(
        [sys.executable, 'tools/compare.py', tmp_path / 'list.yaml', '--work-dir',
         tmp_path / 'work', '--rows', tmp_path / 'rows'], cwd=repository, text=True, timeout=1800,
        env=dict(os.environ, OMP_NUM_THREADS='2', SYNTHETIC_ROOT=str(work_dir / 'data')),
        capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    camera, prior = (read(tmp_path / 'rows' / f'{name}.json')
                     for name in ('camera-two-s0', 'prior'))
    assert camera['train_steps'] == 2 and camera['peak_memory_mb'] > 100
    assert camera['train_seconds'] > 1 and camera['metrics']['geo_IoU'] is not None
    assert (tmp_path / 'work' / 'camera-two-s0' / 'train' / 'iter_2.pth').is_file()
    expected = read(work_dir / 'prior' / 'metrics.json')
    assert prior['metrics']['geo_IoU'] == pytest.approx(expected['geo_IoU'], abs=1e-6)
    assert '| camera | 2 | 1 | ' in done.stdout and '| prior | - | - | ' in done.stdout
    allow_mmengine_checkpoints()
    # Same seed, same steps, another process: the quickstart's weights and scores, to the last bit.
    folders = tmp_path / 'work' / 'camera-two-s0' / 'train', work_dir / 'camera'
    ours, first = (torch.load(folder / 'iter_2.pth', weights_only=True)['state_dict']
                   for folder in folders)
    assert ours.keys() == first.keys() and all(torch.equal(ours[key], first[key]) for key in ours)
    assert read(tmp_path / 'work' / 'camera-two-s0' / 'metrics.json') == read(
        work_dir / 'camera' / 'metrics.json')
