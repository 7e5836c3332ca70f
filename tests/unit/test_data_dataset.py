"""NuScenesOccDataset: frames, subsets, loading by mmengine, bad infos."""
import copy
import json

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, ConcatDataset
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from nusc_factory import CAMERAS, DATA_CONFIG, GRID_SHAPE

from langocc.datasets import NuScenesOccDataset
from langocc.datasets.frame_store import FrameStore
from langocc.datasets.nuscenes_occ_dataset import adjacent_offsets


@pytest.fixture
def root(tiny_root):
    return tiny_root


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield


def make(root, **kwargs):
    settings = dict(data_root=str(root), ann_file='tiny_infos_all.json', camera_names=CAMERAS)
    return NuScenesOccDataset(**{**settings, **kwargs})


def full_pipeline(is_train=True):
    return [
        dict(type='PrepareImageInputs', data_config=DATA_CONFIG, is_train=is_train),
        dict(type='BEVAug', bda_aug_conf=dict(flip_dx_ratio=.5, flip_dy_ratio=.5),
             is_train=is_train),
        dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=5),
        dict(type='PointToMultiViewDepth', grid_config=dict(depth=[1., 45., .5])),
        dict(type='LoadOccGTFromFile', grid_shape=GRID_SHAPE),
        dict(type='PackOccInputs'),
    ]


def edit(root, change):
    path = root / 'tiny_infos_all.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_adjacent_offsets_follow_bevdet():
    assert adjacent_offsets((1, 2, 1), stereo=True) == [0, -1, -2]
    assert adjacent_offsets((1, 2, 1), stereo=False) == [0, -1]
    assert adjacent_offsets((1, 1, 1), stereo=True) == [0, -1]
    assert adjacent_offsets((1, 1, 1), stereo=False) == [0]
    with pytest.raises(ValueError, match='consecutive'):
        adjacent_offsets((1, 5, 2), stereo=True)
    with pytest.raises(ValueError, match='start, stop, step'):
        adjacent_offsets((1, 2), stereo=True)


@pytest.mark.parametrize('serialize', [True, False])
def test_frames_outside_the_scene_are_the_current_one(root, serialize):
    dataset = make(root, ray_frame_ids=range(-2, 3), serialize_data=serialize)
    tokens = [[info['token'][-3:] for info in dataset.get_data_info(i)['frames']] for i in range(6)]
    assert tokens == [['a-0'] * 3, ['a-1', 'a-0', 'a-1'], ['a-2', 'a-1', 'a-0'],
                      ['b-0'] * 3, ['b-1', 'b-0', 'b-1'], ['b-2', 'b-1', 'b-0']]
    rays = dataset.get_data_info(4)['ray_frames']
    assert [frame['offset'] for frame in rays] == [-2, -1, 0, 1, 2]
    assert [frame['info']['token'][-3:] for frame in rays] == ['b-1', 'b-0', 'b-1', 'b-2', 'b-1']


def test_paths_are_joined_with_the_data_root(root):
    info = make(root).get_data_info(0)
    paths = [info['images']['CAM_FRONT']['img_path'], info['lidar_points']['lidar_path'],
             info['occ_path'], info['pts_semantic_mask_path'],
             info['frames'][1]['images']['CAM_BACK']['img_path']]
    for path in paths:
        assert path.startswith(str(root)) and (root / path).is_file()


def test_info_of_a_sample(root):
    dataset = make(root, camera_names=['CAM_BACK', 'CAM_FRONT'])
    info = dataset.get_data_info(-1)
    assert info['sample_idx'] == 5 and info['camera_names'] == ['CAM_BACK', 'CAM_FRONT']
    np.testing.assert_array_equal(info['key_ego2global'], info['ego2global'])
    assert info['key_ego2global'].dtype == np.float64 and info['data_root'] == str(root)
    assert 'instances' in info and 'instances' not in info['frames'][0]
    assert dataset.metainfo['categories'][1] == 'vehicle.car'
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 18
    parity = make(root, camera_names=['CAM_BACK', 'CAM_FRONT'], key_ego='first_camera')
    parity = parity.get_data_info(0)
    np.testing.assert_array_equal(parity['key_ego2global'],
                                  parity['images']['CAM_BACK']['ego2global'])
    assert parity['ego2global'] == parity['lidar_points']['ego2global']
    np.testing.assert_array_equal(parity['ray_ego2global'], parity['ego2global'])
    np.testing.assert_array_equal(info['ray_ego2global'], info['key_ego2global'])


def test_boxes_carry_occupancy_classes(root):
    dataset = make(root)
    annotations = dataset.get_data_info(1)['ann_info']
    car = dataset.metainfo['classes'].index('car')
    assert annotations['gt_labels_3d'].tolist() == [car]
    assert dataset.num_ins_per_cat[car] == 6 and sum(dataset.num_ins_per_cat) == 6
    box = annotations['gt_bboxes_3d']
    expected = dataset.get_data_info(1)['instances'][0]['bbox_3d']
    np.testing.assert_allclose(box.gravity_center[0], expected[:3], rtol=1e-4)
    assert 'eval_ann_info' in make(root, test_mode=True).get_data_info(1)
    assert dataset.get_cat_ids(0) == [car]
    assert len(ClassBalancedDataset(dataset, oversample_thr=0.1)) == 6


def test_selected_samples_keep_their_neighbours(root):
    chosen = make(root, indices=[2, 5])
    assert len(chosen) == 2
    info = chosen.get_data_info(0)
    assert [i['token'] for i in info['frames']] == ['scene-a-2', 'scene-a-1', 'scene-a-0']
    assert info['sample_idx'] == 0
    subset = make(root).get_subset([5])
    assert [i['token'][-3:] for i in subset.get_data_info(0)['frames']] == ['b-2', 'b-1', 'b-0']
    assert len(make(root, indices=4)) == 4
    both = ConcatDataset([chosen, make(root)])
    assert len(both) == 8


def test_what_is_returned_can_be_changed_safely(root):
    dataset = make(root, serialize_data=False)
    before = copy.deepcopy(dataset.get_data_info(0))
    info = dataset.get_data_info(0)
    info['images'].clear()
    info['frames'][0]['images'].clear()
    after = dataset.get_data_info(0)
    assert after['images'] == before['images'] and after['frames'] == before['frames']


def test_building_prints_no_table_of_boxes(root, monkeypatch):
    printed = []
    monkeypatch.setattr('mmdet3d.datasets.det3d_dataset.print_log',
                        lambda message, *args, **kwargs: printed.append(message))
    dataset = make(root)
    assert printed == [] and dataset._fully_initialized and len(dataset) == 6


def test_lazy_init_loads_at_first_use(root):
    dataset = make(root, lazy_init=True, pipeline=full_pipeline())
    assert not dataset._fully_initialized
    dataset.full_init()
    assert len(dataset) == 6 and dataset[0]['inputs']['imgs'].shape == (3, 2, 3, 16, 32)


@pytest.mark.parametrize('workers', [0, 2])
def test_mmengine_dataloader(root, workers):
    loader = Runner.build_dataloader(dict(
        dataset=dict(type='NuScenesOccDataset', data_root=str(root), camera_names=CAMERAS,
                     ann_file='tiny_infos_all.json', pipeline=full_pipeline()),
        batch_size=2, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False)),
        seed=0)
    batches = list(loader)
    assert len(batches) == 3
    inputs, samples = batches[0]['inputs'], batches[0]['data_samples']
    assert [tuple(i.shape) for i in inputs['imgs']] == [(3, 2, 3, 16, 32)] * 2
    assert inputs['rig'][1].num_frames == 3 and inputs['points'][0].shape[1] == 5
    assert samples[1].token == 'scene-a-1' and samples[1].gt_depth.shape == (2, 16, 32)
    assert tuple(samples[0].gt_occ.semantics.shape) == GRID_SHAPE


def test_absent_lidar_is_fine_unless_asked_for(root):
    def change(content):
        for info in content['data_list']:
            del info['lidar_points']

    edit(root, change)
    assert 'lidar_points' not in make(root).get_data_info(0)
    with pytest.raises(ValueError, match='scene-a-0 .* has no lidar_points'):
        make(root, modality=dict(use_camera=True, use_lidar=True))


def test_missing_camera_names_sample_and_camera(root):
    edit(root, lambda content: content['data_list'][4]['images'].pop('CAM_BACK'))
    with pytest.raises(ValueError, match=r"infos_all.json: sample scene-b-1 \(scene 'scene-b'\) has"
                                         r" no camera CAM_BACK; it has \['CAM_FRONT'\]"):
        make(root)
    assert len(make(root, camera_names=['CAM_FRONT'])) == 6


@pytest.mark.parametrize('path, message', [
    (('images', 'CAM_FRONT', 'cam2img'), 'cam2img of CAM_FRONT is not finite'),
    (('images', 'CAM_BACK', 'ego2global'), 'ego2global of CAM_BACK is not finite'),
    (('images', 'CAM_BACK', 'cam2ego'), 'cam2ego of CAM_BACK is not finite'),
    (('lidar_points', 'lidar2ego'), 'lidar2ego of lidar_points is not finite'),
    (('ego2global', ), 'ego2global of key frame is not finite'),
])
def test_non_finite_calibration_names_sensor_and_sample(root, path, message):
    def change(content):
        record = content['data_list'][2]
        for key in path:
            record = record[key]
        record[0][0] = float('nan')

    edit(root, change)
    with pytest.raises(ValueError, match=f'sample scene-a-2 .*{message}'):
        make(root)


def test_missing_keys_are_named(root):
    edit(root, lambda content: content['data_list'][1]['images']['CAM_BACK'].pop('cam2ego'))
    with pytest.raises(ValueError, match=r"scene-a-1 .*CAM_BACK: missing key \['cam2ego'\]"):
        make(root)
    edit(root, lambda content: content['data_list'][1].pop('ego2global'))
    with pytest.raises(ValueError, match=r"scene-a-1: missing key \['ego2global'\]"):
        make(root)
    edit(root, lambda content: content.pop('data_list'))
    with pytest.raises(ValueError, match='tiny_infos_all.json: .*data_list'):
        make(root)
    (root / 'tiny_infos_all.json').write_text('{')
    with pytest.raises(ValueError, match='tiny_infos_all.json is not valid JSON'):
        make(root)
    with pytest.raises(FileNotFoundError, match='no infos at .*nowhere.json: .*prepare_data.py'):
        make(root, ann_file='nowhere.json')


def test_wrong_matrix_shape_is_named(root):
    edit(root, lambda content: content['data_list'][0]['images']['CAM_BACK']['cam2img'].pop())
    with pytest.raises(ValueError, match=r'CAM_BACK must be \(3, 3\), got shape \(2, 3\)'):
        make(root)


def test_bad_settings(root):
    with pytest.raises(ValueError, match="'lidar' or 'first_camera'"):
        make(root, key_ego='camera')
    with pytest.raises(ValueError, match='distinct'):
        make(root, camera_names=['CAM_BACK', 'CAM_BACK'])


def test_frame_store_refuses_a_repeated_sample():
    infos = [dict(token='a', prev='', next='')] * 2
    with pytest.raises(ValueError, match='sample a is twice'):
        FrameStore(infos)
