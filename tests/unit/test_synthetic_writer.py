"""Frames, tables and restarts of the synthetic writer, on a world of a road and three boxes."""
import fcntl
import hashlib
import json

import numpy as np
import pytest
from plain_world import CAR, PlainSnapshot, PlainWorld, Solid

from langocc.datasets.nuscenes_tables import NuScenesTables, pose_matrix
from langocc.synthetic import frames
from langocc.synthetic.frames import box_corners, make_frame, open_scene
from langocc.synthetic.records import VERSION, Settings, pose_record
from langocc.synthetic.rig import CAMERAS, sensor_to_ego
from langocc.synthetic.tables import build_tables
from langocc.synthetic.text import claim_text_embeddings
from langocc.synthetic.writer import claim_folder, remove_temporaries, write_dataset
from langocc.teachers import OfflineTextEncoder

SETTINGS = Settings(scenes_train=1, scenes_val=1, frames=2, image_size=(64, 36))


@pytest.fixture(autouse=True)
def plain_world(monkeypatch):
    """Parked and moving car and a wall beside the road; the route depends on the world."""
    def make_world(seed, index):
        return PlainWorld([Solid((26., 4., .8), (4.4, 1.9, 1.6), CAR, object_id=3),
                           Solid((16., -4., .8), (4.4, 1.9, 1.6), CAR, object_id=5, speed=4.),
                           Solid((30., 12., 3.), (60., 2., 6.), 15)],
                          length=8., yaw=0.1 * (index % 3))

    open_scene.cache_clear()
    monkeypatch.setattr(frames, 'make_world', make_world)
    yield
    open_scene.cache_clear()


def digests(root):
    """Relative path -> sha256 of every file."""
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    """Where :func:`test_workers_and_restarts_give_the_same_bytes` keeps its first run."""
    return tmp_path_factory.mktemp('synthetic') / 'clean'


def test_workers_and_restarts_give_the_same_bytes(clean, tmp_path):
    ticks = []
    assert write_dataset(clean, SETTINGS, workers=1, progress=ticks.append) == 4
    assert sum(ticks) == 4
    expected = digests(clean)
    assert write_dataset(tmp_path / 'two', SETTINGS, workers=2) == 4
    assert digests(tmp_path / 'two') == expected
    # As if killed: no tables, a frame without record, one with a file missing, half a file.
    root = tmp_path / 'two'
    (root / VERSION / 'scene.json').unlink()
    (root / 'records/synthetic-train-0000/001.json').unlink()
    next((root / 'samples/CAM_BACK').glob('synthetic-val-0000*')).unlink()
    half = root / 'lidarseg' / VERSION / f'.x_lidarseg.{"0a" * 16}.bin'
    half.write_bytes(b'half')
    assert write_dataset(root, SETTINGS, workers=1) == 2
    assert digests(root) == expected
    assert write_dataset(root, SETTINGS) == 0 and digests(root) == expected


def test_what_a_folder_holds_is_minded(tmp_path):
    write_dataset(tmp_path / 'set', SETTINGS)
    other = Settings(scenes_train=1, scenes_val=1, frames=2, image_size=(64, 36), seed=1)
    with pytest.raises(ValueError, match=r'set of other arguments \(seed 0 there, 1 asked\)'):
        write_dataset(tmp_path / 'set', other)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.tex').write_text('years of work')
    with pytest.raises(ValueError, match='no empty folder and has no synthetic.json'):
        write_dataset(tmp_path / 'mine', SETTINGS)
    with open(tmp_path / 'set' / 'synthetic.json', encoding='utf-8') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match='another run writes'):
            write_dataset(tmp_path / 'set', SETTINGS)


def test_text_of_another_encoder_is_refused_before_a_frame_is_made(tmp_path):
    """Also where the first run was cut off before it embedded anything."""
    claim_folder(tmp_path / 'set', SETTINGS)
    claim_text_embeddings(tmp_path / 'set', OfflineTextEncoder())
    with pytest.raises(ValueError, match="by another 'offline words v1': embed_dims differ"):
        write_dataset(tmp_path / 'set', SETTINGS, encoder=OfflineTextEncoder(64))
    assert not (tmp_path / 'set' / 'samples').exists()


def test_settings_are_checked():
    for wrong in (dict(frames=0), dict(scenes_train=-1), dict(seed=-1)):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=f'{name} is {wrong[name]}, expected at least'):
            Settings(**wrong)
    with pytest.raises(ValueError, match='no scene'):
        Settings(scenes_train=0, scenes_val=0)


def test_splits_share_no_world_and_scenes_keep_theirs():
    few, many = Settings(scenes_train=2, scenes_val=2), Settings(scenes_train=30, scenes_val=2)
    worlds = {scene.name: scene.world_index for scene in many.scenes()}
    assert len(set(worlds.values())) == 32
    assert all(worlds[scene.name] == scene.world_index for scene in few.scenes())
    assert few.scenes()[0].token('a') != Settings(seed=1).scenes()[0].token('a')


def test_every_sensor_fires_at_its_own_time_and_place(tmp_path, monkeypatch):
    scene = SETTINGS.scenes()[1]
    world, drive = open_scene(scene)
    times, cameras = [], []
    at, render = PlainWorld.at, PlainSnapshot.render
    monkeypatch.setattr(PlainWorld, 'at', lambda self, time: times.append(time) or at(self, time))
    monkeypatch.setattr(PlainSnapshot, 'render', lambda self, cam2img, cam2global, size: (
        cameras.append(cam2global) or render(self, cam2img, cam2global, size)))
    record = json.loads(make_frame(tmp_path, scene, 1).read_text())
    key_time = scene.key_times()[1]
    assert record['timestamp'] == scene.timestamp(key_time)
    stamps = {}
    for channel, sensor in record['sensors'].items():
        seconds = (sensor['timestamp'] - scene.timestamp(0.)) / 1e6
        stamps[channel] = seconds
        np.testing.assert_allclose(pose_matrix(sensor), drive.pose(seconds), atol=1e-9)
        assert f'__{channel}__{sensor["timestamp"]}.' in sensor['filename']
    assert len({stamps[channel] for channel in CAMERAS}) == 6
    for channel, cam2global in zip(CAMERAS, cameras):
        expected = pose_matrix(record['sensors'][channel]) @ sensor_to_ego(channel)
        np.testing.assert_allclose(cam2global, expected, atol=1e-9)
    assert set(times) == {key_time, *(stamps[channel] for channel in CAMERAS)}
    assert stamps['LIDAR_TOP'] == key_time
    for box in record['boxes']:  # at the LiDAR's time
        place = world.solids[0 if box['object'] == 3 else 1].bounds(key_time).mean(axis=0)
        np.testing.assert_allclose(box['translation'], place)


def test_tables_say_what_was_made(clean):
    if not clean.exists():
        write_dataset(clean, SETTINGS)
    tables = NuScenesTables(clean, VERSION)
    assert list(tables.scenes) == ['synthetic-train-0000', 'synthetic-val-0000']
    assert tables.categories[24] == 'flat.driveable_surface' and len(tables.categories) == 32
    for name in tables.scenes:
        samples = tables.samples(name)
        assert len(samples) == 2
        assert samples[1]['timestamp'] - samples[0]['timestamp'] == 500_000
        for sample in samples:
            sensors = tables.sensor_records(sample['token'])
            assert set(sensors) == {*CAMERAS, 'LIDAR_TOP'}
            lidar = sensors['LIDAR_TOP']
            np.testing.assert_allclose(lidar.sensor2ego, sensor_to_ego('LIDAR_TOP'), atol=1e-12)
            labels = np.fromfile(clean / tables.lidarseg_path(lidar.token), np.uint8)
            points = np.fromfile(clean / lidar.filename, np.float32).reshape(-1, 5)
            assert len(labels) == len(points) > 10_000
            moving = next(a for a in tables.annotations(sample['token'])
                          if a['velocity'][0] > 1)
            np.testing.assert_allclose(moving['velocity'], [4, 0, 0], atol=1e-9)
            assert moving['num_lidar_pts'] > 5 and moving['name'] == 'vehicle.car'
    assert (clean / 'splits.txt').read_text().splitlines() == [
        'synthetic-train-0000: train', 'synthetic-val-0000: val']


def test_labels_masks_and_layout(clean):
    if not clean.exists():
        write_dataset(clean, SETTINGS)
    files = sorted(clean.glob('gts/*/*/labels.npz'))
    assert len(files) == 4
    with np.load(files[0]) as labels:
        assert set(labels) == {'semantics', 'mask_lidar', 'mask_camera'}
        for name in labels:
            assert labels[name].shape == (200, 200, 16) and labels[name].dtype == np.uint8
        for name in ('mask_lidar', 'mask_camera'):
            seen = labels[name].astype(bool)
            assert 0.01 < seen.mean() < 0.9 and labels[name].max() == 1
            assert not seen[..., 0].any()  # under the road


def test_annotations_run_from_the_first_hit_to_the_last():
    def frame(index, points):
        sensors = {channel: dict(token=f'{channel}{index}', timestamp=index, filename='f',
                                 translation=[0, 0, 0], rotation=[1, 0, 0, 0])
                   for channel in (*CAMERAS, 'LIDAR_TOP')}
        boxes = [dict(object=number, category='vehicle.car', visibility='4', attributes=[],
                      translation=[0, 0, 0], size=[1, 1, 1], rotation=[1, 0, 0, 0],
                      num_lidar_pts=count) for number, count in points.items()]
        return dict(token=f's{index}', timestamp=index, sensors=sensors, boxes=boxes, files=[])

    settings = Settings(scenes_train=1, scenes_val=0, frames=4)
    name = settings.scenes()[0].name
    counts = [{1: 0, 2: 0}, {1: 5, 2: 0}, {1: 0, 2: 0}, {1: 2, 2: 0}]
    tables = build_tables(settings, {(name, i): frame(i, c) for i, c in enumerate(counts)})
    boxes = tables['sample_annotation']
    assert [box['sample_token'] for box in boxes] == ['s1', 's2', 's3']
    assert [box['num_lidar_pts'] for box in boxes] == [5, 0, 2]
    assert [box['prev'] for box in boxes] == ['', boxes[0]['token'], boxes[1]['token']]
    assert tables['instance'][0]['nbr_annotations'] == 3 and len(tables['instance']) == 1


def test_visibility_counts_the_objects_own_pixels(tmp_path, monkeypatch):
    """The near car is seen whole; behind a screen it is not."""
    scene = SETTINGS.scenes()[0]

    def visibility():
        open_scene.cache_clear()
        record = json.loads(make_frame(tmp_path, scene, 0).read_text())
        return {box['object']: int(box['visibility']) for box in record['boxes']}

    open_view = visibility()
    hidden = PlainWorld([Solid((26., 4., .8), (4.4, 1.9, 1.6), CAR, object_id=3),
                         Solid((20., 4., 2.), (.2, 14., 4.), 15)], length=8.)
    monkeypatch.setattr(frames, 'make_world', lambda seed, index: hidden)
    assert open_view[3] >= 3 and visibility()[3] == 1


def test_pose_record_and_box_corners():
    rng = np.random.default_rng(0)
    from scipy.spatial.transform import Rotation
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.random(random_state=1).as_matrix(), rng.normal(size=3)
    record = json.loads(json.dumps(pose_record(matrix)))
    assert record['rotation'][0] >= 0
    np.testing.assert_allclose(pose_matrix(record), matrix, atol=1e-12)
    box = type('Box', (), dict(center=(1, 2, 3), size=(2, 4, 6), yaw=np.pi / 2))
    corners = box_corners(box)
    np.testing.assert_allclose(corners.min(axis=0), [0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(corners.max(axis=0), [2, 4, 6], atol=1e-12)


def test_temporaries_are_told_from_files(tmp_path):
    keep = [tmp_path / name for name in ('.hidden', 'a.npz', '.gitignore')]
    temporary = tmp_path / 'deep' / f'.labels.{"0123456789abcdef" * 2}.npz'
    temporary.parent.mkdir()
    for path in (*keep, temporary):
        path.write_text('')
    assert remove_temporaries(tmp_path) == [temporary]
    assert all(path.exists() for path in keep)
