"""RayIoU on the real street: truth against itself, the tools, two processes, labelled points."""
import json
import math
import os
import runpy
import sys

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmdet3d.registry import METRICS
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator

import langocc.evaluation  # noqa: F401
from langocc.datasets.key_frames import KeyFrames
from langocc.datasets.nuscenes_prepare import prepare_infos
from langocc.evaluation import save_prediction
from langocc.evaluation.occ_files import load_occupancy
from langocc.occ3d import OCC3D_CLASSES


@pytest.fixture(scope='module')
def infos(pandaset_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('infos')
    prepare_infos(pandaset_root, 'v1.0-mini', folder, splits='all', prefix='pandaset')
    return folder / 'pandaset_infos_all.json'


@pytest.fixture(scope='module')
def frames(infos, pandaset_root):
    return KeyFrames(infos, pandaset_root)


def samples(frames, tokens, change):
    """Key frames whose prediction is the truth, changed."""
    for token in tokens:
        info = frames.metainfo(token)
        yield dict(info, pred_occ=dict(semantics=change(
            load_occupancy(info['occ_path'])['semantics'])))


def moved(semantics):
    return np.roll(semantics, 1, axis=0)


def test_the_truth_against_itself_is_100(frames):
    evaluator = Evaluator(METRICS.build(dict(type='RayIoUMetric')))
    for sample in samples(frames, frames.tokens, np.copy):
        assert sample['lidar_origins'].shape == (16, 3)
        evaluator.process([sample])
    scores = evaluator.evaluate(16)
    assert len(scores) == 25 and {v for v in scores.values() if not math.isnan(v)} == {100.}
    met = [name for name in OCC3D_CLASSES[:17] if not math.isnan(scores[f'RayIoU_{name}'])]
    assert len(met) > 8 and 'bus' not in met  # no bus in this street


def run_tool(monkeypatch, path, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name='__main__')


def test_saved_predictions_score_what_the_loop_scores(frames, infos, pandaset_root, repository,
                                                      tmp_path, monkeypatch):
    evaluator = Evaluator([METRICS.build(dict(type=name)) for name in ('OccMetric',
                                                                       'RayIoUMetric')])
    for sample in samples(frames, frames.tokens, moved):
        evaluator.process([sample])
        save_prediction(tmp_path / 'saved', sample['scene_name'], sample['token'],
                        sample['pred_occ']['semantics'])
    run_tool(monkeypatch, repository / 'tools' / 'eval_occupancy.py', infos, '--data-root',
             pandaset_root, '--predictions', tmp_path / 'saved', '--workers', 2,
             '--out', tmp_path / 'scores.json')
    expected = {key: None if math.isnan(value) else value
                for key, value in evaluator.evaluate(16).items()}
    assert json.loads((tmp_path / 'scores.json').read_text()) == expected
    assert 50 < expected['RayIoU@1'] < 75 and expected['occ17_mIoU'] < 50


def test_points_with_their_true_labels(frames, infos, pandaset_root, repository, tmp_path,
                                       monkeypatch):
    """What the best segmentation of one sweep scores: right where it speaks, silent elsewhere."""
    run_tool(monkeypatch, repository / 'tools' / 'eval_occupancy.py', infos, '--data-root',
             pandaset_root, '--predictions', pandaset_root / 'lidarseg', '--points', 'lidarseg32',
             '--masks', 'camera', 'lidar', '--out', tmp_path / 'scores.json')
    scores = json.loads((tmp_path / 'scores.json').read_text())
    for key, value in {'geo_IoU': 39.0, 'geo_IoU_lidar': 22.4, 'occ17_mIoU': 46.6,
                       'occ17_mIoU_lidar': 22.2, 'RayIoU': 38.8}.items():
        assert scores[key] == pytest.approx(value, abs=0.05), 'docs/protocols.md states it'


def test_the_evaluation_loop_scores_rays(infos, pandaset_root, repository, tmp_path, monkeypatch):
    """The slab of the road, two frames: origins come through the data set and its packing."""
    monkeypatch.setenv('PANDASET_ROOT', str(pandaset_root))
    monkeypatch.setenv('LANGOCC_INFO_ROOT', str(infos.parent))
    run_tool(monkeypatch, repository / 'tools' / 'test.py',
             repository / 'configs' / 'constant-slab_pandaset.py', '--work-dir', tmp_path,
             '--metrics', 'OccMetric', 'RayIoUMetric', '--out', tmp_path / 'scores.json',
             '--cfg-options', 'test_dataloader.dataset.indices=[0,8]',
             'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False')
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert scores['geo_IoU'] > 15
    assert scores['RayIoU_driveable_surface'] > 20 and scores['RayIoU_car'] == 0
    assert 0 < scores['RayIoU'] < scores['RayIoU@4'] < 10


def score_share(frames, tokens):
    """Scores of the samples that this process' sampler draws."""
    evaluator = Evaluator(METRICS.build(dict(type='RayIoUMetric')))
    share = [tokens[i] for i in DefaultSampler(tokens, shuffle=False)]
    for sample in samples(frames, share, moved):
        evaluator.process([sample])
    return evaluator.evaluate(len(tokens)), len(share)


def worker(rank, folder, infos, root, tokens):
    """One of two gloo processes; leaves its scores in ``folder``."""
    os.chdir(folder)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(score_share(KeyFrames(infos, root), tokens), f'{folder}/scores{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(frames, infos, pandaset_root, tmp_path):
    """Five samples for two processes: the sampler repeats one."""
    tokens = frames.tokens[-5:]
    alone, _ = score_share(frames, tokens)
    multiprocessing.spawn(worker, (str(tmp_path), str(infos), str(pandaset_root), tokens), nprocs=2)
    shares = [torch.load(tmp_path / f'scores{rank}.pt') for rank in range(2)]
    assert [share for _, share in shares] == [3, 3]
    for scores, _ in shares:
        assert scores == pytest.approx(alone, nan_ok=True, rel=1e-12)
