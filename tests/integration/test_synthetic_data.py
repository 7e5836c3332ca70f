"""Synthetic streets from the tool, through nuscenes-devkit, infos, data set and transforms."""
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from langocc.datasets import NuScenesOccDataset
from langocc.datasets.geometry import lidar_to_camera, project
from langocc.occ3d import FREE_CLASS, OCC3D_CLASSES
from langocc.synthetic.confusions import SYNTHETIC_CLASSES, SYNTHETIC_DYNAMIC, SYNTHETIC_PROMPTS
from langocc.synthetic.frames import open_scene
from langocc.synthetic.lidar import category_to_class
from langocc.synthetic.occupancy import GridSpec
from langocc.synthetic.records import VERSION, Settings

ROAD = OCC3D_CLASSES.index('driveable_surface')
SETTINGS = Settings(scenes_train=1, scenes_val=1, frames=3)


def command(repository, out, *options):
    return [sys.executable, str(repository / 'tools/make_synthetic.py'), '--out', str(out),
            *(str(option) for option in options)]


def run(repository, out, *options):
    return subprocess.run(command(repository, out, *options), capture_output=True, text=True,
                          check=False)


@pytest.fixture(scope='module')
def root(repository, tmp_path_factory):
    """Two scenes of three frames at the default size, made by the tool as a user calls it."""
    out = tmp_path_factory.mktemp('synthetic') / 'set'
    done = run(repository, out, '--scenes-train', 1, '--scenes-val', 1, '--frames', 3)
    assert done.returncode == 0, done.stderr
    assert '6 key frames in 2 scenes' in done.stdout
    assert 'lidarseg (required): 6 of 6 present' in done.stdout
    return out


@pytest.fixture(scope='module')
def devkit(root):
    from nuscenes import NuScenes
    return NuScenes(version=VERSION, dataroot=str(root), verbose=False)


@pytest.fixture
def config(root, repository, monkeypatch):
    """The base config, pointed at the set."""
    monkeypatch.setenv('SYNTHETIC_ROOT', str(root))
    monkeypatch.delenv('LANGOCC_INFO_ROOT', raising=False)
    return Config.fromfile(repository / 'configs/_base_/datasets/synthetic_occ.py')


@pytest.fixture
def datasets(config):
    """Training and validation data set of the base config."""
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield [NuScenesOccDataset(**{k: v for k, v in loader.dataset.items() if k != 'type'})
               for loader in (config.train_dataloader, config.val_dataloader)]


def test_the_devkit_reads_and_links_everything(devkit):
    from nuscenes.utils.splits import get_scenes_of_split
    assert get_scenes_of_split('synthetic_val', devkit) == ['synthetic-val-0000']
    assert len(devkit.sample) == 6 and len(devkit.sample_data) == 42 and len(devkit.lidarseg) == 6
    assert devkit.lidarseg_idx2name_mapping[17] == 'vehicle.car'
    assert len(devkit.sample_annotation) > 20
    for annotation in devkit.sample_annotation:
        speed = np.linalg.norm(devkit.box_velocity(annotation['token']))
        assert not speed > 25  # nan where there is one box only
        assert devkit.get('instance', annotation['instance_token'])['nbr_annotations'] <= 3
    seen = [len(devkit.get_sample_data(devkit.sample[0]['data'][channel])[1])
            for channel in devkit.sample[0]['data'] if channel.startswith('CAM')]
    assert sum(seen) > 0


def test_boxes_hold_the_points_that_they_count(devkit):
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box
    inside = counted = 0
    for sample in devkit.sample:
        path, boxes, _ = devkit.get_sample_data(sample['data']['LIDAR_TOP'])
        points = LidarPointCloud.from_file(path).points[:3]
        for box in boxes:
            annotation = devkit.get('sample_annotation', box.token)
            box.wlh = box.wlh + 0.1  # range noise
            inside += points_in_box(box, points).sum()
            counted += annotation['num_lidar_pts']
    assert counted > 100 and inside == pytest.approx(counted, rel=0.15)


def test_the_devkit_projects_points_into_images(devkit):
    sample = devkit.sample[1]
    for channel in ('CAM_FRONT', 'CAM_BACK'):
        points, _, image = devkit.explorer.map_pointcloud_to_image(
            sample['data']['LIDAR_TOP'], sample['data'][channel], render_intensity=False,
            show_lidarseg=True)
        assert image.size == (400, 225) and points.shape[1] > 1000


def test_config_has_the_teachers_classes(config):
    teacher = config.teacher
    assert tuple(teacher.class_names) == SYNTHETIC_CLASSES
    assert tuple(teacher.prompts) == SYNTHETIC_PROMPTS
    assert tuple(teacher.dynamic_classes) == SYNTHETIC_DYNAMIC


def test_samples_of_the_base_config(datasets):
    train, val = datasets
    assert len(train) == len(val) == 3
    assert not {train.get_data_info(i)['scene_name'] for i in range(3)} & {
        val.get_data_info(i)['scene_name'] for i in range(3)}
    np.random.seed(0)
    rays = train[1]['data_samples'].gt_rays
    assert len(rays.origins) == 8192
    feats = rays.targets['lang_feats']
    np.testing.assert_allclose(feats.norm(dim=1), 1, atol=1e-4)
    assert 0.02 < rays.targets['sky'].float().mean() < 0.6
    assert len(rays.frame_ids.unique()) == 3  # the neighbours in the scene
    sample = val[0]
    assert sample['inputs']['imgs'].shape[-2:] == (144, 256)
    occ = sample['data_samples'].gt_occ
    seen = occ.semantics[occ.mask_camera.bool()]
    assert 0.02 < (seen != FREE_CLASS).float().mean() < 0.6
    assert len(seen.unique()) > 5


def test_points_lie_where_images_and_labels_have_their_class(datasets):
    """Each camera's truth, rendered anew at its own time, has the label of the points it sees."""
    for dataset, scene in zip(datasets, SETTINGS.scenes()):
        info = dataset.get_data_info(2)
        world, _ = open_scene(scene)
        points = np.fromfile(info['lidar_points']['lidar_path'], np.float32).reshape(-1, 5)
        names = dataset.metainfo['categories']
        labels = np.fromfile(info['pts_semantic_mask_path'], np.uint8)
        classes = np.array([category_to_class(names[i]) for i in range(32)])[labels]
        matched = agreed = seen = 0
        for camera, image in info['images'].items():
            lidar2cam = lidar_to_camera(info, camera)
            pixels, depths = project(points[:, :3], lidar2cam, image['cam2img'])
            inside = (depths > 1) & ((pixels > 0) & (pixels < [398.9, 223.9])).all(axis=1)
            u, v = np.round(pixels[inside]).astype(int).T
            cam2global = np.array(image['ego2global']) @ np.array(image['cam2ego'])
            view = world.at(image['timestamp'] - info['timestamp'] + scene.key_times()[2]).render(
                np.array(image['cam2img']), cam2global, (400, 225))
            centre = np.linalg.inv(lidar2cam)[:3, 3]
            distances = np.linalg.norm(points[inside, :3] - centre, axis=1)
            near = np.abs(view.distances[v, u] - distances) < 0.2 + 0.02 * distances
            seen += len(near)
            matched += near.sum()
            agreed += (view.classes[v, u] == classes[inside])[near].sum()
        assert seen > 10_000
        assert matched > 0.8 * seen, matched / seen      # else parallax, or thin things
        assert agreed > 0.97 * matched, agreed / matched  # else half a pixel at a border


def test_points_lie_in_occupied_voxels_that_rays_have_seen(datasets):
    grid = GridSpec()
    for dataset in datasets:
        for i in range(3):
            info = dataset.get_data_info(i)
            points = np.fromfile(info['lidar_points']['lidar_path'], np.float32).reshape(-1, 5)
            lidar2ego = np.array(info['lidar_points']['lidar2ego'])
            cells, inside = grid.indices(points[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3])
            cells = tuple(cells[inside].T)
            with np.load(info['occ_path']) as labels:
                assert (labels['semantics'][cells] != FREE_CLASS).mean() > 0.95
                assert labels['mask_lidar'][cells].mean() > 0.93  # range noise at borders
                free = labels['semantics'] == FREE_CLASS
                assert 0.02 < labels['mask_camera'][free].mean() < 0.7
                assert labels['mask_camera'][labels['semantics'] == ROAD].mean() > 0.4
                assert labels['semantics'].max() < len(OCC3D_CLASSES)


def digests(root: Path):
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob('*') if path.is_file()}


def test_killed_and_run_again_gives_the_bytes_of_a_clean_run(repository, tmp_path):
    clean, killed = tmp_path / 'clean', tmp_path / 'killed'
    done = run(repository, clean, '--quick', '--workers', 2)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(command(repository, killed, '--quick', '--workers', 1),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not list(killed.glob('records/*/*.json')) and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(list(killed.glob('records/*/*.json'))) < 6, 'killed too late or too early'
    done = run(repository, killed, '--quick', '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert digests(killed) == digests(clean)
    again = run(repository, killed, '--quick', '--seed', 5)
    assert again.returncode == 2 and again.stderr.strip().count('\n') == 0
    assert 'other arguments (seed 0 there, 5 asked)' in again.stderr
    about = killed / 'text_embeds' / 'encoder.json'
    about.write_text(about.read_text().replace('offline words v1', 'CLIP ViT-B-16'))
    before = digests(killed)
    again = run(repository, killed, '--quick', '--offline-text')
    assert again.returncode == 2 and again.stderr.strip().count('\n') == 0
    assert "made by 'CLIP ViT-B-16', this run would use 'offline words v1'" in again.stderr
    assert digests(killed) == before
