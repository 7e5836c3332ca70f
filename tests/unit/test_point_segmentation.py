"""Point segmentation scored as occupancy: names, votes, frames, files, a real mmdet3d segmentor."""
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from mmdet3d.models import Base3DSegmentor
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from nusc_factory import CAMERAS, GRID_SHAPE, NUM_POINTS

from langocc.datasets import NuScenesOccDataset
from langocc.datasets.key_frames import KeyFrames, read_infos
from langocc.datasets.ray_sources import read_lidar
from langocc.datasets.retrieval_benchmark import lidar_in_ego
from langocc.evaluation import OccMetric, PointSegOccMetric
from langocc.evaluation.point_segmentation import (
    NO_VOTE, classes_of_labels, occ_classes, points_in_key_ego, vote_occupancy
)
from langocc.evaluation.saved_predictions import SavedPointLabels
from langocc.lidarseg import LIDARSEG_16, LIDARSEG_17, LIDARSEG_CATEGORIES
from langocc.occ3d import OCC3D_CLASSES

LOW, SIZE = (-20., -20., -2.), 2.  # of the tiny data set's grid: 20 x 20 x 4
RANGE = (*LOW, 20., 20., 6.)
CLASSES = ('noise', 'car', 'pedestrian', 'building', 'cat')
MAPPING = dict(building='manmade', cat=None)


@pytest.fixture(autouse=True)
def scope():
    """As a runner sets it."""
    init_default_scope('mmdet3d')


def test_names_of_nuscenes_lidarseg():
    assert occ_classes(LIDARSEG_16).tolist() == list(range(1, 17))
    assert occ_classes(LIDARSEG_17).tolist() == [NO_VOTE, *range(1, 17)]
    raw = dict(zip(LIDARSEG_CATEGORIES, occ_classes(LIDARSEG_CATEGORIES).tolist()))
    for category, name in {
            'vehicle.bus.bendy': 'bus', 'vehicle.bus.rigid': 'bus', 'flat.other': 'other_flat',
            'human.pedestrian.police_officer': 'pedestrian', 'static.manmade': 'manmade',
            'vehicle.construction': 'construction_vehicle', 'animal': 'others',
            'vehicle.emergency.police': 'others', 'static_object.bicycle_rack': 'others'}.items():
        assert OCC3D_CLASSES[raw[category]] == name
    assert raw['noise'] == raw['vehicle.ego'] == NO_VOTE
    assert sorted(set(raw.values())) == [NO_VOTE, *range(17)]


def test_other_names_need_a_mapping():
    assert occ_classes(CLASSES, MAPPING).tolist() == [NO_VOTE, 4, 7, 15, NO_VOTE]
    own = occ_classes(['car', 'noise'], dict(car='truck', noise='others'))
    assert own.tolist() == [10, 0]  # the mapping goes first
    with pytest.raises(ValueError, match=r"\['building', 'cat'\] are neither.*class_mapping"):
        occ_classes(CLASSES)
    with pytest.raises(ValueError, match=r"\['free'\] are neither"):
        occ_classes(['free'])
    with pytest.raises(ValueError, match=r"unknown classes: \{'cat': 'animal'\}"):
        occ_classes(CLASSES, dict(MAPPING, cat='animal'))
    with pytest.raises(ValueError, match=r"class_mapping names \['dog'\]"):
        occ_classes(CLASSES, dict(MAPPING, dog=None))
    with pytest.raises(ValueError, match='got none'):
        occ_classes([])


def test_votes_of_a_voxel():
    points = [[0.5, 0.5, 0.5]] * 3 + [[1.5, 0.5, 0.5]] * 4
    points += [[0.5, 1.5, 0.5], [5, 0, 0], [-1e-9] * 3]
    classes = [4, 7, 7, 10, 3, 10, 3, NO_VOTE, 9, 9]
    semantics = vote_occupancy(points, np.array(classes), (0, 0, 0), 1., (2, 2, 1))
    assert semantics.dtype == np.uint8
    assert semantics[..., 0].tolist() == [[7, 17], [3, 17]]  # 3 and 10 twice each: the lowest
    none = vote_occupancy(np.zeros((0, 3)), np.zeros(0, int), (0, 0, 0), 1., (2, 2, 1))
    assert (none == 17).all()
    with pytest.raises(ValueError, match=r'2 points are labelled, positions have shape \(3, 3\)'):
        vote_occupancy(np.zeros((3, 3)), np.zeros(2, int), (0, 0, 0), 1., (2, 2, 1))
    with pytest.raises(ValueError, match='1 points are not finite'):
        vote_occupancy([[np.nan, 0, 0]], np.zeros(1, int), (0, 0, 0), 1., (2, 2, 1))


def naive_votes(points, classes):
    """A dictionary of voxels, a list of votes each."""
    votes = {}
    for point, label in zip(points.tolist(), classes):
        cell = tuple(int((p - low) // SIZE) for p, low in zip(point, LOW))
        if label >= 0 and all(0 <= c < s for c, s in zip(cell, GRID_SHAPE)):
            votes.setdefault(cell, []).append(label)
    semantics = np.full(GRID_SHAPE, 17)
    for cell, labels in votes.items():
        semantics[cell] = min(sorted(set(labels)), key=lambda label: -labels.count(label))
    return semantics


def labels_by_height(points):
    """Labels of :data:`CLASSES` for points in the LiDAR frame."""
    return ((points[:, 2] + 1) / 0.61).astype(int) % 5


class ByHeight(Base3DSegmentor):
    """A segmentor that labels points by their height; mmdet3d's own layout of predictions."""

    def extract_feat(self, batch_inputs):
        raise NotImplementedError

    encode_decode = loss = _forward = extract_feat

    def predict(self, inputs, data_samples):
        logits = [torch.nn.functional.one_hot(
            torch.from_numpy(labels_by_height(points.numpy())), 5).float().T
            for points in inputs['points']]
        return self.postprocess_result(logits, data_samples)


def lidar_dataset(root, meta_keys):
    return NuScenesOccDataset(
        data_root=str(root), ann_file='tiny_infos_all.json', camera_names=CAMERAS, test_mode=True,
        modality=dict(use_lidar=True, use_camera=False), pipeline=[
            dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=4),
            lambda results: dict(  # as data sets of mmdet3d have it
                results, lidar_path=results['lidar_points']['lidar_path']),
            dict(type='Pack3DDetInputs', keys=['points'], meta_keys=meta_keys)])


def metric(**settings):
    settings = dict(dict(metrics=dict(type='OccMetric', masks=['camera', 'none']), classes=CLASSES,
                         class_mapping=MAPPING, point_cloud_range=RANGE, voxel_size=SIZE),
                    **settings)
    return PointSegOccMetric(**settings)


def run(dataset, evaluator):
    """The loop of mmengine's runner, two samples a batch."""
    model = ByHeight(data_preprocessor=dict(type='Det3DDataPreprocessor'))
    for start in range(0, len(dataset), 2):
        batch = pseudo_collate([dataset[start], dataset[start + 1]])
        evaluator.process(model.test_step(batch), batch)
    return evaluator.evaluate(len(dataset))


def test_a_segmentor_of_mmdet3d_is_scored_as_occupancy(tiny_root):
    """Its metainfo from our data set, or from the infos by the LiDAR file's name: as by hand."""
    frames, by_hand = KeyFrames(tiny_root / 'tiny_infos_all.json', tiny_root), OccMetric(
        masks=['camera', 'none'])
    table = np.array([NO_VOTE, 4, 7, 15, NO_VOTE])
    for token in frames.tokens:
        info = frames.metainfo(token)
        labels = table[labels_by_height(read_lidar(info).astype(np.float32))]
        assert set(labels) == set(table)
        np.testing.assert_allclose(points_in_key_ego(read_lidar(info), info), lidar_in_ego(info))
        semantics = naive_votes(lidar_in_ego(info), labels)
        assert 100 < (semantics != 17).sum() <= NUM_POINTS
        by_hand.process(None, [dict(info, pred_occ=dict(semantics=semantics))])
    expected = by_hand.evaluate(len(frames))
    found = run(lidar_dataset(tiny_root, PointSegOccMetric.META_KEYS), Evaluator(metric()))
    assert found == pytest.approx(expected, nan_ok=True) and 0 < found['occ17_mIoU_none'] < 20
    infos = dict(ann_file=str(tiny_root / 'tiny_infos_all.json'), data_root=str(tiny_root))
    found = run(lidar_dataset(tiny_root, ('lidar_path', )), Evaluator(metric(**infos)))
    assert found == pytest.approx(expected, nan_ok=True)


def test_classes_come_from_the_data_set_where_none_are_given(tiny_root):
    evaluator = Evaluator(metric(classes=None))
    evaluator.dataset_meta = dict(classes=CLASSES)
    assert evaluator.metrics[0].metrics[0].dataset_meta == dict(classes=CLASSES)
    dataset = lidar_dataset(tiny_root, PointSegOccMetric.META_KEYS)
    assert run(dataset, evaluator) == pytest.approx(run(dataset, Evaluator(metric())), nan_ok=True)
    with pytest.raises(ValueError, match="no 'classes' in its metainfo"):
        run(dataset, Evaluator(metric(classes=None)))


def test_what_is_missing_or_wrong_is_named(tiny_root):
    with pytest.raises(KeyError, match=r"no metainfo \['token', 'ego2global', 'lidar_points'\]"):
        run(lidar_dataset(tiny_root, ('sample_idx', )), Evaluator(metric()))
    one = dict(inputs=dict(points=[torch.zeros(1, 3)]))
    of_mmdet3d = dict(token='m', ego2global=np.eye(4), lidar_points=dict(lidar2ego=np.eye(4)))
    with pytest.raises(KeyError, match=r"sample m has no metainfo \['lidar_points.ego2global'\]"):
        metric().process(one, [of_mmdet3d])
    infos = dict(ann_file=str(tiny_root / 'tiny_infos_all.json'), data_root=str(tiny_root))
    with pytest.raises(KeyError, match="neither a 'token' of the infos nor a 'lidar_path'"):
        run(lidar_dataset(tiny_root, ('sample_idx', )), Evaluator(metric(**infos)))
    with pytest.raises(KeyError, match='no key frame with the LiDAR file else.bin'):
        metric(**infos).process(one, [dict(lidar_path='a/else.bin')])
    info = KeyFrames(tiny_root / 'tiny_infos_all.json', tiny_root).metainfo('scene-a-1')
    points = dict(inputs=dict(points=[torch.zeros(3, 4)]))

    def labelled(*labels):
        return [dict(info, pred_pts_seg=dict(pts_semantic_mask=torch.tensor(labels)))]

    with pytest.raises(ValueError, match='scene-a-1: 2 points are labelled.*shape.*3, 3'):
        metric().process(points, labelled(0, 1))
    with pytest.raises(ValueError, match='scene-a-1: labels of points go from 0 to 5.*5 classes'):
        metric().process(points, labelled(0, 1, 5))
    with pytest.raises(KeyError, match="scene-a-1 has no pred_pts_seg with 'pts_semantic_mask'"):
        metric().process(points, [info])
    with pytest.raises(KeyError, match=r"data_batch\['inputs'\]\['points'\].*none"):
        metric().process(None, labelled(0, 1, 2))
    with pytest.raises(ValueError, match=r'prediction has shape \(10, 10, 2\), truth \(20, 20, 4'):
        metric(voxel_size=4.).process(points, labelled(0, 1, 2))
    rays = dict(type='RayIoUMetric', point_cloud_range=[*RANGE[:2], -1, *RANGE[3:5], 7],
                voxel_size=SIZE)
    with pytest.raises(ValueError, match=r'points in .*-2.0, .*6.0\] m, RayIoUMetric in .*-1.0, '):
        metric(metrics=rays)
    with pytest.raises(ValueError, match='points vote in cells of 2 m, RayIoUMetric has .* 4 m'):
        metric(metrics=dict(rays, point_cloud_range=RANGE, voxel_size=4.))
    metric(metrics=dict(rays, point_cloud_range=RANGE))
    with pytest.raises(ValueError, match='needs metrics'):
        metric(metrics=[])
    twice = metric(metrics=[dict(type='OccMetric')] * 2)
    twice.process(points, labelled(0, 1, 2))
    with pytest.raises(ValueError, match='two metrics give.*set prefix'):
        twice.evaluate(1)
    with pytest.raises(ValueError, match='must be one row of integers'):
        classes_of_labels(np.zeros((2, 2), int), np.arange(3))


@pytest.fixture
def saved(tiny_root):
    """Infos, and a folder with labels of points, files of all three kinds and names."""
    infos, folder = tiny_root / 'tiny_infos_all.json', tiny_root / 'labels'
    folder.mkdir()
    for number, info in enumerate(read_infos(infos)['data_list']):
        lidar = info['lidar_points']
        path = tiny_root / lidar['lidar_path']
        labels = labels_by_height(np.fromfile(path, np.float32).reshape(-1, 5))
        if number % 3 == 0:
            labels.astype(np.uint8).tofile(folder / f'{lidar["sample_data_token"]}_lidarseg.bin')
        elif number % 3 == 1:
            content = json.dumps(dict(pts_semantic_mask=labels.tolist()))
            (folder / f'{path.stem}.json').write_text(content)
        else:
            np.save(folder / f'{info["token"]}.npy', labels)
    return infos, folder


def test_saved_labels_give_what_the_loop_gives(tiny_root, saved, repository, monkeypatch, capsys):
    infos, folder = saved
    frames = KeyFrames(infos, tiny_root)
    predictions = SavedPointLabels(folder, frames, CLASSES, MAPPING, RANGE, SIZE)
    info = frames.metainfo('scene-a-1')
    labels = np.array([NO_VOTE, 4, 7, 15, NO_VOTE])[
        labels_by_height(read_lidar(info).astype(np.float32))]
    np.testing.assert_array_equal(predictions('scene-a-1'), naive_votes(lidar_in_ego(info), labels))
    score = runpy.run_path(str(repository / 'tools' / 'eval_occupancy.py'))['score_saved']
    expected = run(lidar_dataset(tiny_root, PointSegOccMetric.META_KEYS), Evaluator(metric()))
    for workers in (1, 3):
        found = score(frames, predictions, [OccMetric(masks=['camera', 'none'])], workers)
        assert found == pytest.approx(expected, nan_ok=True)


def test_files_of_labels_that_are_wrong_are_named(tiny_root, saved):
    infos, folder = saved
    frames = KeyFrames(infos, tiny_root)

    def predict(token):
        return SavedPointLabels(folder, frames, CLASSES, MAPPING, RANGE, SIZE)(token)

    (folder / 'scene-a-0-LIDAR_TOP_lidarseg.bin').write_bytes(b'\1\2')
    with pytest.raises(ValueError, match='lidarseg.bin of sample scene-a-0: 2 points are labelled'):
        predict('scene-a-0')
    (folder / 'scene-a-1-LIDAR_TOP.pcd.json').write_text('[1, 2]')
    with pytest.raises(ValueError, match="pcd.json of sample scene-a-1.*'pts_semantic_mask'"):
        predict('scene-a-1')
    (folder / 'scene-a-2.npy').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='scene-a-2.npy of sample scene-a-2'):
        predict('scene-a-2')
    (folder / 'scene-a-2.bin').write_bytes(b'')
    with pytest.raises(ValueError, match='sample scene-a-2 has several files of labels'):
        predict('scene-a-2')
    (folder / 'scene-a-2.bin').unlink()
    (folder / 'scene-a-2.npy').unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 key frames.*scene-a-2: expected one of"):
        predict('scene-a-0')


def test_infos_that_are_wrong_are_named(tmp_path):
    path = tmp_path / 'infos.json'
    good = dict(token='a', scene_name='s', timestamp=0., ego2global=np.eye(4).tolist())
    for content, message in (
            ([], "has no list 'data_list'"), (dict(data_list=[]), 'has no key frame'),
            (dict(data_list=[good, good]), 'sample a is there twice'),
            (dict(data_list=[dict(token='b')]), "sample b lacks.*'ego2global'"),
            (dict(data_list=[dict(good, lidar_points=dict(lidar_path='x', lidar2ego=[]))]),
             r"sample a lacks \['lidar_points.ego2global'\]")):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            KeyFrames(path)
    path.write_text('{')
    with pytest.raises(ValueError, match='is not valid JSON'):
        KeyFrames(path)
    with pytest.raises(FileNotFoundError, match='infos .*else.json'):
        KeyFrames(tmp_path / 'else.json')
    path.write_text(json.dumps(dict(data_list=[good])))
    assert 'lidar_origins' not in KeyFrames(path).metainfo('a')  # no LiDAR


def test_the_tool_refuses_in_one_line(tiny_root, saved, repository, monkeypatch, capsys):
    infos, folder = saved
    tool = str(repository / 'tools' / 'eval_occupancy.py')

    def said(*arguments):
        monkeypatch.setattr(sys, 'argv', ['eval_occupancy.py', str(infos), '--data-root',
                                          str(tiny_root), '--predictions', *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(tool, run_name='__main__')
        assert caught.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert '6 of 6 key frames have no prediction, the first is' in said(folder)
    assert "['building', 'cat'] are neither" in said(folder, '--points', *CLASSES)
    assert "--class-mapping ['cat']: expected name=class" in said(
        folder, '--points', *CLASSES, '--class-mapping', 'building=manmade', 'cat')
    assert '--class-mapping needs --points' in said(folder, '--class-mapping', 'a=b')
    mapping = ('--class-mapping', 'building=manmade', 'cat=none')
    assert "prediction has shape (200, 200, 16), truth (20, 20, 4)" in said(
        folder, '--points', *CLASSES, *mapping)
    out = folder.parent / 'scores.json'
    grid = ('--point-cloud-range', *RANGE, '--voxel-size', SIZE, '--out', out)
    monkeypatch.setattr(sys, 'argv', [*map(str, (
        'eval_occupancy.py', infos, '--data-root', tiny_root, '--predictions', folder, '--points',
        *CLASSES, *mapping, *grid))])
    runpy.run_path(tool, run_name='__main__')
    scores = json.loads(out.read_text())
    assert scores['geo_IoU'] > 0 and scores['RayIoU'] is not None
