"""tools/extract_features.py and tools/inspect_features.py, run as a user runs them."""
import json
import os
import runpy
import sys

import numpy as np
import pytest
import torch
from nusc_factory import CAMERAS
from PIL import Image

from langocc.apis.extraction_arguments import default_device
from langocc.apis.extraction_images import read_images
from langocc.feature_store import FeatureStore, StoreTeacher
from langocc.teachers import MaskClipTeacher

CONFIG = '''
custom_imports = dict(imports=['tiny_teachers'])
{teacher}
data_root = '{root}'
train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(
    ann_file='tiny_infos_all.json', data_root=data_root, camera_names=['CAM_FRONT'])))
val_dataloader = dict(dataset=dict(
    ann_file='tiny_infos_all.json', data_root=data_root, camera_names={cameras}))
'''


@pytest.fixture(scope='module')
def weights(tmp_path_factory, repository):
    """A CLIP of two layers with random weights, in a folder as open_clip publishes them."""
    sys.path.insert(0, str(repository / 'tools'))
    try:
        from benchmarks.feature_case import write_random_clip
    finally:
        sys.path.remove(str(repository / 'tools'))
    folder = tmp_path_factory.mktemp('weights')
    write_random_clip(folder, 'tiny')
    return folder


@pytest.fixture
def config(tiny_root, tmp_path):
    """Writes a config with a teacher and two data sets; returns its path."""
    def write(teacher="extract = dict(type='TinyDenseTeacher')"):
        path = tmp_path / 'config.py'
        path.write_text(CONFIG.format(teacher=teacher, root=tiny_root, cameras=list(CAMERAS)))
        return path
    return write


@pytest.fixture
def run(monkeypatch, capsys, repository):
    """Runs a tool; returns its exit status and what it printed."""
    monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS', raising=False)

    def run(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        try:
            runpy.run_path(str(repository / 'tools' / f'{name}.py'), run_name='__main__')
            status = 0
        except SystemExit as end:
            status = end.code or 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err
    return run


@pytest.fixture
def complaint(run):
    """Runs a tool that must fail; returns the line it prints."""
    def complain(name, *arguments):
        status, _, line = run(name, *arguments)
        assert status == 2 and line.count('\n') == 1 and line.startswith(f'{name}: ')
        return line
    return complain


def test_from_images_to_a_teacher(run, config, tiny_root, weights, tmp_path):
    """Extraction with CLIP by the command line; what is stored is what the teacher computes."""
    source = ('--teacher', 'maskclip', '--weights', weights, '--input-size', 32, 64, '--infos',
              tiny_root / 'tiny_infos_all.json', '--data-root', tiny_root, '--device', 'cpu')
    out = tmp_path / 'store'
    status, printed, _ = run('extract_features', *source, '--out', out, '--codec', 'int8')
    images = read_images([tiny_root / 'tiny_infos_all.json'], tiny_root)
    assert status == 0
    assert f'{len(images)} images written' in printed and 'projected: ' in printed
    teacher, stored = MaskClipTeacher(weights=weights, input_size=(32, 64)), StoreTeacher(out)
    pixels = torch.tensor([[0., 0.], [40., 20.], [79., 44.]])
    for item in images[::5]:
        expected = teacher.features(item.info, item.camera, pixels)
        found = stored.features(item.info, item.camera, pixels)
        assert (expected * found).sum(dim=1).min() > 0.999
    assert stored.store.manifest.description['weights_sha256'] == teacher.describe()[
        'weights_sha256']
    status, printed, _ = run('extract_features', *source, '--out', out, '--codec', 'int8')
    assert status == 0 and f'{len(images)} of them are there' in printed
    assert '0 images written, 0 images/s' in printed
    assert f'{out} has {len(images)} of {len(images)} images now' in printed
    # the same teacher, by a config whose options are given anew
    path = config("extract = dict(type='MaskClipTeacher', input_size=(16, 16))")
    status, printed, errors = run('extract_features', path, '--weights', weights, '--input-size',
                                  32, 64, '--out', out, '--codec', 'int8', '--device', 'cpu')
    assert status == 0 and f'{len(images)} of them are there' in printed, errors


def test_a_config_has_teacher_and_images(run, config, tmp_path, tiny_root):
    path = config()
    status, printed, _ = run('extract_features', path, '--out', tmp_path / 'out', '--codec', 'fp16')
    images = read_images([tiny_root / 'tiny_infos_all.json'], tiny_root, CAMERAS)
    assert status == 0
    assert FeatureStore(tmp_path / 'out').tokens == sorted(item.token for item in images)
    status, _, _ = run('extract_features', path, '--out', tmp_path / 'front', '--codec', 'fp16',
                       '--splits', 'train')
    assert {token.rpartition('-')[2] for token in FeatureStore(tmp_path / 'front').tokens} == {
        'CAM_FRONT'}
    status, _, _ = run('extract_features', path, '--out', tmp_path / 'wide', '--codec', 'fp16',
                       '--cfg-options', 'extract.embed_dims=9')
    assert FeatureStore(tmp_path / 'wide').embed_dims == 9


def test_ranks_of_a_launcher(run, config, tmp_path, monkeypatch):
    path, sizes = config(), []
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        status, printed, _ = run('extract_features', path, '--out', tmp_path / 'out',
                                 '--batch-size', 2, '--codec', 'pca3-int8', '--fit-images', 2)
        assert status == 0 and f'[{rank}] rank {rank} of 2' in printed
        sizes.append(len(FeatureStore(tmp_path / 'out')))
    assert 0 < sizes[0] < sizes[1]


def test_dry_run(run, config, tmp_path):
    status, printed, _ = run('extract_features', config(), '--out', tmp_path / 'out', '--dry-run')
    assert status == 2  # six dimensions have no 64 main directions
    status, printed, _ = run('extract_features', config(), '--out', tmp_path / 'out', '--dry-run',
                             '--codec', 'pca4-int8')
    assert status == 0 and '6 bytes a vector' in printed and not (tmp_path / 'out').exists()


def test_broken_images_are_named(run, config, tmp_path, tiny_root):
    bad = read_images([tiny_root / 'tiny_infos_all.json'], tiny_root)[1]
    os.truncate(bad.path, 100)
    status, printed, errors = run('extract_features', config(), '--out', tmp_path / 'out',
                                  '--codec', 'fp16')
    assert status == 1 and bad.path in errors and bad.token in errors
    Image.new('RGB', bad.size[::-1]).save(bad.path)
    status, printed, _ = run('extract_features', config(), '--out', tmp_path / 'out', '--codec',
                             'fp16')
    assert status == 0 and '1 images written' in printed


def test_one_line_says_what_is_wrong(complaint, config, tmp_path, tiny_root, weights):
    out = ('--out', tmp_path / 'out')
    infos = ('--infos', tiny_root / 'tiny_infos_all.json')
    assert 'no teacher: name a CONFIG' in complaint('extract_features', *out, *infos,
                                                    '--data-root', tiny_root)
    maskclip = ('--teacher', 'maskclip', '--weights', weights)
    assert 'no images: name a CONFIG' in complaint('extract_features', *maskclip, *out)
    assert '--infos needs --data-root' in complaint('extract_features', *maskclip, *infos, *out)
    assert "['weights'] are options of --teacher" in complaint(
        'extract_features', config(), '--weights', weights, *out)
    assert 'no CLIP weights: name a file' in complaint(
        'extract_features', config("extract = dict(type='MaskClipTeacher')"), *out)
    assert "codec 'zip' is not known" in complaint('extract_features', config(), '--codec', 'zip',
                                                   *out)
    line = complaint('extract_features', config('teacher = dict(root=1)'), *out)
    assert "expected 'extract' or 'teacher', a dict with a type" in line
    assert 'config none.py does not exist' in complaint('extract_features', 'none.py', *out)
    line = complaint('extract_features', config(), '--map-size', 2, 3, *out)
    assert 'TinyDenseTeacher makes maps of its own size' in line


def test_inspection_writes_numbers_and_a_picture(run, config, tmp_path, tiny_root):
    rows = np.eye(3, 6, dtype=np.float16)
    np.savez(tmp_path / 'words.npz', all=rows)
    (tmp_path / 'words.json').write_text(json.dumps(dict(all=['car', 'road', 'tree'])))
    (tmp_path / 'few.txt').write_text('car: car\ndriveable_surface: road\nvegetation: tree\n')
    path = config()
    status, printed, errors = run(
        'inspect_features', path, '--codecs', 'fp16', 'pca3-int8', '--vocabulary',
        tmp_path / 'few.txt', '--text-embeds', tmp_path / 'words.npz', '--out-dir',
        tmp_path / 'seen', '--images', 3, '--show', 2)
    assert status == 0, errors
    result = json.loads((tmp_path / 'seen' / 'fidelity.json').read_text())
    half, pca = result['rows']
    assert half['mean_cosine'] > 0.9999 and 0 < pca['mean_cosine'] < half['mean_cosine']
    assert half['class_agreement'] > 0.99 and pca['bytes_per_vector'] == 5
    assert 'pca3-int8' in printed and result['teacher']['teacher'] == 'TinyDenseTeacher'
    with Image.open(tmp_path / 'seen' / 'features.png') as picture:
        assert picture.size == (4 * 326 + 6, 2 * (26 + 180 + 6) + 6)


def test_inspection_of_a_store(run, config, complaint, tmp_path, tiny_root):
    path, out = config(), tmp_path / 'store'
    assert run('extract_features', path, '--out', out, '--codec', 'fp16')[0] == 0
    status, printed, _ = run('inspect_features', path, '--store', out, '--out-dir', tmp_path / 'a')
    assert status == 0 and 'store' in printed
    status, printed, _ = run('inspect_features', '--store', out, '--infos',
                             tiny_root / 'tiny_infos_all.json', '--data-root', tiny_root,
                             '--out-dir', tmp_path / 'b')
    assert status == 0 and 'pictures alone' in printed and (tmp_path / 'b/features.png').is_file()
    other = config("extract = dict(type='TinyDenseTeacher', seed=1)")
    assert 'weights_sha256' in complaint('inspect_features', other, '--store', out, '--out-dir',
                                         tmp_path / 'c')


def test_the_gpu_of_a_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert default_device({}) == 'cpu'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    assert default_device({}) == 'cuda:0'
    assert default_device(dict(LOCAL_RANK='2', SLURM_LOCALID='3')) == 'cuda:2'
    assert default_device(dict(SLURM_LOCALID='3')) == 'cuda:3'
