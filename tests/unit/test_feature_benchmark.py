"""tools/benchmark.py features: both layouts give the same rows, every part its numbers."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
CODECS = ['fp16', 'int8', 'pca64-int8', 'pq']


@pytest.fixture(scope='module')
def result(pandaset_root, tmp_path_factory):
    """The JSON of all parts at the smallest size."""
    folder = tmp_path_factory.mktemp('features')
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark.py'), 'features', '--preset', 'tiny', '--repeats',
         '1', '--folder', str(folder), '--json', str(folder / 'result.json')],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ['result.json']
    assert 'extract_features' in done.stdout and 'random ViT pq' in done.stdout
    assert '  published_cold_ms, ours_cold_ms: ' in done.stdout  # the legend
    assert 'extraction: 6 images' in done.stderr
    return json.loads((folder / 'result.json').read_text())


@pytest.mark.real_data
def test_read(result):
    assert [row['codec'] for row in result['read']] == CODECS
    for row in result['read']:
        assert row['published_warm_ms'] > 0 and row['ours_warm_ms'] > 0 and row['warm_ratio'] > 0
        assert row['ours_files_mb'] < 2 * row['published_files_mb']
        if 'disk_ratio' in row:  # no more is read than there is, headers of files apart
            assert row['published_disk_mb'] <= 1.1 * row['published_files_mb'] + 0.1
    half = result['read'][0]
    assert half['lowest_cosine'] > 0.99999  # the same pixels of the same maps on both sides


@pytest.mark.real_data
def test_sizes(result):
    for row in result['size']:
        height, width = row['map_size']
        cells = height * width * row['row_bytes']
        assert cells < row['bytes_per_image'] < 1.1 * cells + 400
        assert row['nuscenes_gb'] == pytest.approx(row['bytes_per_image'] * 204894e-9, rel=1e-2)


@pytest.mark.real_data
def test_codecs(result):
    by_teacher = {}
    for row in result['codecs']:
        by_teacher.setdefault(row['teacher'], {})[row['codec']] = row
    assert list(by_teacher['random ViT']) == CODECS
    assert list(by_teacher['probabilities']) == ['fp32', *CODECS]
    for row in by_teacher['probabilities'].values():
        assert 0 < row['teacher_ap'] < 100
        if row['codec'] != 'fp32':
            assert 0 < row['p1_cosine'] <= row['mean_cosine'] <= 1 + 1e-6
            assert 0 < row['class_agreement'] <= 1
    full, half = (by_teacher['probabilities'][name]['teacher_ap'] for name in ('fp32', 'fp16'))
    assert half == pytest.approx(full, abs=0.1)
    assert 'class_agreement' not in by_teacher['random ViT']['fp16']


@pytest.mark.real_data
def test_extraction(result):
    assert [row['name'] for row in result['extraction']] == ['sequential', 'extract_features']
    for row in result['extraction']:
        assert 0 < row['network_share'] < 1 and row['images'] == 6
        assert row['images_per_s'] == pytest.approx(row['images'] / row['seconds'])
