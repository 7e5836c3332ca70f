"""The real sequence through tables, infos, data set and transforms."""
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from langocc.datasets import NUSCENES_CAMERAS, NuScenesOccDataset
from langocc.datasets.geometry import lidar_to_camera, project

CONFIG = dict(input_size=(128, 352), src_size=(540, 960), resize=(-.06, .11), rot=(-5.4, 5.4),
              flip=True, crop_h=(0., 0.), resize_test=0.)


@pytest.fixture(scope='module')
def infos(repository, pandaset_root, tmp_path_factory):
    """Written by the tool as a user calls it."""
    folder = tmp_path_factory.mktemp('infos')
    done = subprocess.run(
        [sys.executable, str(repository / 'tools/prepare_data.py'), '--root', str(pandaset_root),
         '--version', 'v1.0-mini', '--out-dir', str(folder), '--splits', 'all', '--prefix',
         'pandaset', '--require', 'image', 'lidar', 'lidarseg', 'occupancy'],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'image (required): 96 of 96 present' in done.stdout
    return folder / 'pandaset_infos_all.json'


@pytest.fixture
def make(infos, pandaset_root):
    def build(is_train, **kwargs):
        pipeline = [
            dict(type='PrepareImageInputs', data_config=CONFIG, is_train=is_train),
            dict(type='BEVAug', bda_aug_conf=dict(flip_dx_ratio=.5, flip_dy_ratio=.5),
                 is_train=is_train),
            dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=5),
            dict(type='PointToMultiViewDepth', grid_config=dict(depth=[1., 45., .5])),
            dict(type='LoadOccGTFromFile'),
            dict(type='PackOccInputs'),
        ]
        return NuScenesOccDataset(data_root=str(pandaset_root), ann_file=str(infos),
                                  pipeline=pipeline, **kwargs)

    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield build


def test_infos(infos):
    content = json.loads(infos.read_text())
    data_list = content['data_list']
    assert len(data_list) == 16 and sum(len(info['instances']) for info in data_list) == 1738
    assert set(data_list[0]['images']) == set(NUSCENES_CAMERAS)
    assert content['metainfo']['categories']['24'] == 'flat.driveable_surface'
    assert len(content['metainfo']['categories']) == 32
    moving = data_list[-1]
    positions = np.array([image['ego2global'] for image in moving['images'].values()])[:, :3, 3]
    assert np.linalg.norm(positions - np.array(moving['ego2global'])[:3, 3], axis=1).max() > 0.1


def test_infos_agree_with_the_devkit(infos, pandaset_root):
    from nuscenes import NuScenes
    devkit = NuScenes(version='v1.0-mini', dataroot=str(pandaset_root), verbose=False)
    for info in json.loads(infos.read_text())['data_list'][::5]:
        sample = devkit.get('sample', info['token'])
        for name, image in info['images'].items():
            path, _, intrinsic = devkit.get_sample_data(sample['data'][name])
            assert path.endswith(image['img_path'])
            np.testing.assert_allclose(image['cam2img'], intrinsic)
        _, boxes, _ = devkit.get_sample_data(sample['data']['LIDAR_TOP'])
        assert len(boxes) == len(info['instances']) > 50
        for box, instance in zip(boxes, info['instances']):
            np.testing.assert_allclose(instance['bbox_3d'][:3], box.center, atol=1e-4)
            np.testing.assert_allclose(instance['bbox_3d'][3:6], box.wlh[[1, 0, 2]], atol=1e-4)
            heading = box.orientation.rotation_matrix[:, 0]
            yaw = np.arctan2(heading[1], heading[0])
            np.testing.assert_allclose(instance['bbox_3d'][6], yaw, atol=1e-4)
            speed = np.linalg.norm((devkit.box_velocity(box.token)))
            velocity = np.array(instance['velocity'], dtype=float)  # null -> nan
            assert np.isnan(speed) == np.isnan(velocity).any()
            if np.isfinite(speed):  # the vertical part is dropped
                assert np.linalg.norm(velocity) <= speed + 1e-3


def test_a_sample(make):
    sample = make(is_train=False)[7]
    inputs, data_sample = sample['inputs'], sample['data_samples']
    assert inputs['imgs'].shape == (3, 6, 3, 128, 352) and inputs['imgs'].float().std() > 20
    assert inputs['points'].shape == (35000, 5)
    occ = data_sample.gt_occ
    share = (occ.semantics[occ.mask_camera] != 17).float().mean()
    assert 0.04 < share < 0.06  # data README: 5 %
    assert data_sample.gt_depth.shape == (6, 128, 352)
    assert ((data_sample.gt_depth > 0).flatten(1).sum(dim=1) > 100).all()


@pytest.mark.parametrize('is_train', [False, True])
def test_lidar_goes_to_the_same_place_with_and_without_augmentation(make, is_train):
    np.random.seed(5)
    dataset = make(is_train=is_train)
    info, packed = dataset.get_data_info(12), dataset[12]
    points = packed['inputs']['points'][:, :3].numpy()
    rig = packed['inputs']['rig'].frame(0)
    # the same chain by way of the key ego frame: LiDAR -> LiDAR ego (= key ego) -> image
    in_key = points.astype(np.float64) @ np.array(info['lidar_points']['lidar2ego'])[:3, :3].T
    in_key = torch.from_numpy(in_key + np.array(info['lidar_points']['lidar2ego'])[:3, 3])
    for c, camera in enumerate(NUSCENES_CAMERAS):
        matrix = rig.img_aug_matrix[c].numpy()
        cam2img = np.array(info['images'][camera]['cam2img'])
        chain = lidar_to_camera(info, camera)
        original, depths = project(points, chain, cam2img)
        augmented, _ = project(points, chain, cam2img, matrix)
        seen = (depths > 1) & ((original > 0) & (original < [959, 539])).all(axis=1)
        assert seen.sum() > 500
        columns = np.column_stack([original, depths, np.ones_like(depths)])[seen]
        there = columns @ matrix.T
        back = np.column_stack([augmented[seen], columns[:, 2:]]) @ np.linalg.inv(matrix).T
        assert np.abs(there[:, :2] - augmented[seen]).max() < 1e-6
        assert np.abs(back[:, :2] - original[seen]).max() < 1e-6
        image = in_key[seen] @ rig.key2img()[c, :3, :3].T + rig.key2img()[c, :3, 3]
        assert np.abs((image[:, :2] / image[:, 2:]).numpy() - original[seen]).max() < 1e-6


def test_own_ego_poses_matter(make):
    """Leaving out the time between LiDAR and camera moves points by many pixels once it drives."""
    info = make(is_train=False).get_data_info(15)
    points = np.array([[15., y, 0.] for y in np.linspace(-8, 8, 20)])
    moved = []
    for camera in ('CAM_BACK_LEFT', 'CAM_BACK_RIGHT', 'CAM_FRONT_LEFT'):
        image, lidar = info['images'][camera], info['lidar_points']
        naive = np.linalg.inv(np.array(image['cam2ego'])) @ np.array(lidar['lidar2ego'])
        exact, _ = project(points, lidar_to_camera(info, camera), image['cam2img'])
        wrong, _ = project(points, naive, image['cam2img'])
        moved.append(np.nanmax(np.abs(exact - wrong), initial=0))
    assert max(moved) > 2


def test_depth_maps_are_in_range(make):
    np.random.seed(1)
    for is_train in (False, True):
        depth = make(is_train=is_train)[3]['data_samples'].gt_depth
        found = depth[depth > 0]
        assert found.min() >= 1 and found.max() < 45


def test_lidarseg_and_points_belong_together(make):
    dataset = make(is_train=False)
    info = dataset.get_data_info(0)
    labels = np.fromfile(info['pts_semantic_mask_path'], dtype=np.uint8)
    points = np.fromfile(info['lidar_points']['lidar_path'], dtype=np.float32).reshape(-1, 5)
    names = dataset.metainfo['categories']
    assert len(labels) == len(points)
    road = [i for i, name in names.items() if name == 'flat.driveable_surface'][0]
    height = points[:, 2] + np.array(info['lidar_points']['lidar2ego'])[2, 3]
    near = np.linalg.norm(points[:, :2], axis=1) < 15
    assert abs(np.median(height[(labels == road) & near])) < 0.4  # the ego origin is on the ground


def test_one_camera_and_a_batch(make):
    dataset = make(is_train=True, camera_names=['CAM_FRONT'], multi_adj_frame_id_cfg=(1, 1, 1),
                   stereo=False, ray_frame_ids=range(-12, 13))
    assert len(dataset.get_data_info(0)['ray_frames']) == 25
    loader = Runner.build_dataloader(dict(
        dataset=dataset, batch_size=2, num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True)), seed=0)
    batch = next(iter(loader))
    assert batch['inputs']['imgs'][0].shape == (1, 1, 3, 128, 352)
    assert len(batch['data_samples']) == 2
