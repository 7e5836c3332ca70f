"""RayIoU by hand: rays that meet walls, corner cases, scores and what is refused."""
import math
import runpy

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from langocc.datasets.geometry import lidar_to_global
from langocc.datasets.key_frames import KeyFrames, read_infos
from langocc.datasets.lidar_origins import LidarOrigins
from langocc.evaluation import OccMetric, RayIoUMetric
from langocc.evaluation.ray_iou import (
    RayHits, cast_rays, count_rays, ray_directions, ray_ious, select_origins
)
from langocc.structures import OccData

SHAPE = (200, 200, 16)
ORIGIN = [[0.2, 0.2, 2.0]]  # the middle of cell (100, 100, 7)


def free_grid(shape=SHAPE):
    return np.full(shape, 17, dtype=np.uint8)


def one_ray(semantics, origin, direction, **grid):
    hits = cast_rays(semantics, np.array([origin]), np.array([direction], dtype=float), **grid)
    return int(hits.labels[0, 0]), float(hits.distances[0, 0])


def test_directions_are_the_published_ones():
    rays = ray_directions()
    assert rays.shape == (39 * 360, 3)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)
    pitches = np.arcsin(rays[::360, 2])
    np.testing.assert_allclose(np.tan(-pitches[:10]), 1 / np.arange(1, 11))
    steps = np.diff(pitches)
    np.testing.assert_allclose(steps[9:], steps[8])
    assert pitches[-2] < 0.21 <= pitches[-1]
    np.testing.assert_allclose(rays[90] / rays[90, 1], [0, 1, -1], atol=1e-12)  # 90 degrees, k = 1


def test_origins_near_enough_at_most_eight():
    positions = np.stack([np.arange(-30., 50, 2), np.zeros(40), np.full(40, 1.8)], axis=1)
    chosen = select_origins(positions)  # x = -30 ... 38: 35 of them
    assert chosen[:, 0].tolist() == [-30, -20, -10, 0, 8, 18, 28, 38]
    assert select_origins(positions[::6])[:, 0].tolist() == [-30, -18, -6, 6, 18, 30]
    far = np.array([[39., 0, 0], [0, -39, 0], [38.9, -38.9, 5]])
    assert select_origins(far).tolist() == [far[2].tolist()]
    with pytest.raises(ValueError, match='none of 2 lidar_origins is within 39 m'):
        select_origins(far[:2])
    with pytest.raises(ValueError, match=r'got shape \(3,\)'):
        select_origins(far[0])
    with pytest.raises(ValueError, match='nan'):
        select_origins([[math.nan, 0, 0]])


def test_the_distance_is_to_the_far_face_of_the_first_occupied_voxel():
    grid = free_grid()
    grid[125:130, :, :] = 15  # a wall from x = 10 m
    assert one_ray(grid, ORIGIN[0], [1, 0, 0]) == (15, pytest.approx(10.4 - 0.2))
    label, distance = one_ray(grid, ORIGIN[0], [0.8, 0.6, 0])
    assert label == 15 and distance == pytest.approx(min(10.2 / 0.8, 7.4 / 0.6))
    # Nothing there: to the end of the grid. In the origin's own voxel: to its face.
    assert one_ray(grid, ORIGIN[0], [-1, 0, 0]) == (17, pytest.approx(40.2))
    assert one_ray(grid, ORIGIN[0], [0, 0, 1]) == (17, pytest.approx(3.4))
    grid[100, 100, 7] = 4
    assert one_ray(grid, ORIGIN[0], [0, 0, -1]) == (4, pytest.approx(0.2))


def test_published_corner_cases():
    grid = free_grid((3, 3, 3))
    grid[0, 0, 0], unit = 5, dict(point_cloud_range=(0, 0, 0), voxel_size=0.4)
    # Never enters: the label of voxel (0, 0, 0) at minus one cell.
    assert one_ray(grid, [0.6, 0.6, 5.], [0, 0, 1], **unit) == (5, -0.4)
    assert one_ray(grid, [0.6, 0.6, 5.], [1, 0, 0], **unit) == (5, -0.4)
    # Enters from above and leaves below.
    assert one_ray(grid, [0.6, 0.6, 5.], [0, 0, -1], **unit) == (17, pytest.approx(5.))
    # Truncation: less than a cell below the grid belongs to cell 0, left at a negative distance.
    grid[1, 1, 0] = 7
    assert one_ray(grid, [0.6, 0.6, -0.2], [0, 0, 1], **unit) == (7, pytest.approx(0.6))
    assert one_ray(grid, [0.6, 0.6, -0.2], [0, 0, -1], **unit) == (7, pytest.approx(-0.2))
    # Ties: through an edge, z is stepped before y before x.
    grid = free_grid((2, 2, 2))
    grid[0, 0, 1], grid[0, 1, 0], grid[1, 0, 0] = 1, 2, 3
    diagonal = np.full(3, 1 / math.sqrt(3))
    assert one_ray(grid, [0.2, 0.2, 0.2], diagonal, **unit)[0] == 1
    grid[0, 0, 1] = 17
    assert one_ray(grid, [0.2, 0.2, 0.2], [math.sqrt(.5), math.sqrt(.5), 0], **unit)[0] == 2


def test_a_ray_off_by_the_threshold_is_wrong():
    def hits(labels, distances):
        return RayHits(np.array([labels], np.uint8), np.array([distances]))

    true = hits([4, 4, 4, 17, 255, 0], [2., 2., 2., 2., 2., 2.])
    predicted = hits([4, 4, 7, 4, 4, 17], [3., 1.5, 2., 2., 2., 2.])
    counts = count_rays(true, predicted, thresholds=(0.5, 1., 1.01))
    assert counts[:, [0, 4, 7]].tolist() == [[0, 0, 0], [0, 1, 0], [0, 2, 0], [1, 3, 0], [0, 2, 1]]
    assert counts.sum() == 10
    ious = ray_ious(counts)
    assert ious[:, 4].tolist() == [0, 1 / 4, 2 / 3] and np.isnan(ious[:, 1]).all()


def make_sample(token, truth, pred, origins=ORIGIN):
    """A predicted Det3DDataSample with packed truth."""
    sample = Det3DDataSample(metainfo=dict(token=token, lidar_origins=np.array(origins)))
    sample.gt_occ = OccData(semantics=torch.as_tensor(truth))
    sample.pred_occ = OccData(semantics=torch.as_tensor(pred))
    return sample


def score(*samples, **settings):
    evaluator = Evaluator(RayIoUMetric(**settings))
    evaluator.process(list(samples))
    return evaluator.evaluate(len(samples))


@pytest.fixture
def street():
    """A road and a wall of manmade things around the ego vehicle."""
    grid = free_grid()
    grid[..., 1] = 11
    for side in (slice(50, 52), slice(148, 150)):
        grid[side, 50:150, 2:] = 15
        grid[50:150, side, 2:] = 15
    return grid


def test_the_truth_is_right(street):
    scores = score(make_sample('t', street, street))
    assert all(scores[key] == 100 for key in (
        'RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4', 'rayiou15', 'rayiou15@1',
        'RayIoU_manmade', 'RayIoU_driveable_surface'))
    assert math.isnan(scores['RayIoU_car'])
    assert len(scores) == 2 * 4 + 17


def test_a_wall_a_little_off_is_right_within_the_threshold(street):
    """Moved by 1.6 m, seen at any angle; ends differ by a voxel more or less."""
    truth, moved = free_grid(), free_grid()
    truth[150:152, :, :], moved[154:156, :, :] = 15, 15
    rays = cast_rays(truth, np.array(ORIGIN), ray_directions())
    ahead = rays.labels[0] == 15
    scores = score(make_sample('t', truth, moved))
    assert 2000 < ahead.sum() < 8000
    assert scores['RayIoU@1'] == 0 < scores['RayIoU@2'] <= scores['RayIoU@4'] <= 100
    assert scores['RayIoU'] == pytest.approx(
        np.mean([scores[f'RayIoU@{t}'] for t in (1, 2, 4)]))
    assert score(make_sample('t', truth, moved), thresholds=(0.5, 12))['RayIoU@12'] > 90


def test_means_leave_out_what_they_say(street):
    """Road taken for other_flat: both classes are wrong; rayiou15 does not look at other_flat."""
    pred = np.where(street == 11, 12, street).astype(np.uint8)
    scores = score(make_sample('t', street, pred))
    assert scores['RayIoU_manmade'] == 100 and scores['RayIoU_other_flat'] == 0
    assert scores['RayIoU'] == pytest.approx(100 / 3) and scores['rayiou15'] == pytest.approx(50)


def test_rays_that_meet_nothing_or_no_class_in_the_truth_do_not_count(street):
    only_walls = np.where(street == 15, 15, 17).astype(np.uint8)
    cluttered = np.where(street == 11, 4, street).astype(np.uint8)
    scores = score(make_sample('t', only_walls, cluttered))
    assert scores['RayIoU_manmade'] == 100 and math.isnan(scores['RayIoU_car'])
    unknown = np.where(street == 11, 255, street).astype(np.uint8)
    scores = score(make_sample('t', unknown, street))
    assert scores['RayIoU_manmade'] == 100 and math.isnan(scores['RayIoU_driveable_surface'])


def test_counts_are_summed_and_repeats_count_once(street):
    empty = free_grid()
    samples = [make_sample('a', street, street), make_sample('b', street, empty)]
    assert score(*samples)['RayIoU@1'] == pytest.approx(50)
    evaluator = Evaluator(RayIoUMetric())
    evaluator.process([samples[0], samples[0], samples[1]])
    assert evaluator.evaluate(2) == pytest.approx(score(*samples), nan_ok=True)
    assert math.isnan(score(make_sample('c', empty, street))['RayIoU'])  # nothing to be met


def test_bad_input_names_the_sample(street):
    good = make_sample('t9', street, street)
    for key, message in (('lidar_origins', "t9 has no 'lidar_origins'"), ('token', "no 'token'")):
        bad = good.clone()
        bad.pop(key)
        with pytest.raises(KeyError, match=message):
            score(bad)
    with pytest.raises(ValueError, match='t9.*none of 1 lidar_origins'):
        score(make_sample('t9', street, street, [[50., 0, 1]]))
    with pytest.raises(ValueError, match=r't9: prediction has shape \(100, 200, 16\), truth'):
        score(make_sample('t9', street, street[:100]))
    with pytest.raises(ValueError, match=r't9: labels have shape \(100, 200, 16\).*0.4 m has '
                                         r'\(200, 200, 16\): set point_cloud_range'):
        score(make_sample('t9', street[:100], street[:100]))
    with pytest.raises(ValueError, match=r't9: prediction holds classes from 11 to 18'):
        score(make_sample('t9', street, street + (street == 17)))
    with pytest.raises(TypeError, match='t9: prediction must hold integers, got float32'):
        score(make_sample('t9', street, street.astype(np.float32)))
    without = make_sample('t9', street, street)
    del without.gt_occ
    with pytest.raises(KeyError, match="t9 has neither 'gt_occ' nor 'occ_path'"):
        score(without)
    with pytest.raises(ValueError, match=r'thresholds=\[0\]'):
        RayIoUMetric(thresholds=[0])
    with pytest.raises(ValueError, match='whole number of cells of 0.3 m'):
        RayIoUMetric(voxel_size=0.3)


def test_grids_of_one_shape_in_two_places_are_refused(street, tmp_path):
    above, name = [-40, -40, -3, 40, 40, 3.4], r'\[-40.0, -40.0, -3.0, 40.0, 40.0, 3.4\] m'
    occ3d = r'\[-40.0, -40.0, -1.0, 40.0, 40.0, 5.4\] m'
    for part, whose in (('gt_occ', 'the labels'), ('pred_occ', 'the prediction')):
        sample = make_sample('t9', street, street)
        getattr(sample, part).set_metainfo(dict(point_cloud_range=above))
        with pytest.raises(ValueError, match=f't9: not one place: {whose} in {name}, RayIoUMetric '
                                             f'in {occ3d}'):
            score(sample)
        assert score(sample, point_cloud_range=above)['RayIoU'] == 100
    # OccMetric has no grid of its own: labels from a file of Occ3D's shape are Occ3D's, unless the
    # data set says otherwise.
    del sample.gt_occ
    np.savez(tmp_path / 'labels.npz', semantics=street, mask_camera=street < 18,
             mask_lidar=street < 18)
    sample.set_metainfo(dict(occ_path=str(tmp_path / 'labels.npz')))
    metric = OccMetric()
    with pytest.raises(ValueError, match=f'the labels in {occ3d}, the prediction in {name}'):
        metric.process(None, [sample.to_dict()])
    metric.dataset_meta = dict(point_cloud_range=above)
    metric.process(None, [sample.to_dict()])
    assert metric.evaluate(1)['geo_IoU'] == 100


def test_origins_come_with_the_samples(tiny_dataset, tiny_root):
    """Of the data set and of the infos alone: all key frames of the scene, in the label's frame."""
    frames = KeyFrames(tiny_root / 'tiny_infos_all.json', tiny_root)
    infos = [tiny_dataset.get_data_info(i) for i in range(len(tiny_dataset))]
    assert [info['token'] for info in infos] == frames.tokens and len(infos) == 6
    for info in infos:
        of_scene = [other for other in infos if other['scene_name'] == info['scene_name']]
        expected = [(np.linalg.inv(info['ego2global']) @ lidar_to_global(other))[:3, 3]
                    for other in of_scene]
        np.testing.assert_allclose(info['lidar_origins'], expected, atol=1e-9)
        own = frames.metainfo(info['token'])
        np.testing.assert_array_equal(own['lidar_origins'], info['lidar_origins'])
        assert {key: own[key] for key in ('occ_path', 'lidar_points')} == {
            key: info[key] for key in ('occ_path', 'lidar_points')}
        assert 'images' not in own
    assert np.linalg.norm(np.diff(infos[0]['lidar_origins'], axis=0), axis=1).min() > 1
    backwards = read_infos(tiny_root / 'tiny_infos_all.json')['data_list'][::-1]
    np.testing.assert_array_equal(
        LidarOrigins(backwards).seen_from('scene-a', infos[0]['ego2global']),
        infos[0]['lidar_origins'])  # in the order of time
    with pytest.raises(KeyError, match='no sample nowhere'):
        frames.metainfo('nowhere')


def test_test_py_chooses_metrics(repository):
    tool = runpy.run_path(str(repository / 'tools' / 'test.py'))
    own = dict(type='OccMetric', masks=['lidar'])
    for evaluator in (own, [own]):
        cfg = Config(dict(test_evaluator=evaluator))
        tool['choose_metrics'](cfg, ['OccMetric', 'RayIoUMetric'])
        assert cfg.test_evaluator == [own, dict(type='RayIoUMetric')]
        assert [type(METRICS.build(m)).__name__ for m in cfg.test_evaluator] == [
            'OccMetric', 'RayIoUMetric']
    with pytest.raises(ValueError, match=r"no metric is called \['RayIou'\].*RayIoUMetric"):
        tool['choose_metrics'](cfg, ['RayIou'])


def test_test_py_sets_masks(repository):
    tool = runpy.run_path(str(repository / 'tools' / 'test.py'))
    own, rays = dict(type='OccMetric', variants=['occ17']), dict(type='RayIoUMetric')
    expected = dict(own, masks=['camera', 'lidar'])
    points = dict(type='PointSegOccMetric', metrics=[rays, own])
    for evaluator, found in ((own, expected), ([rays, own], [rays, expected]),
                             (points, dict(points, metrics=[rays, expected]))):
        cfg = Config(dict(test_evaluator=evaluator))
        tool['set_masks'](cfg, ['camera', 'lidar'])
        assert cfg.test_evaluator == found
    with pytest.raises(ValueError, match=r"--masks needs OccMetric.*\['RayIoUMetric'\]"):
        tool['set_masks'](Config(dict(test_evaluator=[rays])), ['lidar'])
