"""A few kilobytes in nuScenes format: tables, images, LiDAR, lidarseg and occupancy labels.

Two scenes of three samples, two cameras and a LiDAR, every measurement with its own ego pose.
"""
import json
from pathlib import Path
from typing import Callable, Dict, Sequence

import numpy as np
from PIL import Image

VERSION = 'v1.0-tiny'
CAMERAS = ('CAM_FRONT', 'CAM_BACK')
IMAGE_SIZE = (45, 80)  # height, width
GRID_SHAPE = (20, 20, 4)
DATA_CONFIG = dict(input_size=(16, 32), src_size=IMAGE_SIZE, resize=(-.06, .11), rot=(-5.4, 5.4),
                   flip=True, crop_h=(0., 0.), resize_test=0.)
NUM_POINTS = 200
LOOK = {'CAM_FRONT': 0., 'CAM_BACK': np.pi}
_CATEGORIES = ('noise', 'vehicle.car', 'human.pedestrian.adult', 'static.manmade', 'animal')


def quaternion(rotation: np.ndarray) -> list:
    """(3, 3) -> w, x, y, z."""
    from pyquaternion import Quaternion
    return list(Quaternion(matrix=rotation))


def yaw_matrix(angle: float) -> np.ndarray:
    """Rotation about z by radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def camera_rotation(yaw: float) -> np.ndarray:
    """Camera (x right, y down, z ahead) -> ego, looking along ``yaw``."""
    return yaw_matrix(yaw) @ np.array([[0., 0, 1], [-1, 0, 0], [0, -1, 0]])


def blob_image(center, size=(240, 400), sigma=6.):
    """A smooth bright spot whose centre of mass is ``center`` (u, v)."""
    v, u = np.mgrid[:size[0], :size[1]]
    values = 255 * np.exp(-((u - center[0])**2 + (v - center[1])**2) / (2 * sigma**2))
    return Image.fromarray(np.repeat(np.round(values).astype(np.uint8)[..., None], 3, axis=2))


class NuScenesFactory:
    """Makes the folder; ``tables`` may be changed before :meth:`write`."""

    def __init__(self, root: Path, scenes: Sequence[str] = ('scene-a', 'scene-b'),
                 num_samples: int = 3, with_lidar: bool = True) -> None:
        self.root, self.with_lidar = Path(root), with_lidar
        self.rng = np.random.default_rng(0)
        self.tables: Dict[str, list] = {
            name: [] for name in ('scene', 'sample', 'sample_data', 'ego_pose', 'sensor',
                                  'calibrated_sensor', 'category', 'sample_annotation',
                                  'instance', 'lidarseg')}
        self._add_sensors()
        for i, name in enumerate(_CATEGORIES):
            self.tables['category'].append(dict(token=f'category-{i}', name=name, index=i))
        for i, scene in enumerate(scenes):
            self._add_scene(scene, start=1e9 + 100 * i, num_samples=num_samples)

    def _add_sensors(self) -> None:
        channels = CAMERAS + (('LIDAR_TOP', ) if self.with_lidar else ())
        for channel in channels:
            is_camera = channel.startswith('CAM')
            self.tables['sensor'].append(dict(
                token=f'sensor-{channel}', channel=channel,
                modality='camera' if is_camera else 'lidar'))
            rotation = camera_rotation(LOOK[channel]) if is_camera else yaw_matrix(0.02)
            intrinsic = [[60., 0, 40.3], [0, 61., 21.7], [0, 0, 1]] if is_camera else []
            self.tables['calibrated_sensor'].append(dict(
                token=f'calibration-{channel}', sensor_token=f'sensor-{channel}',
                translation=[0.3, 0.1, 1.6], rotation=quaternion(rotation),
                camera_intrinsic=intrinsic))

    def _add_scene(self, name: str, start: float, num_samples: int) -> None:
        tokens = [f'{name}-{i}' for i in range(num_samples)]
        self.tables['scene'].append(dict(
            token=f'token-{name}', name=name, nbr_samples=num_samples,
            first_sample_token=tokens[0], last_sample_token=tokens[-1]))
        self.tables['instance'].append(dict(
            token=f'instance-{name}', category_token='category-1', nbr_annotations=num_samples))
        for i, token in enumerate(tokens):
            links = dict(prev=tokens[i - 1] if i else '',
                         next=tokens[i + 1] if i + 1 < num_samples else '')
            time = start + 0.5 * i
            self.tables['sample'].append(dict(
                token=token, timestamp=int(time * 1e6), scene_token=f'token-{name}', **links))
            for sensor in self.tables['sensor']:
                self._add_measurement(token, name, sensor['channel'], time)
            box_links = {key: f'box-{other}' if other else '' for key, other in links.items()}
            self.tables['sample_annotation'].append(dict(
                token=f'box-{token}', sample_token=token, instance_token=f'instance-{name}',
                translation=[108. + 2 * i, 200., 1.], size=[2., 4., 1.5],
                rotation=quaternion(yaw_matrix(0.5)), num_lidar_pts=3, num_radar_pts=0,
                **box_links))

    def _add_measurement(self, sample: str, scene: str, channel: str, time: float) -> None:
        token = f'{sample}-{channel}'
        delay = {'CAM_FRONT': -0.04, 'CAM_BACK': -0.01}.get(channel, 0.)
        position = 100 + 3. * (time % 50 + delay)
        self.tables['ego_pose'].append(dict(
            token=f'pose-{token}', timestamp=int((time + delay) * 1e6),
            translation=[position, 200., 0.5], rotation=quaternion(yaw_matrix(0.1 + delay))))
        suffix = 'jpg' if channel.startswith('CAM') else 'pcd.bin'
        height, width = IMAGE_SIZE if suffix == 'jpg' else (0, 0)
        self.tables['sample_data'].append(dict(
            token=token, sample_token=sample, ego_pose_token=f'pose-{token}',
            calibrated_sensor_token=f'calibration-{channel}', is_key_frame=True,
            timestamp=int((time + delay) * 1e6), height=height, width=width,
            filename=f'samples/{channel}/{token}.{suffix}'))
        if suffix != 'jpg':
            self.tables['lidarseg'].append(dict(
                token=token, sample_data_token=token,
                filename=f'lidarseg/{VERSION}/{token}_lidarseg.bin'))

    def drop(self, table: str, matches: Callable[[dict], bool]) -> None:
        """Removes the records that match; at least one must."""
        kept = [record for record in self.tables[table] if not matches(record)]
        assert len(kept) < len(self.tables[table])
        self.tables[table] = kept

    def record(self, table: str, token: str) -> dict:
        """A record, to be changed."""
        return next(record for record in self.tables[table] if record['token'] == token)

    def write(self) -> 'NuScenesFactory':
        """Writes everything and returns itself."""
        folder = self.root / VERSION
        folder.mkdir(parents=True)
        for name, records in self.tables.items():
            (folder / f'{name}.json').write_text(json.dumps(records))
        for record in self.tables['sample_data']:
            path = self.root / record['filename']
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == '.jpg':
                pixels = self.rng.integers(0, 255, (*IMAGE_SIZE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
            else:
                points = self.rng.uniform([-20, -20, -1, 0, 0], [20, 20, 2, 1, 1], (NUM_POINTS, 5))
                points.astype(np.float32).tofile(path)
        for record in self.tables['lidarseg']:
            path = self.root / record['filename']
            path.parent.mkdir(parents=True, exist_ok=True)
            self.rng.integers(0, 5, NUM_POINTS).astype(np.uint8).tofile(path)
        for scene in self.tables['scene']:
            self._write_labels(scene)
        return self

    def _write_labels(self, scene: dict) -> None:
        for sample in self.tables['sample']:
            if sample['scene_token'] == scene['token']:
                path = self.root / 'gts' / scene['name'] / sample['token'] / 'labels.npz'
                path.parent.mkdir(parents=True)
                labels = self.rng.integers(0, 18, GRID_SHAPE, dtype=np.uint8)
                masks = self.rng.integers(0, 2, (2, *GRID_SHAPE), dtype=np.uint8)
                np.savez_compressed(path, semantics=labels, mask_lidar=masks[0],
                                    mask_camera=masks[1])
