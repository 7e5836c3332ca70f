"""OccMetric against a plain program, on random labels and on the real ones: to the last digit."""
import logging

import numpy as np
import pytest
from mmengine.logging import MMLogger
from naive_occupancy import all_scores

from langocc.evaluation import OccMetric
from langocc.occ3d import OCC3D_CLASSES

MASKS = ('camera', 'lidar', 'camera_lidar', 'none')


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.text = ''

    def emit(self, record):
        self.text += record.getMessage() + '\n'


def compare(truths, predictions, masks):
    """Metric and plain program on the same samples: numbers, and the table as it is printed."""
    metric, logged = OccMetric(masks=masks), Lines()
    samples = []
    for number, (truth, prediction) in enumerate(zip(truths, predictions)):
        metric.process(None, [dict(token=f't{number}', gt_occ=truth,
                                   pred_occ=dict(semantics=prediction))])
        arrays = (*(truth[key] for key in ('semantics', 'mask_camera', 'mask_lidar')), prediction)
        samples.append([array.reshape(-1).tolist() for array in arrays])
    logger = MMLogger.get_current_instance()
    logger.addHandler(logged)
    found = metric.evaluate(len(samples))
    logger.removeHandler(logged)
    for mask in masks:
        suffix = '' if mask == 'camera' else f'_{mask}'
        expected = all_scores(samples, mask)
        expected.update({f'IoU_{name}': value for name, value in
                         zip(OCC3D_CLASSES, expected.pop('ious'))})
        assert {f'{key}{suffix}' for key in expected} <= set(found)
        for key, value in expected.items():
            assert found[key + suffix] == pytest.approx(value, rel=1e-12, nan_ok=True), key
            assert f'{found[key + suffix]:.4f}' == f'{value:.4f}', key
        table = logged.text.split(f'mask {mask},')[1].split('Occupancy')[0]
        for row, key in (('occ17 mIoU', 'occ17_mIoU'), ('geometric IoU', 'geo_IoU'),
                         ('car', 'IoU_car'), ('vegetation', 'IoU_vegetation')):
            line = next(line for line in table.splitlines() if line.startswith(f'| {row} '))
            assert line.split('|')[2].strip() == f'{expected[key]:.2f}'
    return found


def test_random_labels():
    rng = np.random.default_rng(7)
    shape = (6, 5, 4)
    truths = [dict(semantics=rng.integers(0, 20, shape).astype(np.uint8),  # 18 and 19: no class
                   mask_camera=rng.random(shape) < 0.6, mask_lidar=rng.random(shape) < 0.5)
              for _ in range(3)]
    found = compare(truths, [rng.integers(0, 18, shape) for _ in truths], MASKS)
    for suffix in ('', '_lidar', '_camera_lidar', '_none'):
        variants = {found[f'{name}_mIoU{suffix}'] for name in ('occ17', 'occ15',
                                                               'occ15_gt_ignored')}
        assert len(variants) == 3, 'the three variants must differ on this data'


def test_real_labels(pandaset_root):
    """Two frames of the real street; predictions are its labels moved by a voxel, some mistaken."""
    rng = np.random.default_rng(0)
    truths, predictions = [], []
    for path in sorted(pandaset_root.glob('gts/*/*/labels.npz'))[3:16:9]:
        with np.load(path) as archive:
            truths.append({key: archive[key] for key in archive.files})
        moved = np.roll(truths[-1]['semantics'], 1, axis=1)
        mistaken = (moved != 17) & (rng.random(moved.shape) < 0.1)
        predictions.append(np.where(mistaken, rng.integers(0, 18, moved.shape), moved))
    found = compare(truths, predictions, ('camera', 'lidar'))
    assert 10 < found['occ17_mIoU'] < 80 and found['geo_IoU'] != found['geo_IoU_lidar']
