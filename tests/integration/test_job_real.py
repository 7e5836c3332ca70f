"""The whole job on the real sequence, by the commands that README names, a few steps long."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

CONFIG = 'configs/langocc-tiny_r18_1xb2-120i_pandaset-depth.py'
SHORT = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'default_hooks.logger.interval=1',
         'train_dataloader.dataset.indices=4', 'val_dataloader.dataset.indices=2',
         'test_dataloader.dataset.indices=2', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
         'val_dataloader.persistent_workers=False', 'test_dataloader.num_workers=0',
         'test_dataloader.persistent_workers=False', 'default_hooks.checkpoint.interval=3']


@pytest.fixture(scope='module')
def job(repository, pandaset_root, tmp_path_factory):
    """Runs a tool in a work folder; infos and reducer are made first."""
    folder = tmp_path_factory.mktemp('job')
    env = dict(os.environ, PANDASET_ROOT=str(pandaset_root), LANGOCC_INFO_ROOT=f'{folder}/infos/',
               PYTHONWARNINGS='ignore')

    def run(*command, fails=False, python=True):
        command = [sys.executable, *command] if python else list(command)
        done = subprocess.run([str(c) for c in command], cwd=repository, env=env, text=True,
                              capture_output=True, timeout=600)
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output[-4000:]
        return output

    run.folder = folder
    run('tools/prepare_data.py', '--root', pandaset_root, '--version', 'v1.0-mini', '--splits',
        'all', '--prefix', 'pandaset', '--out-dir', folder / 'infos')
    run('tools/fit_reducer.py', '--text-embeds', pandaset_root / 'text_embeds/clip_vit_b16.npz',
        '--dims', 128, '--out', folder / 'infos/reducer_128.safetensors')
    run('tools/train.py', CONFIG, '--work-dir', folder / 'run', '--cfg-options', *SHORT)
    run.checkpoint = folder / 'run' / 'iter_3.pth'
    return run


def losses(folder):
    log = next(folder.glob('2*/vis_data/scalars.json'))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row for row in rows if 'loss' in row]


def test_training_wrote_finite_losses_and_the_best_checkpoint(job):
    rows = losses(job.folder / 'run')
    assert len(rows) == 3 and all(np.isfinite(row['loss']) for row in rows)
    assert {'loss_lang', 'loss_depth', 'opacity'} <= set(rows[0])
    assert job.checkpoint.is_file() and list((job.folder / 'run').glob('best_geo_IoU*.pth'))


def test_resume_goes_on_where_it_stopped(job):
    output = job('tools/train.py', CONFIG, '--work-dir', job.folder / 'run', '--resume',
                 '--cfg-options', *SHORT, 'train_cfg.max_iters=4', 'train_cfg.val_interval=9')
    assert 'Iter(train) [4/4]' in output and 'Iter(train) [1/4]' not in output


def test_evaluation_twice_gives_the_same_and_format_only_writes(job):
    for name in 'ab':
        job('tools/test.py', CONFIG, job.checkpoint, '--work-dir', job.folder / name, '--out',
            job.folder / f'{name}.json', '--cfg-options', *SHORT)
    first, second = (json.loads((job.folder / f'{name}.json').read_text()) for name in 'ab')
    assert first == second and 'geo_IoU' in first
    job('tools/test.py', CONFIG, job.checkpoint, '--work-dir', job.folder / 'c', '--format-only',
        job.folder / 'predictions', '--cfg-options', *SHORT)
    files = list((job.folder / 'predictions').glob('pandaset-002/*/labels.npz'))
    assert len(files) == 2
    with np.load(files[0]) as archive:
        assert archive['semantics'].shape == (200, 200, 16)


def test_two_processes_train_and_test(job, repository):
    """gloo on a machine without a GPU; scores are those of one process."""
    os.environ['PYTHON'], port = sys.executable, '29641'
    env = ['env', f'PYTHON={sys.executable}', f'PORT={port}', 'OMP_NUM_THREADS=1']
    output = job(*env, 'bash', 'tools/dist_train.sh', CONFIG, 2, '--work-dir', job.folder / 'dist',
                 '--cfg-options', *SHORT, 'train_cfg.max_iters=1', 'train_cfg.val_interval=9',
                 'train_dataloader.batch_size=1', python=False)
    assert 'Iter(train) [1/1]' in output
    job(*env, 'bash', 'tools/dist_test.sh', CONFIG, job.checkpoint, 2, '--work-dir',
        job.folder / 'dist_test', '--out', job.folder / 'two.json', '--cfg-options', *SHORT,
        python=False)
    job('tools/test.py', CONFIG, job.checkpoint, '--work-dir', job.folder / 'one', '--out',
        job.folder / 'one.json', '--cfg-options', *SHORT)
    one, two = (json.loads((job.folder / f'{n}.json').read_text()) for n in ('one', 'two'))
    assert one == two


def test_query_writes_voxels_and_pictures_and_names_unknown_words(job):
    out = job.folder / 'queries'
    loose = 'model.occ_head.density_threshold=0.0'
    output = job('tools/query.py', CONFIG, job.checkpoint, '--words', 'car', 'road', '--samples', 1,
                 '--out-dir', out, '--device', 'cpu', '--cfg-options', *SHORT, loose)
    assert "'car': highest cosine" in output and 'nan' not in output.split('highest cosine')[1]
    archive = next(out.glob('*.npz'))
    with np.load(archive, allow_pickle=False) as values:
        assert values['similarity'].shape == (len(values['voxel_indices']), 2)
        assert len(values['voxel_indices']) == 200 * 200 * 16
        assert np.abs(values['similarity']).max() <= 1 + 1e-5
    assert len(list(out.glob('*_car.ply'))) == 1 and len(list(out.glob('*_road.png'))) == 1
    output = job('tools/query.py', CONFIG, job.checkpoint, '--words', 'veicle', '--cfg-options',
                 *SHORT, fails=True)
    assert 'veicle' in output and 'Traceback' not in output


def test_retrieval_beside_the_teacher(job, pandaset_root):
    output = job('tools/eval_retrieval.py', CONFIG, job.checkpoint, '--benchmark',
                 pandaset_root / 'retrieval_benchmark', '--splits', 'val', '--out',
                 job.folder / 'retrieval.json', '--device', 'cpu')
    result = json.loads((job.folder / 'retrieval.json').read_text())
    assert [row['query'] for row in result['queries']] == ['road', 'pavement', 'car']
    assert result['queries'][0]['teacher'] > 85 > result['queries'][0]['chance']
    assert 'mean' in output
