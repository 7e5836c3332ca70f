"""The synthetic retrieval benchmark: layout, which frames are asked, and a perfect predictor."""
import dataclasses

import numpy as np
import pytest
import torch
from street_views import camera_at, cast

from langocc.datasets.retrieval_benchmark import load_queries
from langocc.evaluation.retrieval import mean_of, score_query
from langocc.occ3d import OCC3D_RANGE
from langocc.synthetic.retrieval import QUERY_WORDS, LabelledSweep, PointCamera, write_benchmark
from langocc.teachers import OfflineTextEncoder, Vocabulary
from voxelrender import VoxelGrid

GRID = VoxelGrid(OCC3D_RANGE, (0.4, 0.4, 0.4))
LIDAR2EGO = np.array([[0., 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])


def sweep(scene='s', token='t', x=0., split='val', beams=24):
    """What a LiDAR at ``x`` sees of the test street, with two cameras that look ahead."""
    azimuth, elevation = np.meshgrid(np.linspace(-np.pi, np.pi, 720, endpoint=False),
                                     np.deg2rad(np.linspace(-25, 8, beams)))
    rays = np.stack([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation),
                     np.sin(elevation)], -1).reshape(-1, 3)
    lidar2global = LIDAR2EGO.copy()
    lidar2global[0, 3] += x
    classes, _, distances = cast(lidar2global[:3, 3], rays)
    kept = np.isfinite(distances)
    points = rays[kept] * distances[kept, None] @ lidar2global[:3, :3]
    cameras = [PointCamera(np.linalg.inv(camera.cam2global) @ lidar2global, camera.cam2img,
                           (400, 225)) for camera in (camera_at(x), camera_at(x, yaw=0.7))]
    return LabelledSweep(scene, token, points, classes[kept], LIDAR2EGO, cameras, split)


def in_ego(item):
    return item.points @ LIDAR2EGO[:3, :3].T + LIDAR2EGO[:3, 3]


def test_a_perfect_predictor_scores_100_and_a_constant_one_chance(tmp_path):
    sweeps = {f't{i}': sweep(f's{i // 2}', f't{i}', x=2. * i) for i in range(4)}
    queries = load_queries(write_benchmark(tmp_path, sweeps.values()))
    assert {'car', 'truck', 'pedestrian', 'traffic cone', 'road', 'sidewalk', 'grass', 'building',
            'vegetation'} <= {query.words for query in queries}
    encoder = OfflineTextEncoder()
    by_class = encoder.encode([word or 'background' for word in ['', *QUERY_WORDS.values()]])
    rows, blind = [], []
    for query in queries:
        item = sweeps[query.token]
        feats = by_class[torch.from_numpy(item.labels.astype(np.int64))]
        text = encoder.embed(query.words)[0]
        in_range = GRID.contains(torch.from_numpy(in_ego(item))).numpy()
        cosines = (feats @ text).numpy()
        rows.append(score_query(query, in_range, cosines, cosines))
        blind.append(score_query(query, in_range, np.full(len(cosines), 0.4)))
    assert all(row['visible'] == row['all'] == row['teacher'] == 100 for row in rows)
    assert all(row['positives'] >= 10 for row in rows)
    assert mean_of(blind, 'visible') == pytest.approx(mean_of(rows, 'chance'))


def test_visible_points_are_those_in_an_image():
    item = sweep()
    close = np.linalg.inv(item.cameras[0].lidar2cam) @ [[0, 0], [0, 0], [0.9, 1.1], [1, 1]]
    item = dataclasses.replace(item, points=np.concatenate([item.points, close[:3].T]),
                               labels=np.append(item.labels, [4, 4]))
    assert item.visible()[-2:].tolist() == [False, True]
    expected = np.zeros(len(item.points), dtype=bool)
    for camera in item.cameras:
        for i, point in enumerate(item.points):
            x, y, z = camera.lidar2cam[:3, :3] @ point + camera.lidar2cam[:3, 3]
            u, v, _ = camera.cam2img @ (x, y, z) / z
            expected[i] |= z > 1 and 0 < u < 399 and 0 < v < 224
    assert np.array_equal(item.visible(), expected) and 0.1 < expected.mean() < 0.9
    low, high = np.array(OCC3D_RANGE).reshape(2, 3)
    inside = ((in_ego(item) > low) & (in_ego(item) < high)).all(1)
    assert np.array_equal(item.in_grid(), inside) and not inside.all()


def test_few_frames_of_different_scenes_whatever_the_order(tmp_path):
    sweeps = [sweep(f's{i // 3}', f't{i}', x=4. * (i // 3) + 0.3 * (i % 3)) for i in range(9)]
    write_benchmark(tmp_path / 'a', sweeps)
    write_benchmark(tmp_path / 'b', reversed(sweeps))
    table = (tmp_path / 'a/retrieval_benchmark/retrieval_anns_all.csv').read_text()
    assert table == (tmp_path / 'b/retrieval_benchmark/retrieval_anns_all.csv').read_text()
    rows = [line.split(';') for line in table.splitlines()]
    words = [row[4] for row in rows]
    scene_of = {item.token: item.scene for item in sweeps}
    for index, word in QUERY_WORDS.items():
        scenes = [scene_of[row[0]] for row in rows if row[4] == word]
        able = {item.scene for item in sweeps if (
            (item.labels == index) & item.visible() & item.in_grid()).sum() >= 10}
        assert len(scenes) <= 2 and len(set(scenes)) == min(2, len(able)), word
    assert words.count('car') == 2 and len({row[0] for row in rows}) <= 3
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=lambda t: (
        scene_of[t], t))
    once = load_queries(write_benchmark(tmp_path / 'c', sweeps, frames_per_query=1))
    assert max(sum(q.words == word for q in once) for word in set(words)) == 1


def test_classes_without_enough_points_are_not_asked(tmp_path):
    item = sweep()
    car = np.flatnonzero((item.labels == 4) & item.visible() & item.in_grid())
    labels = np.where(item.labels == 4, 15, item.labels)
    labels[car[:9]] = 4
    for number, there in ((10, False), (9, True)):
        root = write_benchmark(tmp_path / str(number), [dataclasses.replace(item, labels=labels)],
                               min_points=number)
        assert ('car' in {query.words for query in load_queries(root)}) == there


def test_layout_and_splits(tmp_path):
    root = write_benchmark(tmp_path, [sweep('a', 't1'), sweep('b', 't2', 4., 'test')])
    lines = {name: (root / f'retrieval_anns_{name}.csv').read_text().splitlines()
             for name in ('train', 'val', 'test', 'all')}
    assert not lines['train'] and lines['all'] == lines['val'] + lines['test']
    assert {line.split(';')[0] for line in lines['test']} == {'t2'}
    token, split, annotations, points, word = lines['val'][0].split(';')
    assert (token, split, word) == ('t1', 'val', 'barrier')
    labels, seen = np.load(root / annotations), np.load(root / points)
    item = sweep('a', 't1')
    assert labels.dtype == np.uint8 and seen.dtype == np.uint32
    assert np.array_equal(labels, item.labels == 1)
    assert np.array_equal(seen, np.flatnonzero(item.visible()))
    assert not list(root.rglob('.*'))


def test_words_are_those_of_the_vocabulary():
    vocabulary = Vocabulary('occ3d_nuscenes')
    for index, word in QUERY_WORDS.items():
        assert vocabulary.prompt_to_class[vocabulary.prompts.index(word)] == index
    assert sorted(QUERY_WORDS) == list(range(1, 17))


@pytest.mark.parametrize('change, message', [
    (dict(points=np.zeros((5, 3))), r'sample t: points \(5, 3\) and labels'),
    (dict(labels=np.full(len(sweep().labels), 255)), 'sample t: label 255, expected 0 ... 16'),
    (dict(split='validation'), "split 'validation'")])
def test_bad_sweeps_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(sweep(), **change)


def test_nothing_to_ask_and_two_sweeps_of_a_frame(tmp_path):
    with pytest.raises(ValueError, match='none of 0 sweeps has 10'):
        write_benchmark(tmp_path, [])
    with pytest.raises(ValueError, match='sample t has 2 sweeps'):
        write_benchmark(tmp_path, [sweep(), sweep()])
