"""nuScenes tables -> infos of :class:`NuScenesOccDataset` (mmdet3d v2 fields and a few more).

One info a key frame; paths relative to the root; matrices ``a2b`` with ``p_b = a2b @ p_a``; metres,
seconds. The "LiDAR frame" of ``lidar2cam`` and ``instances`` is LIDAR_TOP's, or, where a sample has
no LiDAR, the key ego frame itself.
"""
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np

from ..files import atomic_write
from .nuscenes_tables import LIDAR_CHANNEL, NuScenesTables, SensorRecord, quaternions_to_matrices

# mmdet3d's ten detection classes, in its order, and its mapping from nuScenes categories.
INSTANCE_CLASSES = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle',
                    'motorcycle', 'pedestrian', 'traffic_cone', 'barrier')
CATEGORY_TO_INSTANCE_CLASS = {
    'movable_object.barrier': 'barrier',
    'vehicle.bicycle': 'bicycle',
    'vehicle.bus.bendy': 'bus',
    'vehicle.bus.rigid': 'bus',
    'vehicle.car': 'car',
    'vehicle.construction': 'construction_vehicle',
    'vehicle.motorcycle': 'motorcycle',
    'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'pedestrian',
    'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian',
    'movable_object.trafficcone': 'traffic_cone',
    'vehicle.trailer': 'trailer',
    'vehicle.truck': 'truck',
}
_NUM_POINT_FEATURES = 5


def build_infos(tables: NuScenesTables,
                scene_names: Sequence[str],
                cameras: Optional[Sequence[str]] = None,
                occ_root: str = 'gts',
                progress: Any = None) -> List[dict]:
    """Infos of some scenes, in the order of ``scene_names`` and of time.

    Args:
        tables: the tables.
        scene_names: scenes to take.
        cameras: channels that every sample must have; default every camera of the sensor table.
        occ_root: folder of the occupancy labels, relative to the root, or absolute.
        progress: something with ``update(n)``, called once a sample (a tqdm bar).

    Returns:
        One dict a key frame: sample_idx, frame_idx (in its scene) and the keys of
        :func:`sample_info`.

    Raises:
        ValueError: a scene is not in the tables, a sample lacks a camera, or a calibration or pose
            is not finite; the message names scene, sample and sensor.
    """
    cameras = tables.camera_channels if cameras is None else list(cameras)
    infos = []
    for scene_name in scene_names:
        for frame_idx, sample in enumerate(tables.samples(scene_name)):
            info = sample_info(tables, scene_name, sample, cameras, occ_root)
            infos.append(dict(sample_idx=len(infos), frame_idx=frame_idx, **info))
            if progress is not None:
                progress.update(1)
    return infos


def sample_info(tables: NuScenesTables, scene_name: str, sample: dict, cameras: Sequence[str],
                occ_root: str) -> dict:
    """Info of one sample; arguments and errors as :func:`build_infos`.

    Returns:
        token, timestamp, scene_name, scene_token, prev, next (sample tokens, '' = none), ego2global
        (key ego frame: LIDAR_TOP's ego pose; without LiDAR the camera pose nearest to the sample's
        time), images (see :func:`camera_info`), occ_path, instances (see :func:`instance_infos`)
        and, where there are any, lidar_points and pts_semantic_mask_path.
    """
    token = sample['token']
    where = f'sample {token} of scene {scene_name!r}'
    sensors = tables.sensor_records(token)
    for camera in cameras:
        if camera not in sensors:
            raise ValueError(f'{where} has no camera {camera}: no key frame of it in '
                             f'sample_data.json at {tables.folder} (it has {sorted(sensors)})')
    for channel in (*cameras, LIDAR_CHANNEL):
        if channel in sensors:
            check_finite(sensors[channel], where)
    lidar = sensors.get(LIDAR_CHANNEL)
    ego2global = _key_pose(sensors, sample['timestamp'] / 1e6)
    lidar2global = ego2global if lidar is None else lidar.ego2global @ lidar.sensor2ego
    info = dict(
        token=token, timestamp=sample['timestamp'] / 1e6, scene_name=scene_name,
        scene_token=sample['scene_token'], prev=sample['prev'], next=sample['next'],
        ego2global=ego2global.tolist(),
        images={camera: camera_info(sensors[camera], lidar2global) for camera in cameras},
        occ_path=str(Path(occ_root) / scene_name / token / 'labels.npz'),
        instances=instance_infos(tables.annotations(token), lidar2global))
    if lidar is not None:
        info['lidar_points'] = dict(
            lidar_path=lidar.filename, num_pts_feats=_NUM_POINT_FEATURES,
            lidar2ego=lidar.sensor2ego.tolist(), ego2global=lidar.ego2global.tolist(),
            sample_data_token=lidar.token, timestamp=lidar.timestamp)
        lidarseg = tables.lidarseg_path(lidar.token)
        if lidarseg is not None:
            info['pts_semantic_mask_path'] = lidarseg
    return info


def check_finite(record: SensorRecord, where: str) -> None:
    """Raises ValueError naming sensor and sample when a calibration or pose is not finite.

    Also where a camera has no 3 x 3 ``camera_intrinsic``.
    """
    if record.modality == 'camera' and np.shape(record.cam2img) != (3, 3):
        raise ValueError(f'camera_intrinsic of {record.channel} in {where} has shape '
                         f'{np.shape(record.cam2img)}, expected (3, 3)')
    for name in ('sensor2ego', 'ego2global', 'cam2img'):
        matrix = getattr(record, name)
        if matrix is not None and not np.isfinite(matrix).all():
            raise ValueError(f'non-finite {name} of {record.channel} in {where} '
                             f'(sample_data {record.token}): {matrix.tolist()}')


def _key_pose(sensors: Dict[str, SensorRecord], timestamp: float) -> np.ndarray:
    """(4, 4): the LiDAR's ego pose; without LiDAR the pose nearest to the sample's time."""
    if LIDAR_CHANNEL in sensors:
        return sensors[LIDAR_CHANNEL].ego2global
    return min(sensors.values(), key=lambda record: abs(record.timestamp - timestamp)).ego2global


def camera_info(record: SensorRecord, lidar2global: np.ndarray) -> dict:
    """mmdet3d's ``images`` entry with the camera's own ego pose."""
    cam2global = record.ego2global @ record.sensor2ego
    return dict(
        img_path=record.filename, cam2img=record.cam2img.tolist(),
        cam2ego=record.sensor2ego.tolist(), ego2global=record.ego2global.tolist(),
        lidar2cam=(np.linalg.inv(cam2global) @ lidar2global).tolist(),
        timestamp=record.timestamp, sample_data_token=record.token, height=record.height,
        width=record.width)


def instance_infos(annotations: List[dict], lidar2global: np.ndarray) -> List[dict]:
    """mmdet3d's ``instances``: boxes in the LiDAR frame.

    Args:
        annotations: box records of :meth:`NuScenesTables.annotations`.
        lidar2global: (4, 4), metres.

    Returns:
        A dict a box: ``bbox_3d`` [x, y, z, l, w, h, yaw] with the centre in the middle of the box
        (metres, radians, rounded to 1e-4), ``bbox_label_3d`` and ``bbox_label`` (index into
        :data:`INSTANCE_CLASSES`, -1 = none of them), ``velocity`` [x, y] m/s or null where unknown,
        ``num_lidar_pts``, ``num_radar_pts``, ``bbox_3d_isvalid``.

    Raises:
        ValueError: a box is not finite; names the annotation.
    """
    global2lidar = np.linalg.inv(lidar2global)
    instances = []
    for annotation in annotations:
        centre = global2lidar[:3, :3] @ np.array(annotation['translation']) + global2lidar[:3, 3]
        heading = global2lidar[:3, :3] @ quaternions_to_matrices(annotation['rotation'])[:, 0]
        width, length, height = annotation['size']
        yaw = float(np.arctan2(heading[1], heading[0]))
        velocity = (global2lidar[:3, :3] @ annotation['velocity'])[:2]
        name = CATEGORY_TO_INSTANCE_CLASS.get(annotation['name'])
        label = -1 if name is None else INSTANCE_CLASSES.index(name)
        box = (*centre, length, width, height, yaw)
        if not np.isfinite(box).all():
            raise ValueError(f'sample_annotation {annotation["token"]}: non-finite box {box}')
        lidar_points, radar_points = annotation['num_lidar_pts'], annotation['num_radar_pts']
        instances.append(dict(
            bbox_3d=[round(float(v), 4) for v in box],
            bbox_label_3d=label, bbox_label=label,
            velocity=[round(float(v), 4) if np.isfinite(v) else None for v in velocity],
            num_lidar_pts=lidar_points, num_radar_pts=radar_points,
            bbox_3d_isvalid=lidar_points + radar_points > 0))
    return instances


def infos_metainfo(tables: NuScenesTables, splits: Dict[str, Sequence[str]]) -> dict:
    """``metainfo`` of an infos file: data set, version, split -> scene names, label names."""
    metainfo = dict(dataset='nuscenes', version=tables.version, info_version='1.1',
                    splits={name: list(scenes) for name, scenes in splits.items()},
                    instance_classes=list(INSTANCE_CLASSES))
    if tables.categories is not None:
        metainfo['categories'] = {str(i): name for i, name in tables.categories.items()}
    return metainfo


def write_infos(content: dict, path: Union[str, Path]) -> None:
    """Writes compact, standard JSON; ``path`` is either whole or untouched.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(content, separators=(',', ':'), allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding='utf-8')
