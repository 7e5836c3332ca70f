"""Reading nuScenes tables: plain JSON, any version and root, key frames only.

The tables of the whole data set are gigabytes of records of which one in twelve belongs to a key
frame, so records that nobody asks for are dropped while a file is parsed. Lengths are metres, times
seconds, quaternions (w, x, y, z).
"""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Union

import numpy as np

LIDAR_CHANNEL = 'LIDAR_TOP'
# Fields of every record of the tables that a data set must have (docs/your_dataset.md).
REQUIRED_FIELDS = {
    'scene': ('name', 'first_sample_token', 'last_sample_token'),
    'sample': ('token', 'scene_token', 'timestamp', 'prev', 'next'),
    'sample_data': ('token', 'sample_token', 'ego_pose_token', 'calibrated_sensor_token',
                    'filename', 'timestamp', 'is_key_frame'),
    'ego_pose': ('token', 'translation', 'rotation'),
    'calibrated_sensor': ('token', 'sensor_token', 'translation', 'rotation'),
    'sensor': ('token', 'channel', 'modality'),
}


@dataclass(frozen=True)
class SensorRecord:
    """One key-frame measurement of one sensor.

    Attributes:
        token: sample_data token.
        channel: e.g. ``CAM_FRONT``.
        modality: ``camera``, ``lidar`` or ``radar``.
        filename: relative to the root.
        timestamp: seconds.
        height, width: pixels; 0 for other than cameras.
        sensor2ego: (4, 4) float64, metres.
        ego2global: (4, 4) float64, metres, at this sensor's own time.
        cam2img: (3, 3) float64, or None for other than cameras.
    """
    token: str
    channel: str
    modality: str
    filename: str
    timestamp: float
    height: int
    width: int
    sensor2ego: np.ndarray
    ego2global: np.ndarray
    cam2img: Optional[np.ndarray]


def quaternions_to_matrices(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices of quaternions of any length but zero.

    Args:
        quaternions: (..., 4), w, x, y, z.

    Returns:
        (..., 3, 3) float64; not finite where a quaternion is zero or not finite.
    """
    quaternions = np.asarray(quaternions, dtype=np.float64)
    with np.errstate(invalid='ignore', divide='ignore'):
        unit = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    w, x, y, z = np.moveaxis(unit, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_matrix(record: dict) -> np.ndarray:
    """(4, 4) float64 of a record with ``rotation`` and ``translation``."""
    matrix = np.eye(4)
    matrix[:3, :3] = quaternions_to_matrices(record['rotation'])
    matrix[:3, 3] = record['translation']
    return matrix


class NuScenesTables:
    """The tables of one version of a data set in nuScenes format.

    Args:
        root: folder that holds ``<version>/`` and ``samples/``.
        version: e.g. ``v1.0-trainval``.

    Attributes:
        scenes: name -> scene record, in the order of the table.
        camera_channels: every camera of the sensor table.
        categories: lidarseg index -> nuScenes name, or None where the tables have none.

    Raises:
        FileNotFoundError: a table that every version has is absent.
        ValueError: a table is not JSON, a record lacks a field of :data:`REQUIRED_FIELDS`, or it
            refers to one that is not there.
    """

    def __init__(self, root: Union[str, Path], version: str) -> None:
        self.root, self.version = Path(root), version
        self.folder = self.root / version
        for name in REQUIRED_FIELDS:
            if not (self.folder / f'{name}.json').is_file():
                raise FileNotFoundError(f'no nuScenes table {self.folder / name}.json')
        self.scenes = {scene['name']: scene for scene in self._load('scene')}
        self._samples = {sample['token']: sample for sample in self._load('sample')}
        self._sensors = {sensor['token']: sensor for sensor in self._load('sensor')}
        self._calibrations = {c['token']: c for c in self._load('calibrated_sensor')}
        self.camera_channels = sorted(
            {s['channel'] for s in self._sensors.values() if s['modality'] == 'camera'})
        self._load_measurements()
        self._load_annotations()
        self._lidarseg = {r['sample_data_token']: r['filename'] for r in self._load('lidarseg')}
        self.categories = self._index_categories() if self._lidarseg else None

    def _load(self, name: str, keep: Optional[Callable[[dict], bool]] = None) -> List[dict]:
        """Records of a table, those that ``keep`` refuses left out; an absent table is empty."""
        path = self.folder / f'{name}.json'
        if not path.is_file():
            return []
        hook = None if keep is None else (lambda record: record if keep(record) else None)
        try:
            with open(path, encoding='utf-8') as file:
                records = json.load(file, object_hook=hook)
        except json.JSONDecodeError as error:
            raise ValueError(f'{path} is not valid JSON: {error}') from error
        records = [record for record in records if record is not None]
        fields = REQUIRED_FIELDS.get(name, ())
        for record in records:
            missing = [field for field in fields if field not in record]
            if missing:
                raise ValueError(f'{path}: the record {record.get("token", record)!r} lacks '
                                 f'{missing}')
        return records

    def _load_measurements(self) -> None:
        records = self._load('sample_data', keep=lambda r: r.get('is_key_frame', True))
        wanted = {record['ego_pose_token'] for record in records}
        poses = self._load('ego_pose', keep=lambda r: 'token' not in r or r['token'] in wanted)
        self._poses = {pose['token']: pose for pose in poses}
        self._measurements: Dict[str, Dict[str, dict]] = {}
        for record in records:
            calibration = self._get(self._calibrations, 'calibrated_sensor',
                                    record['calibrated_sensor_token'])
            sensor = self._get(self._sensors, 'sensor', calibration['sensor_token'])
            of_sample = self._measurements.setdefault(record['sample_token'], {})
            of_sample[sensor['channel']] = record

    def _load_annotations(self) -> None:
        self._annotations = {a['token']: a for a in self._load('sample_annotation')}
        self._annotations_of: Dict[str, List[dict]] = {}
        for annotation in self._annotations.values():
            self._annotations_of.setdefault(annotation['sample_token'], []).append(annotation)
        names = {category['token']: category['name'] for category in self._load('category')}
        self._instance_names = {
            instance['token']: self._get(names, 'category', instance['category_token'])
            for instance in self._load('instance')}

    def _index_categories(self) -> Optional[Dict[int, str]]:
        records = self._load('category')
        if not all('index' in record for record in records):
            return None
        return {record['index']: record['name'] for record in
                sorted(records, key=lambda record: record['index'])}

    def _get(self, table: dict, name: str, token: str):
        if token not in table:
            raise ValueError(f'{self.folder}: no record {token!r} in {name}.json')
        return table[token]

    def samples(self, scene_name: str) -> List[dict]:
        """Sample records of a scene in time order.

        Raises:
            ValueError: no such scene, or its chain of samples is broken.
        """
        if scene_name not in self.scenes:
            raise ValueError(f'scene {scene_name!r} is not in the tables at {self.folder}')
        scene = self.scenes[scene_name]
        samples, token = [], scene['first_sample_token']
        while token:
            samples.append(self._get(self._samples, 'sample', token))
            token = samples[-1]['next']
            if len(samples) > len(self._samples):
                raise ValueError(f'{self.folder}: the samples of scene {scene_name!r} form a loop')
        if samples and samples[-1]['token'] != scene['last_sample_token']:
            raise ValueError(f'{self.folder}: the samples of scene {scene_name!r} end at '
                             f'{samples[-1]["token"]}, not at {scene["last_sample_token"]}')
        return samples

    def sensor_records(self, sample_token: str) -> Dict[str, SensorRecord]:
        """Channel -> measurement of a sample; radar is left out."""
        records = {}
        for channel, record in self._measurements.get(sample_token, {}).items():
            calibration = self._calibrations[record['calibrated_sensor_token']]
            modality = self._sensors[calibration['sensor_token']]['modality']
            if modality not in ('camera', 'lidar'):
                continue
            pose = self._get(self._poses, 'ego_pose', record['ego_pose_token'])
            intrinsic = calibration.get('camera_intrinsic') if modality == 'camera' else None
            records[channel] = SensorRecord(
                token=record['token'], channel=channel, modality=modality,
                filename=record['filename'], timestamp=record['timestamp'] / 1e6,
                height=record.get('height') or 0, width=record.get('width') or 0,
                sensor2ego=pose_matrix(calibration), ego2global=pose_matrix(pose),
                cam2img=None if intrinsic is None else np.array(intrinsic, dtype=np.float64))
        return records

    def lidarseg_path(self, sample_data_token: str) -> Optional[str]:
        """Label file of a LiDAR measurement relative to the root, or None."""
        return self._lidarseg.get(sample_data_token)

    def annotations(self, sample_token: str) -> List[dict]:
        """Box records of a sample, ``name`` (nuScenes category) and global ``velocity`` added."""
        return [dict(annotation, name=self._get(self._instance_names, 'instance',
                                                annotation['instance_token']),
                     velocity=self._velocity(annotation))
                for annotation in self._annotations_of.get(sample_token, [])]

    def _velocity(self, annotation: dict, max_time_difference: float = 1.5) -> np.ndarray:
        """(3,) m/s, global: difference of the neighbours' centres; nan where there are none.

        The rule of nuScenes: one-sided at the ends, and a gap above 1.5 s (3 s when centred) is
        no neighbour.
        """
        first = self._annotations.get(annotation['prev'], annotation)
        last = self._annotations.get(annotation['next'], annotation)
        times = [self._get(self._samples, 'sample', a['sample_token'])['timestamp'] / 1e6
                 for a in (first, last)]
        gap = times[1] - times[0]
        centred = first is not annotation and last is not annotation
        if gap <= 0 or gap > max_time_difference * (2 if centred else 1):
            return np.full(3, np.nan)
        return (np.array(last['translation']) - np.array(first['translation'])) / gap
