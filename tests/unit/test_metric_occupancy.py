"""OccMetric and its pure functions; tests/reference holds them against a plain program."""
import math

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.evaluator import Evaluator

from langocc.evaluation import (
    OccMetric, class_ious, confusion_matrix, geometric_iou, mean_iou, observed_voxels, variant_ious
)
from langocc.structures import OccData

SHAPE = (6, 5, 4)


def random_truth(seed, high=20):
    """Labels with some outside [0, 18), and masks that differ."""
    rng = np.random.default_rng(seed)
    return dict(
        semantics=rng.integers(0, high, SHAPE).astype(np.uint8),
        mask_camera=rng.random(SHAPE) < 0.6,
        mask_lidar=rng.random(SHAPE) < 0.5)


def make_sample(token, truth, pred, packed=True, **metainfo):
    """A predicted Det3DDataSample."""
    sample = Det3DDataSample(metainfo=dict(token=token, scene_name='scene-1', **metainfo))
    sample.pred_occ = OccData(semantics=torch.as_tensor(pred))
    if packed:
        sample.gt_occ = OccData(**{k: torch.as_tensor(v) for k, v in truth.items()})
    return sample


def test_absent_classes_are_nan_and_left_out():
    gt = np.array([1, 1, 4, 17])
    pred = np.array([1, 4, 4, 17])
    matrix = confusion_matrix(gt, pred)
    ious = variant_ious(matrix, 'occ17')
    assert ious[1] == 0.5 and ious[4] == 0.5
    assert np.isnan(np.delete(ious, [1, 4])).all() and ious.shape == (17, )
    assert mean_iou(ious) == 0.5
    assert math.isnan(mean_iou(class_ious(np.zeros((18, 18), dtype=int))))
    assert math.isnan(geometric_iou(confusion_matrix(np.array([17]), np.array([17]))))


def test_variants_treat_others_and_other_flat_as_defined():
    # 'other_flat' predicted as car is a false positive of car, unless its truth is dropped first.
    matrix = confusion_matrix(np.array([12, 12, 4, 4]), np.array([4, 12, 4, 17]))
    assert variant_ious(matrix, 'occ17')[[4, 12]] == pytest.approx([1 / 3, 1 / 2])
    assert mean_iou(variant_ious(matrix, 'occ17')) == pytest.approx(5 / 12)
    assert mean_iou(variant_ious(matrix, 'occ15')) == pytest.approx(1 / 3)
    assert mean_iou(variant_ious(matrix, 'occ15_gt_ignored')) == pytest.approx(1 / 2)
    # A car predicted as other_flat stays a miss of car in every variant.
    matrix = confusion_matrix(np.array([4, 4]), np.array([12, 4]))
    assert mean_iou(variant_ious(matrix, 'occ15_gt_ignored')) == pytest.approx(1 / 2)


def test_free_is_in_the_unions_and_class_0_is_occupied():
    matrix = confusion_matrix(np.array([17, 0, 0, 4]), np.array([4, 0, 17, 4]))
    assert variant_ious(matrix, 'occ17')[4] == 0.5
    assert geometric_iou(matrix) == 2 / 4


def test_matrix_is_gt_by_pred_and_leaves_inputs_alone():
    gt, pred = np.array([3, 255, 3], dtype=np.uint8), np.array([5, 5, 3], dtype=np.int64)
    mask = np.array([True, True, False])
    matrix = confusion_matrix(gt, pred, mask)
    assert matrix[3, 5] == 1 and matrix.sum() == 1
    assert gt.tolist() == [3, 255, 3] and mask.tolist() == [True, True, False]


def test_unknown_names_and_missing_masks_are_errors():
    with pytest.raises(ValueError, match='occ16'):
        OccMetric(variants=('occ16', ))
    with pytest.raises(ValueError, match='radar'):
        OccMetric(masks=('radar', ))
    with pytest.raises(ValueError, match='out_dir'):
        OccMetric(format_only=True)
    with pytest.raises(KeyError, match="needs 'mask_lidar'"):
        observed_voxels(dict(semantics=np.zeros(SHAPE), mask_camera=np.ones(SHAPE)), 'camera_lidar')


def test_what_stands_is_scored_without_the_ground():
    truth = dict(semantics=np.full((2, 2, 16), 17, dtype=np.uint8),
                 mask_camera=np.ones((2, 2, 16), dtype=bool))
    truth['semantics'][..., :3] = 11  # layers at -1, -0.6 and -0.2 m: ground up to 0.2 m
    truth['semantics'][0, :, 3:5] = 4
    truth['semantics'][1, 1, 15] = 255  # no label
    floor = np.where(np.arange(16) < 3, 11, 17) * np.ones((2, 2, 1), dtype=int)
    scores = evaluate_one(make_sample('a', truth, floor))
    assert scores['geo_IoU'] == pytest.approx(100 * 12 / 16) and scores['geo_IoU_above'] == 0
    car = floor.copy()
    car[:, 0, 3:5] = 15  # half of the truth's four voxels, and two where nothing is
    car[1, 1, 15] = 4
    assert evaluate_one(make_sample('a', truth, car))['geo_IoU_above'] == pytest.approx(100 * 2 / 6)
    truth['mask_camera'][1, 0] = False
    masked = evaluate_one(make_sample('a', truth, car), masks=('camera', 'none'))
    assert masked['geo_IoU_above'] == pytest.approx(100 * 2 / 4)
    assert masked['geo_IoU_above_none'] == pytest.approx(100 * 2 / 6)
    assert evaluate_one(make_sample('a', truth, car), above=0.6)['geo_IoU_above'] == 50
    assert 'geo_IoU_above' not in evaluate_one(make_sample('a', truth, car), above=None)
    with pytest.raises(ValueError, match='above=6.0 is not within'):
        OccMetric(above=6.)


def evaluate_one(sample, **settings):
    evaluator = Evaluator(OccMetric(**settings))
    evaluator.process([sample])
    return evaluator.evaluate(1)


def test_bad_predictions_name_the_token():
    truth = random_truth(0)
    with pytest.raises(ValueError, match=r'tok9.*\(6, 5, 3\).*\(6, 5, 4\)'):
        evaluate_one(make_sample('tok9', truth, np.zeros((6, 5, 3), dtype=np.uint8)))
    with pytest.raises(ValueError, match=r'tok9.*18'):
        evaluate_one(make_sample('tok9', truth, np.full(SHAPE, 18, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r'tok9.*-1'):
        evaluate_one(make_sample('tok9', truth, np.full(SHAPE, -1)))
    with pytest.raises(TypeError, match=r'tok9.*float'):
        evaluate_one(make_sample('tok9', truth, np.zeros(SHAPE)))
    with pytest.raises(KeyError, match='tok9.*gt_occ'):
        evaluate_one(make_sample('tok9', truth, np.zeros(SHAPE, dtype=np.uint8), packed=False))
    with pytest.raises(KeyError, match='token'):
        evaluate_one({'pred_occ': {'semantics': np.zeros(SHAPE, dtype=np.uint8)}})


def test_truth_is_read_from_disk_where_none_is_packed(tmp_path):
    truth = random_truth(3)
    pred = np.random.default_rng(1).integers(0, 18, SHAPE)
    path = tmp_path / 'gts' / 'labels.npz'
    path.parent.mkdir()
    np.savez(path, **{k: v.astype(np.uint8) for k, v in truth.items()})
    read = make_sample('a', truth, pred, packed=False, data_root='elsewhere', occ_path=str(path))
    packed = evaluate_one(make_sample('a', truth, pred))
    assert evaluate_one(read) == pytest.approx(packed, nan_ok=True)
    relative = make_sample('a', truth, pred, packed=False, occ_path='gts/labels.npz')
    assert evaluate_one(relative, data_root=str(tmp_path)) == pytest.approx(packed, nan_ok=True)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='a: .*labels.npz; OccMetric .*--format-only'):
        evaluate_one(read)
    path.write_bytes(b'PK no archive')
    with pytest.raises(ValueError, match='labels.npz'):
        evaluate_one(read)


def test_a_repeated_sample_counts_once_wherever_it_stands():
    rng = np.random.default_rng(5)
    samples = [make_sample(f't{i}', random_truth(i), rng.integers(0, 18, SHAPE)) for i in range(3)]
    once, repeated = Evaluator(OccMetric()), Evaluator(OccMetric())
    once.process(samples)
    # mmengine would cut this to the first three rows and lose t2.
    repeated.process([samples[0], samples[0], samples[1], samples[2]])
    assert repeated.evaluate(3) == pytest.approx(once.evaluate(3), nan_ok=True)


def test_evaluating_twice_gives_the_same_and_starts_afresh():
    rng = np.random.default_rng(5)
    evaluator = Evaluator(OccMetric())
    sample = make_sample('t', random_truth(0), rng.integers(0, 18, SHAPE))
    evaluator.process([sample])
    first = evaluator.evaluate(1)
    evaluator.process([make_sample('u', random_truth(1), rng.integers(0, 18, SHAPE))])
    assert evaluator.evaluate(1)['occ17_mIoU'] != first['occ17_mIoU']
    evaluator.process([sample])
    assert evaluator.evaluate(1) == pytest.approx(first, nan_ok=True)


def test_format_only_writes_loadable_files_and_scores_nothing(tmp_path):
    pred = np.random.default_rng(0).integers(0, 18, SHAPE)
    sample = make_sample('tok', None, pred, packed=False)
    assert evaluate_one(sample, format_only=True, out_dir=str(tmp_path)) == {}
    written = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file())
    assert written == ['scene-1/tok/labels.npz']
    semantics = np.load(tmp_path / written[0])['semantics']
    assert semantics.dtype == np.uint8 and np.array_equal(semantics, pred)
    bad = make_sample('tok', None, np.full(SHAPE, 18), packed=False)
    with pytest.raises(ValueError, match='tok.*18'):
        evaluate_one(bad, format_only=True, out_dir=str(tmp_path))
    assert np.array_equal(np.load(tmp_path / written[0])['semantics'], pred)
