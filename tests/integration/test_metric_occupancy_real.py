"""OccMetric on the real labels: known scores, and two processes against one."""
import os

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmdet3d.registry import METRICS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator

import langocc.evaluation  # noqa: F401
import langocc.models.constant_occupancy  # noqa: F401
from langocc.evaluation import confusion_matrix, geometric_iou
from langocc.occ3d import FREE_CLASS
from langocc.structures import OccData

GRID = dict(x=[-40., 40., 0.4], y=[-40., 40., 0.4], z=[-1., 5.4, 0.4])


def label_paths(root):
    """Label files relative to the data root, in a fixed order."""
    return sorted(path.relative_to(root).as_posix() for path in root.glob('gts/*/*/labels.npz'))


def samples_of(root, paths):
    """Data samples as the pipeline would pack them without labels."""
    return [
        Det3DDataSample(metainfo=dict(token=path.split('/')[2], scene_name=path.split('/')[1],
                                      occ_path=f'{root}/{path}')) for path in paths
    ]


@pytest.mark.parametrize('z_range, occupied, expected', [
    ((-0.6, 0.2), 11, 23.2),
    ((-1.0, 5.4), 11, 5.0),
    ((-0.6, 0.2), FREE_CLASS, 0.0),
])
def test_constant_predictors_score_what_the_data_readme_says(pandaset_root, z_range, occupied,
                                                             expected):
    model = MODELS.build(dict(type='ConstantOccupancy', grid_config=GRID, z_range=z_range,
                              occupied_class=occupied))
    evaluator = Evaluator(METRICS.build(dict(type='OccMetric')))
    paths = label_paths(pandaset_root)
    assert len(paths) == 16
    evaluator.process(model(None, samples_of(pandaset_root, paths), mode='predict'))
    scores = evaluator.evaluate(len(paths))
    assert scores['geo_IoU'] == pytest.approx(expected, abs=0.05)


def test_constant_occupancy_only_predicts():
    model = MODELS.build(dict(type='ConstantOccupancy', grid_config=GRID))
    volume = model(None, mode='tensor')
    assert volume.shape == (200, 200, 16) and volume.dtype == torch.uint8
    assert (volume != FREE_CLASS).any(0).any(0).nonzero().flatten().tolist() == [1, 2]
    with pytest.raises(ValueError, match='loss'):
        model(None, [], mode='loss')
    with pytest.raises(ValueError, match='z_range'):
        MODELS.build(dict(type='ConstantOccupancy', grid_config=GRID, z_range=(0.2, -0.6)))


def shifted(path):
    """An imperfect, yet sensible prediction: the true labels moved by one voxel."""
    return np.roll(np.load(path)['semantics'], 1, axis=0)


def test_real_labels_against_a_sum_over_classes(pandaset_root):
    path = pandaset_root / label_paths(pandaset_root)[-1]
    truth, pred = np.load(path), shifted(path)
    gt, mask = truth['semantics'], truth['mask_camera'].astype(bool)
    matrix = confusion_matrix(gt, pred, mask)
    for true_class in range(18):
        for pred_class in range(18):
            count = ((gt == true_class) & (pred == pred_class) & mask).sum()
            assert matrix[true_class, pred_class] == count
    both = ((gt != 17) & (pred != 17) & mask).sum()
    either = (((gt != 17) | (pred != 17)) & mask).sum()
    assert geometric_iou(matrix) == pytest.approx(both / either)
    assert 0.1 < both / either < 0.9


def score_share(root, paths, masks):
    """Scores of the samples that this process' sampler draws."""
    evaluator = Evaluator(METRICS.build(dict(type='OccMetric', masks=masks)))
    share = [paths[i] for i in DefaultSampler(paths, shuffle=False)]
    for path, sample in zip(share, samples_of(root, share)):
        sample.pred_occ = OccData(semantics=torch.from_numpy(shifted(f'{root}/{path}')))
        evaluator.process([sample])
    return evaluator.evaluate(len(paths)), len(share)


def worker(rank, folder, root, paths, masks):
    """One of two gloo processes; leaves its scores in ``folder``."""
    os.chdir(folder)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(score_share(root, paths, masks), f'{folder}/scores{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(pandaset_root, tmp_path):
    """Five samples for two processes: the sampler repeats one."""
    paths, masks = label_paths(pandaset_root)[-5:], ('camera', 'lidar')
    alone, _ = score_share(str(pandaset_root), paths, masks)
    multiprocessing.spawn(worker, (str(tmp_path), str(pandaset_root), paths, masks), nprocs=2)
    shares = [torch.load(tmp_path / f'scores{rank}.pt') for rank in range(2)]
    assert [share for _, share in shares] == [3, 3]
    for scores, _ in shares:
        assert scores == pytest.approx(alone, nan_ok=True, rel=1e-12)
    assert alone['geo_IoU'] != alone['geo_IoU_lidar']
