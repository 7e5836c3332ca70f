"""Rays and teacher on the real sequence: calibration, pixel rule and map alignment at once.

The expected places are computed here from the nuScenes tables with pyquaternion, apart from the
package's own chain of matrices.
"""
import json

import numpy as np
import pytest
import torch
from pyquaternion import Quaternion

from langocc.datasets import NuScenesOccDataset
from langocc.datasets.nuscenes_infos import build_infos, infos_metainfo, write_infos
from langocc.datasets.nuscenes_tables import NuScenesTables
from langocc.datasets.ray_sources import OCC3D_RANGE
from langocc.datasets.transforms.rays import PrepareRays
from langocc.models.losses import DrivenPathLoss, GroundPixelLoss
from langocc.models.renderer import RenderedRays
from langocc.occ3d import FREE_CLASS
from langocc.teachers import ProbabilityTeacher, TextEmbeddings, Vocabulary
from voxelrender import VoxelGrid

# nuScenes-lidarseg category -> Occ3D class; the rest (noise, ...) is 0 and left out.
LIDARSEG = dict([(2, 7), (12, 8), (14, 2), (16, 3), (17, 4), (18, 5), (21, 6), (22, 9), (23, 10),
                 (24, 11), (25, 12), (26, 13), (27, 14), (28, 15), (30, 16)])


@pytest.fixture(scope='module')
def tables(pandaset_root):
    folder = pandaset_root / 'v1.0-mini'
    names = ('calibrated_sensor', 'ego_pose', 'sensor', 'sample_data', 'lidarseg')
    return {name: json.loads((folder / f'{name}.json').read_text()) for name in names}


@pytest.fixture(scope='module')
def infos(pandaset_root, tmp_path_factory):
    tables = NuScenesTables(pandaset_root, 'v1.0-mini')
    path = tmp_path_factory.mktemp('infos') / 'infos.json'
    write_infos(dict(metainfo=infos_metainfo(tables, {}),
                     data_list=build_infos(tables, ['pandaset-002'])), path)
    return dict(data_root=str(pandaset_root), ann_file=str(path))


@pytest.fixture(scope='module')
def dataset(infos):
    return NuScenesOccDataset(**infos, ray_frame_ids=(-2, 0, 3))


@pytest.fixture(scope='module')
def dataset_of_neighbours(infos):
    return NuScenesOccDataset(**infos, ray_frame_ids=(-1, 0, 1))


@pytest.fixture(scope='module')
def teacher(pandaset_root):
    text = TextEmbeddings(pandaset_root / 'text_embeds' / 'clip_vit_b16.npz')
    return ProbabilityTeacher(pandaset_root / 'teacher_probs', text)


@pytest.fixture(scope='module')
def vocabulary(pandaset_root):
    text = TextEmbeddings(pandaset_root / 'text_embeds' / 'clip_vit_b16.npz')
    return Vocabulary('pandaset_cityscapes', text)


def matrix(record):
    out = Quaternion(record['rotation']).transformation_matrix
    out[:3, 3] = record['translation']
    return out


class Sensor:
    """A sample_data record with its poses."""

    def __init__(self, tables, token):
        self.record = next(r for r in tables['sample_data'] if r['token'] == token)
        mount = next(r for r in tables['calibrated_sensor']
                     if r['token'] == self.record['calibrated_sensor_token'])
        pose = next(r for r in tables['ego_pose'] if r['token'] == self.record['ego_pose_token'])
        self.sensor2ego, self.ego2global = matrix(mount), matrix(pose)
        self.cam2img = np.array(mount['camera_intrinsic'])


def move(points, transform):
    return points @ transform[:3, :3].T + transform[:3, 3]


def lidar_of(pandaset_root, tables, info):
    """Points in their own ego frame (P, 3), ego -> global, Occ3D classes (P,) of a frame."""
    sensor = Sensor(tables, info['lidar_points']['sample_data_token'])
    path = pandaset_root / sensor.record['filename']
    points = np.fromfile(path, np.float32).reshape(-1, 5)[:, :3].astype(np.float64)
    labels = next(r['filename'] for r in tables['lidarseg']
                  if r['sample_data_token'] == sensor.record['token'])
    raw = np.fromfile(pandaset_root / labels, np.uint8)
    classes = np.array([LIDARSEG.get(index, 0) for index in range(32)])[raw]
    return move(points, sensor.sensor2ego), sensor.ego2global, classes


def seen_in(points, ego2global, tables, image):
    """Pixels (Q, 2), distances (Q,) and indices (Q,) of the points that the paper's rule takes."""
    camera = Sensor(tables, image['sample_data_token'])
    in_global = move(points, ego2global)
    in_camera = move(move(in_global, np.linalg.inv(camera.ego2global)),
                     np.linalg.inv(camera.sensor2ego))
    low, high = np.array(OCC3D_RANGE).reshape(2, 3)
    keep = ((points > low) & (points < high)).all(axis=1)
    keep &= (in_camera[:, 2] > 1) & (in_camera[:, 2] < 40)
    with np.errstate(all='ignore'):
        image_points = in_camera @ camera.cam2img.T
        pixels = image_points[:, :2] / image_points[:, 2:]
    limits = np.array([image['width'], image['height']]) - 1
    keep &= ((pixels > 0) & (pixels < limits)).all(axis=1)
    return pixels[keep], np.linalg.norm(in_camera[keep], axis=1), np.nonzero(keep)[0]


@pytest.mark.parametrize('index', [0, 9])
def test_rays_end_at_the_lidar_points_with_augmentation_undone(
        pandaset_root, tables, dataset, index):
    results = dataset.get_data_info(index)
    bev = np.diag([-1., 1., 1., 1.])
    transform = PrepareRays(dict(type='LidarPixelSource'), num_rays=10**6, targets=('distances',))
    rays = transform(dict(results, bev_aug_matrix=bev))['rays'].validate()
    undone = rays.transformed(torch.from_numpy(np.linalg.inv(bev)))
    ends = undone.points(undone.targets['distances'][:, None])[:, 0].double().numpy()
    global2key = np.linalg.inv(results['key_ego2global'])
    start = 0
    for frame in results['ray_frames']:
        points, ego2global, _ = lidar_of(pandaset_root, tables, frame['info'])
        for name in results['camera_names']:
            *_, seen = seen_in(points, ego2global, tables, frame['info']['images'][name])
            expected = move(points[seen], global2key @ ego2global)
            error = np.abs(ends[start:start + len(seen)] - expected).max()
            assert error < 1e-3, (frame['offset'], name, error)
            start += len(seen)
    assert start == len(rays) > 30000


def test_teacher_agrees_with_lidarseg_at_lidar_points(pandaset_root, tables, dataset, teacher,
                                                      vocabulary):
    right, of_features, mirrored, total = 0, 0, 0, 0
    to_occ = [int(vocabulary.prompt_to_class[vocabulary.prompts.index(name)])
              for name in teacher.class_names]
    for index in (0, 5, 10, 15):
        info = dataset.get_data_info(index)
        points, ego2global, labels = lidar_of(pandaset_root, tables, info)
        for name in info['camera_names']:
            image = info['images'][name]
            pixels, _, seen = seen_in(points, ego2global, tables, image)
            known = labels[seen] > 0
            truth, pixels = labels[seen][known], pixels[known]
            flipped = np.column_stack([image['width'] - 1 - pixels[:, 0], pixels[:, 1]])
            of_pixels = np.array(to_occ)[teacher.classes(info, name, pixels)]
            right += (of_pixels == truth).sum()
            mirrored += (np.array(to_occ)[teacher.classes(info, name, flipped)] == truth).sum()
            feats = teacher.features(info, name, pixels)
            of_features += (vocabulary.classify(feats).numpy() == truth).sum()
            total += len(truth)
    assert total > 100000
    assert right / total > 0.75 and of_features / total > 0.75
    assert mirrored / total < 0.6  # the check can tell a wrong place


def test_all_targets_of_a_real_sample(dataset, teacher):
    results = dataset.get_data_info(6)
    names = ('lang_feats', 'rgb', 'distances', 'classes', 'sky')
    shares = {}
    for source in ('LidarPixelSource', 'CameraPixelSource'):
        transform = PrepareRays(dict(type=source), teacher, 1000, names, mask_dynamic=True)
        rays = transform(dict(results))['rays'].validate()
        assert 500 < len(rays) <= 1000 and sorted(rays.targets) == sorted(names)
        assert rays.targets['lang_feats'].shape == (len(rays), 512)
        torch.testing.assert_close(rays.targets['lang_feats'].norm(dim=1), torch.ones(len(rays)))
        assert 0 <= rays.targets['rgb'].min() < 0.2 < 0.6 < rays.targets['rgb'].max() <= 1
        assert rays.frame_ids.unique().tolist() == [-2, 0, 3]
        moving = teacher.is_dynamic(rays.targets['classes'])
        assert moving.any() and (rays.frame_ids[moving] == 0).all()
        shares[source] = float(rays.targets['sky'].float().mean())
        assert rays.targets['distances'].isnan().all() == (source == 'CameraPixelSource')
    assert shares['LidarPixelSource'] < 0.01 < 0.05 < shares['CameraPixelSource']


def test_where_the_car_drove_is_road_and_free_in_the_labels(dataset):
    """What DrivenPathLoss teaches, from poses alone, held against labels made from LiDAR."""
    torch.manual_seed(0)
    loss, grid = DrivenPathLoss(), VoxelGrid(OCC3D_RANGE, (0.4, 0.4, 0.4))
    transform = PrepareRays(dict(type='CameraPixelSource'), num_rays=200, targets=('ego_poses',))
    shares = {}
    for lift in (0., 0.8):  # the second is a wrong pose, which the check can tell
        occupied, is_ground = [], []
        for index in range(0, len(dataset), 3):
            results = dataset.get_data_info(index)
            poses = transform(results)['rays'].targets['ego_poses']
            poses[:, 2, 3] += lift
            voxels, ground = loss._draw(poses, grid)
            semantics = np.load(results['occ_path'])['semantics'].transpose(2, 1, 0).ravel()
            occupied.append(semantics[voxels.numpy()] != FREE_CLASS)
            is_ground.append(ground.numpy())
        occupied, is_ground = np.concatenate(occupied), np.concatenate(is_ground)
        shares[lift] = occupied[is_ground].mean(), occupied[~is_ground].mean()
    assert shares[0.][0] > 0.99 and shares[0.][1] < 0.01
    assert shares[0.8][0] < 0.1


def test_before_pixels_of_the_ground_nothing_stands(dataset, teacher):
    """What GroundPixelLoss teaches, from words and poses alone, held against LiDAR."""
    np.random.seed(0)
    transform = PrepareRays(dict(type='LidarPixelSource'), teacher, 3000,
                            ('distances', 'ground', 'ego_poses'))
    loss, hindered = GroundPixelLoss(eps=1e-3), {True: [], False: []}
    for index in range(0, len(dataset), 4):
        rays = transform(dataset.get_data_info(index))['rays']
        rays = rays[rays.targets['distances'] < 40]
        ground = rays.targets['ground']
        ends, ones = rays.targets['distances'][:, None], torch.ones(len(rays))
        for right in hindered:  # other pixels are wrong, which the check can tell
            rays.targets['ground'] = ground if right else ~ground
            met = RenderedRays(rays, torch.zeros(len(rays)).long(), ends, ends, ends,
                               ones[:, None], ones, ones, {})
            hindered[right].append(float(loss(met, None)) / -np.log(1e-3))  # share of rays
    assert np.mean(hindered[True]) < 0.15 and np.mean(hindered[False]) > 0.75, hindered


def test_images_agree_where_lidar_points_are(dataset_of_neighbours):
    """What PhotometricLoss teaches, from images and poses alone, held against LiDAR."""
    np.random.seed(0)
    transform = PrepareRays(
        dict(type='LidarPixelSource'), num_rays=300, targets=('distances', 'photometric_costs'),
        photometric=dict(type='PhotometricSweep', downscale=4), image_cache_size=40)
    ranks = {1.: [], 0.6: [], 1.5: []}
    for index in range(1, 15, 4):
        results = dataset_of_neighbours.get_data_info(index)
        plain = transform(dict(results))['rays'].targets
        distances, costs = plain['photometric_costs'].unbind(-1)
        for factor, shares in ranks.items():  # others than 1 are wrong, which the check can tell
            true = plain['distances'][:, None] * factor
            nearest = (1 / distances - 1 / true).abs().argmin(dim=1, keepdim=True)
            cost = costs.gather(1, nearest)
            known = torch.isfinite(costs)
            rank = ((costs < cost) & known).sum(dim=1) / known.sum(dim=1)
            shares.append(rank[torch.isfinite(cost[:, 0]) & (true[:, 0] < 40)])
    seen = len(torch.cat(ranks[1.])) / (4 * 300)
    ranks = {factor: float(torch.cat(shares).mean()) for factor, shares in ranks.items()}
    assert seen > 0.8 and ranks[1.] < 0.27
    assert min(ranks[0.6], ranks[1.5]) > ranks[1.] + 0.1, ranks


def test_candidates_are_scaled_as_the_rays_are(dataset_of_neighbours):
    results = dataset_of_neighbours.get_data_info(5)
    transform = PrepareRays(
        dict(type='LidarPixelSource'), num_rays=50, targets=('distances', 'photometric_costs'),
        photometric=dict(type='PhotometricSweep', num_distances=8), image_cache_size=40)
    targets = []
    for matrix in (np.eye(4), np.diag([1.1, -1.1, 1.1, 1.])):
        np.random.seed(0)
        targets.append(transform(dict(results, bev_aug_matrix=matrix))['rays'].targets)
    plain, scaled = (target['photometric_costs'] for target in targets)
    torch.testing.assert_close(scaled[..., 0], 1.1 * plain[..., 0])
    torch.testing.assert_close(targets[1]['distances'], 1.1 * targets[0]['distances'])
    torch.testing.assert_close(scaled[..., 1], plain[..., 1], equal_nan=True)
