"""tools/benchmark.py features --parts embedded: codecs downstream, on a world made small."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from langocc.teachers import Reducer

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
CODECS = ['fp16', 'int8', 'pca64-int8', 'pq', 'reducer']


@pytest.fixture(scope='module')
def tiny_world(tmp_path_factory):
    """A training and a validation street of one key frame, and a reducer that keeps everything."""
    root = tmp_path_factory.mktemp('synthetic') / 'set'
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'make_synthetic.py'), '--out', str(root), '--scenes-train',
         '1', '--scenes-val', '1', '--frames', '1'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    Reducer(torch.eye(512)).save(root / 'reducer_128.safetensors')
    return root


def test_every_codec_is_scored_on_the_same_points(tiny_world, tmp_path):
    path = tmp_path / 'result.json'
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark.py'), 'features', '--parts', 'embedded',
         '--preset', 'tiny', '--synthetic', str(tiny_world), '--json', str(path)],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row['codec']: row for row in json.loads(path.read_text())['embedded']}
    assert list(rows) == ['fp32', *CODECS]
    full = rows['fp32']
    assert full['mean_cosine'] == pytest.approx(1) and full['class_agreement'] == 1
    assert full['class_accuracy'] > 0.5 and full['points'] > 100
    for name, row in rows.items():
        assert row['points'] == full['points'] and row['fitted_images'] == 6
        assert row['teacher_ap'] == pytest.approx(full['teacher_ap'], abs=10), name
    assert rows['fp16']['class_accuracy'] == pytest.approx(full['class_accuracy'], abs=1e-3)
    assert 'retrieval' not in done.stdout and 'class_accuracy: ' in done.stdout


def test_a_world_that_is_not_there(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark.py'), 'features', '--parts', 'embedded',
         '--synthetic', str(tmp_path / 'none')], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f'benchmark: no synthetic data at {tmp_path}')
