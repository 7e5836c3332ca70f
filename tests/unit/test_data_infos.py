"""Tables -> infos, splits, and tools/prepare_data.py."""
import importlib.util
import json
from contextlib import nullcontext

import numpy as np
import pytest
from nusc_factory import CAMERAS, VERSION, NuScenesFactory, yaw_matrix

from langocc.datasets.nuscenes_infos import INSTANCE_CLASSES, build_infos, write_infos
from langocc.datasets.nuscenes_prepare import (
    PrepareReport, official_splits, prepare_infos, read_splits_file, resolve_splits
)
from langocc.datasets.nuscenes_tables import (
    REQUIRED_FIELDS, NuScenesTables, quaternions_to_matrices
)


@pytest.fixture
def factory(tmp_path):
    return NuScenesFactory(tmp_path / 'data')


@pytest.fixture
def tool(repository):
    spec = importlib.util.spec_from_file_location('prepare', repository / 'tools/prepare_data.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def infos_of(factory, **kwargs):
    tables = NuScenesTables(factory.root, VERSION)
    return build_infos(tables, list(tables.scenes), **kwargs)


def test_quaternions_agree_with_pyquaternion():
    from pyquaternion import Quaternion
    random = np.random.default_rng(0).normal(size=(5, 4))
    expected = [Quaternion(q).rotation_matrix for q in random]
    np.testing.assert_allclose(quaternions_to_matrices(random), expected, atol=1e-12)


def test_infos_have_the_fields_and_the_order_of_time(factory):
    infos = infos_of(factory.write())
    assert [info['token'] for info in infos] == [f'scene-{s}-{i}' for s in 'ab' for i in range(3)]
    assert [info['frame_idx'] for info in infos] == [0, 1, 2, 0, 1, 2]
    assert [info['sample_idx'] for info in infos] == list(range(6))
    info = infos[1]
    assert (info['prev'], info['next']) == ('scene-a-0', 'scene-a-2')
    assert info['timestamp'] == pytest.approx(1e9 + 0.5)
    assert set(info['images']) == set(CAMERAS)
    assert info['occ_path'] == 'gts/scene-a/scene-a-1/labels.npz'
    assert info['images']['CAM_BACK']['img_path'].startswith('samples/CAM_BACK/')
    assert info['pts_semantic_mask_path'] == \
        f'lidarseg/{VERSION}/scene-a-1-LIDAR_TOP_lidarseg.bin'
    for image in info['images'].values():
        assert np.shape(image['cam2img']) == (3, 3) and image['height'] == 45
    # every sensor has its own ego pose, the key frame has the LiDAR's
    poses = [info['images'][camera]['ego2global'] for camera in CAMERAS]
    assert poses[0] != poses[1] and info['ego2global'] == info['lidar_points']['ego2global']


def test_lidar2cam_goes_through_global(factory):
    info = infos_of(factory.write())[0]
    image, lidar = info['images']['CAM_FRONT'], info['lidar_points']
    point = np.array([5., 1, -1, 1])
    in_global = np.array(lidar['ego2global']) @ np.array(lidar['lidar2ego']) @ point
    in_ego = np.linalg.solve(np.array(image['ego2global']), in_global)
    expected = np.linalg.solve(np.array(image['cam2ego']), in_ego)
    np.testing.assert_allclose(np.array(image['lidar2cam']) @ point, expected, atol=1e-9)


def test_boxes_are_in_the_lidar_frame(factory):
    infos = infos_of(factory.write())
    instance = infos[1]['instances'][0]
    lidar2global = (np.array(infos[1]['lidar_points']['ego2global'])
                    @ np.array(infos[1]['lidar_points']['lidar2ego']))
    box = instance['bbox_3d']
    np.testing.assert_allclose((lidar2global @ [*box[:3], 1])[:3], [110, 200, 1], atol=2e-4)
    assert box[3:6] == [4., 2., 1.5]
    heading = lidar2global[:3, :3] @ yaw_matrix(box[6])[:, 0]
    np.testing.assert_allclose(heading, yaw_matrix(0.5)[:, 0], atol=2e-4)
    velocity = lidar2global[:3, :3] @ [*instance['velocity'], 0]
    np.testing.assert_allclose(velocity, [4, 0, 0], atol=1e-3)  # 2 m per half second
    assert instance['bbox_label_3d'] == INSTANCE_CLASSES.index('car')
    assert instance['bbox_3d_isvalid'] is True


def test_unknown_velocity_is_null_and_unknown_category_minus_one(factory):
    for annotation in factory.tables['sample_annotation']:
        annotation.update(prev='', next='')
    factory.record('instance', 'instance-scene-a')['category_token'] = 'category-4'
    instance = infos_of(factory.write())[0]['instances'][0]
    assert instance['velocity'] == [None, None] and instance['bbox_label_3d'] == -1


def test_lidar_annotations_and_lidarseg_are_optional(tmp_path):
    factory = NuScenesFactory(tmp_path / 'data', with_lidar=False).write()
    for name in ('sample_annotation', 'instance', 'category', 'lidarseg'):
        (factory.root / VERSION / f'{name}.json').unlink()
    info = infos_of(factory)[0]
    assert info['instances'] == [] and 'lidar_points' not in info
    assert 'pts_semantic_mask_path' not in info
    # the pose nearest to the sample's time: CAM_BACK is 10 ms off, CAM_FRONT 40 ms
    assert info['ego2global'] == info['images']['CAM_BACK']['ego2global']


def test_sweeps_between_key_frames_are_ignored(factory):
    factory.tables['sample_data'].append(dict(
        factory.tables['sample_data'][0], token='sweep', is_key_frame=False, filename='sweep.jpg',
        ego_pose_token='a pose that is not there'))
    tables = factory.write() and NuScenesTables(factory.root, VERSION)
    assert tables.sensor_records('scene-a-0')['CAM_FRONT'].filename != 'sweep.jpg'


def test_missing_camera_names_sample_and_camera(factory):
    factory.drop('sample_data', lambda r: r['token'] == 'scene-b-1-CAM_BACK')
    factory.write()
    with pytest.raises(ValueError, match="scene-b-1 of scene 'scene-b' has no camera CAM_BACK"):
        infos_of(factory)
    assert len(infos_of(factory, cameras=['CAM_FRONT'])) == 6


@pytest.mark.parametrize('table, token, key, value, message', [
    ('ego_pose', 'pose-scene-a-1-CAM_BACK', 'translation', [0, float('nan'), 0],
     'ego2global of CAM_BACK in sample scene-a-1'),
    ('ego_pose', 'pose-scene-a-1-LIDAR_TOP', 'rotation', [0, 0, 0, 0],
     'ego2global of LIDAR_TOP in sample scene-a-1'),
    ('calibrated_sensor', 'calibration-CAM_FRONT', 'camera_intrinsic',
     [[60, 0, 40], [0, float('inf'), 20], [0, 0, 1]], 'cam2img of CAM_FRONT in sample scene-a-0'),
    ('calibrated_sensor', 'calibration-CAM_FRONT', 'translation', [float('nan'), 0, 0],
     'sensor2ego of CAM_FRONT in sample scene-a-0'),
])
def test_non_finite_calibration_names_sensor_and_sample(factory, table, token, key, value, message):
    factory.record(table, token)[key] = value
    with pytest.raises(ValueError, match=f'non-finite {message}'):
        infos_of(factory.write())


def test_broken_tables_are_named(factory):
    factory.record('sample', 'scene-a-2')['next'] = 'nowhere'
    factory.write()
    with pytest.raises(ValueError, match="no record 'nowhere' in sample.json"):
        infos_of(factory)
    (factory.root / VERSION / 'ego_pose.json').write_text('[{"token": ')
    with pytest.raises(ValueError, match='ego_pose.json is not valid JSON'):
        infos_of(factory)
    (factory.root / VERSION / 'ego_pose.json').unlink()
    with pytest.raises(FileNotFoundError, match='ego_pose.json'):
        infos_of(factory)


def test_fields_that_are_not_there_are_named(factory, tmp_path):
    factory.write()
    for table, records in factory.tables.items():
        path = factory.root / VERSION / f'{table}.json'
        if table not in REQUIRED_FIELDS:
            path.unlink()
            continue
        kept = {*REQUIRED_FIELDS[table], 'camera_intrinsic'}
        path.write_text(json.dumps([{key: record[key] for key in kept & set(record)}
                                    for record in records]))
    prepare_infos(factory.root, VERSION, tmp_path / 'out', splits='all',
                  progress_factory=lambda total, name: nullcontext(Progress(total)))
    for table, fields in REQUIRED_FIELDS.items():
        path = factory.root / VERSION / f'{table}.json'
        whole = path.read_text()
        for field in fields:
            records = json.loads(whole)
            del records[-1][field]
            path.write_text(json.dumps(records))
            with pytest.raises(ValueError, match=rf"{table}.json: the record .* \['{field}'\]"):
                NuScenesTables(factory.root, VERSION)
        path.write_text(whole)


class Progress:
    """A bar that must end full."""

    def __init__(self, total):
        assert total == 6

    def update(self, number):
        assert number == 1


@pytest.mark.parametrize('missing, shape', [([], r'\(0,\)'), (None, r'\(\)')])
def test_a_camera_without_intrinsics_is_named(missing, shape, factory):
    factory.record('calibrated_sensor', 'calibration-CAM_BACK')['camera_intrinsic'] = missing
    with pytest.raises(ValueError, match=f'of CAM_BACK in sample scene-a-0.* has shape {shape}'):
        infos_of(factory.write())


def test_splits_files(tmp_path):
    path = tmp_path / 'mine.txt'
    path.write_text('# fold\nscene-a : train\n\nscene-b: val  # held out\nscene-c\n')
    assert read_splits_file(path) == {'train': ['scene-a'], 'val': ['scene-b'], 'mine': ['scene-c']}
    path.write_text('scene-a\nscene-a\n')
    with pytest.raises(ValueError, match="mine.txt:2: scene 'scene-a' is twice"):
        read_splits_file(path)
    path.write_text('scene-a: ../x\n')
    with pytest.raises(ValueError, match='no file name'):
        read_splits_file(path)
    path.write_text('\n')
    with pytest.raises(ValueError, match='names no scene'):
        read_splits_file(path)


def test_official_splits():
    splits = official_splits('v1.0-trainval')
    assert (len(splits['train']), len(splits['val'])) == (700, 150)
    assert len(official_splits('v1.0-test')['test']) == 150
    assert [len(s) for s in official_splits('v1.0-mini').values()] == [8, 2]


def test_official_split_of_part_of_the_data(tmp_path):
    factory = NuScenesFactory(tmp_path / 'data', scenes=('scene-0001', 'scene-0003', 'mine'))
    tables = factory.write() and NuScenesTables(factory.root, VERSION)
    report = PrepareReport()
    found = resolve_splits(tables, 'official', report)
    assert found == {'train': ['scene-0001'], 'val': ['scene-0003']}
    assert report.unused_scenes == ['mine'] and len(report.absent_scenes) == 848


def test_scene_that_the_tables_lack_is_named(factory, tmp_path):
    factory.write()
    (tmp_path / 'splits.txt').write_text('scene-a\nscene-0815\n')
    with pytest.raises(ValueError, match=r"not in the tables at .*: \['scene-0815'\]"):
        prepare_infos(factory.root, VERSION, tmp_path / 'out', splits=tmp_path / 'splits.txt')
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='use --splits all'):
        prepare_infos(factory.root, VERSION, tmp_path / 'out', splits='official')
    with pytest.raises(FileNotFoundError, match='no file nonsense'):
        prepare_infos(factory.root, VERSION, tmp_path / 'out', splits='nonsense')


def test_tool_writes_one_file_a_split(factory, tmp_path, tool, capsys):
    factory.write()
    (tmp_path / 'splits.txt').write_text('scene-a: train\nscene-b: val\n')
    arguments = ['--root', str(factory.root), '--version', VERSION, '--prefix', 'tiny',
                 '--out-dir', str(tmp_path / 'out'), '--splits', str(tmp_path / 'splits.txt')]
    assert tool.main(arguments) == 0
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == \
        ['tiny_infos_train.json', 'tiny_infos_val.json']
    content = json.loads((tmp_path / 'out' / 'tiny_infos_val.json').read_text())
    assert content['metainfo']['splits'] == {'val': ['scene-b']}
    assert content['metainfo']['categories']['1'] == 'vehicle.car'
    assert {info['scene_name'] for info in content['data_list']} == {'scene-b'}
    captured = capsys.readouterr()
    assert 'image (required): 12 of 12 present' in captured.out and '3/3' in captured.err


def test_tool_fails_where_a_needed_file_is_missing(factory, tmp_path, tool, capsys):
    factory.write()
    arguments = ['--root', str(factory.root), '--version', VERSION, '--splits', 'all', '--out-dir',
                 str(tmp_path / 'out')]
    (factory.root / 'gts/scene-a/scene-a-0/labels.npz').unlink()
    assert tool.main(arguments) == 0
    assert 'occupancy (optional): 5 of 6 present' in capsys.readouterr().out
    assert tool.main(arguments + ['--require', 'image', 'occupancy']) == 1
    image = factory.root / 'samples/CAM_BACK/scene-b-0-CAM_BACK.jpg'
    image.unlink()
    (tmp_path / 'out/nuscenes_infos_all.json').unlink()
    capsys.readouterr()
    assert tool.main(arguments) == 1
    assert str(image) in capsys.readouterr().out
    assert not (tmp_path / 'out/nuscenes_infos_all.json').exists()


def test_tool_fails_on_bad_tables(factory, tmp_path, tool, capsys):
    factory.drop('sample_data', lambda r: r['token'] == 'scene-a-1-CAM_FRONT')
    factory.write()
    assert tool.main(['--root', str(factory.root), '--version', VERSION, '--splits', 'all',
                      '--out-dir', str(tmp_path / 'out')]) == 2
    assert 'has no camera CAM_FRONT' in capsys.readouterr().err


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'infos.json'
    write_infos({'a': 1}, path)
    with pytest.raises(ValueError):
        write_infos({'a': float('nan')}, path)
    assert json.loads(path.read_text()) == {'a': 1}
    assert [p.name for p in tmp_path.iterdir()] == ['infos.json']
