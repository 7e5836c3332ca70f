"""One key frame of a synthetic scene: sensors fire, labels are cast, files are written.

Every sensor fires at its own time, from the ego pose of that time, into the world of that time;
labels, LiDAR and boxes share the LiDAR's time, which is the key frame's. Metres and seconds.
"""
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import cv2
import numpy as np
from PIL import Image

from ..files import atomic_write, write_json
from .lidar import Sweep, scan
from .occupancy import GridSpec, label_voxels, mark_observed, pixel_rays
from .records import SceneSpec, pose_record
from .rig import CAMERAS, LIDAR_CHANNEL, camera_intrinsics, sensor_to_ego, shutter_delay
from .tables import lidarseg_file
from .teacher import Camera, write_teacher
from .trajectory import Drive
from .world import make_world

JPEG_QUALITY = 92
# Boxes further from the car than this are no annotations.
_BOX_RADIUS = 80.


@lru_cache(maxsize=1)
def open_scene(scene: SceneSpec) -> Tuple[Any, Drive]:
    """World and drive of a scene; the last one is kept, since its frames come one by one."""
    world = make_world(scene.settings.seed, scene.world_index)
    return world, Drive(world.route, scene.settings.frames, scene.rng('drive'))


def record_file(root: Path, scene: SceneSpec, frame: int) -> Path:
    """Where the record of a frame is."""
    return root / 'records' / scene.name / f'{frame:03d}.json'


def make_frame(root: Path, scene: SceneSpec, frame: int) -> Path:
    """Makes all files of a key frame, its record last.

    Args:
        root: folder of the set.
        scene: scene.
        frame: number in the scene.

    Returns:
        Path of the record: token, timestamp, ``sensors`` (channel -> token, timestamp, filename,
        translation, rotation), ``boxes``, and ``files``, all that was written for the frame.
    """
    world, drive = open_scene(scene)
    time = scene.key_times()[frame]
    key_pose, snapshot = drive.pose(time), world.at(time)
    boxes = _near_boxes(snapshot.boxes, key_pose)
    shots = _shoot(root, scene, frame, boxes)
    lidar = _sensor_record(scene, frame, LIDAR_CHANNEL, time, drive)
    sweep = scan(snapshot, key_pose @ sensor_to_ego(LIDAR_CHANNEL),
                 scene.rng(frame, LIDAR_CHANNEL), {box.object_id: box.category for box in boxes})
    files = [*shots.files, _write_sweep(root, lidar, sweep), _write_labels(
        root, scene, frame, semantics=label_voxels(snapshot, key_pose),
        mask_lidar=lidar_mask(sweep, key_pose), mask_camera=shots.mask)]
    record = dict(token=scene.token('sample', frame), timestamp=scene.timestamp(time),
                  sensors={**shots.sensors, LIDAR_CHANNEL: lidar},
                  boxes=_box_records(boxes, sweep.objects, shots.seen),
                  files=[str(file.relative_to(root)) for file in files])
    write_json(record_file(root, scene, frame), record)
    return record_file(root, scene, frame)


def read_record(root: Path, scene: SceneSpec, frame: int) -> Optional[dict]:
    """The record of a frame, or None where it or one of the frame's files is not there."""
    path = record_file(root, scene, frame)
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding='utf-8'))
    sensors = [sensor['filename'] for sensor in record['sensors'].values()]
    complete = all((root / name).is_file() for name in [*record['files'], *sensors])
    return record if complete else None


def _sensor_record(scene: SceneSpec, frame: int, channel: str, time: float, drive: Drive) -> dict:
    stamp = scene.timestamp(time)
    suffix = 'jpg' if channel in CAMERAS else 'pcd.bin'
    return dict(token=scene.token(frame, channel), timestamp=stamp,
                filename=f'samples/{channel}/{scene.name}__{channel}__{stamp}.{suffix}',
                **pose_record(drive.pose(time)))


@dataclass
class _Shots:
    """What the six cameras of a key frame gave.

    Attributes:
        sensors: channel -> entry of the record.
        files: teacher files.
        mask: (X, Y, Z) uint8, voxels that pixels see.
        seen: object id -> [pixels that it has, pixels that its box has] in all images.
    """
    sensors: Dict[str, dict] = field(default_factory=dict)
    files: List[Path] = field(default_factory=list)
    mask: np.ndarray = field(default_factory=lambda: np.zeros(GridSpec().shape, np.uint8))
    seen: Dict[int, List[float]] = field(default_factory=dict)


def _shoot(root: Path, scene: SceneSpec, frame: int, boxes: List[Any]) -> _Shots:
    """Images and teacher files of all cameras, each at its own time and ego pose."""
    world, drive = open_scene(scene)
    key_time, size = scene.key_times()[frame], scene.settings.image_size
    global2key, shots = np.linalg.inv(drive.pose(key_time)), _Shots()
    for channel in CAMERAS:
        time = round(key_time + shutter_delay(channel, scene.rng(frame, channel)), 6)
        sensor = shots.sensors[channel] = _sensor_record(scene, frame, channel, time, drive)
        cam2global = drive.pose(time) @ sensor_to_ego(channel)
        cam2img = camera_intrinsics(channel, size)
        view = world.at(time).render(cam2img, cam2global, size)
        with atomic_write(root / sensor['filename']) as path:
            Image.fromarray(view.image).save(path, quality=JPEG_QUALITY)
        shots.files.append(write_teacher(
            root, sensor['token'], view.classes, view.objects, view.distances,
            scene.rng(frame, channel, 'teacher'), scene_seed=scene.number,
            camera=Camera(cam2img, cam2global)))
        mark_observed(shots.mask, *pixel_rays(view.distances, cam2img, global2key @ cam2global))
        _add_visible(shots.seen, boxes, view.objects, cam2img, cam2global)
    return shots


def lidar_mask(sweep: Sweep, key_pose: np.ndarray) -> np.ndarray:
    """(X, Y, Z) uint8: voxels that the sweep's returned beams pass through or end in."""
    mask = np.zeros(GridSpec().shape, np.uint8)
    origin = sensor_to_ego(LIDAR_CHANNEL)[:3, 3]
    rays = (sweep.hits - key_pose[:3, 3]) @ key_pose[:3, :3] - origin
    distances = np.linalg.norm(rays, axis=1)
    mark_observed(mask, origin, rays / distances[:, None], distances)
    return mask


def _write_sweep(root: Path, sensor: dict, sweep: Sweep) -> Path:
    """Points and their labels; the path of the labels."""
    with atomic_write(root / sensor['filename']) as path:
        sweep.points.tofile(path)
    labels = root / lidarseg_file(sensor['token'])
    with atomic_write(labels) as path:
        sweep.categories.tofile(path)
    return labels


def read_sweep(root: Path, sensor: dict) -> Tuple[np.ndarray, np.ndarray]:
    """Points (P, 5) float32 and raw categories (P,) uint8 of a LiDAR's entry in a record."""
    points = np.fromfile(root / sensor['filename'], dtype=np.float32).reshape(-1, 5)
    return points, np.fromfile(root / lidarseg_file(sensor['token']), dtype=np.uint8)


def _write_labels(root: Path, scene: SceneSpec, frame: int, **arrays: np.ndarray) -> Path:
    labels = root / 'gts' / scene.name / scene.token('sample', frame) / 'labels.npz'
    with atomic_write(labels) as path:
        np.savez_compressed(path, **arrays)
    return labels


def _near_boxes(boxes: List[Any], key_pose: np.ndarray) -> List[Any]:
    """Boxes around the car, by object id."""
    near = [box for box in boxes
            if np.linalg.norm(np.asarray(box.center)[:2] - key_pose[:2, 3]) < _BOX_RADIUS]
    return sorted(near, key=lambda box: box.object_id)


def _add_visible(seen: Dict[int, List[float]], boxes: List[Any], objects: np.ndarray,
                 cam2img: np.ndarray, cam2global: np.ndarray) -> None:
    """Adds an image to ``_Shots.seen``."""
    numbers, counts = np.unique(objects[objects >= 0], return_counts=True)
    pixels = dict(zip(numbers.tolist(), counts.tolist()))
    global2cam = np.linalg.inv(cam2global)
    height, width = objects.shape
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    for box in boxes:
        corners = box_corners(box) @ global2cam[:3, :3].T + global2cam[:3, 3]
        if corners[:, 2].min() < 0.1:
            continue
        projected = corners @ cam2img.T
        outline = cv2.convexHull((projected[:, :2] / projected[:, 2:] + 0.5).astype(np.float32))
        area = cv2.intersectConvexConvex(outline, frame)[0]
        if area >= 1:
            total = seen.setdefault(box.object_id, [0., 0.])
            total[0] += pixels.get(box.object_id, 0)
            total[1] += area


def box_corners(box: Any) -> np.ndarray:
    """(8, 3) global corners of a box of the world."""
    width, length, height = box.size
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    corners = corners * [length, width, height]
    cosine, sine = np.cos(box.yaw), np.sin(box.yaw)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return corners @ turn.T + np.asarray(box.center)


def _box_records(boxes: List[Any], hit_objects: np.ndarray, seen: Dict[int, List[float]]
                 ) -> List[dict]:
    hits = Counter(hit_objects.tolist())
    records = []
    for box in boxes:
        pixels, area = seen.get(box.object_id, (0., 0.))
        share = pixels / area if area else 0.
        # A solid fills about three quarters of its box's outline.
        level = 1 + int(np.searchsorted([.4, .6, .8], share / 0.75, side='right'))
        records.append(dict(
            object=int(box.object_id), category=box.category, visibility=str(level),
            translation=[float(value) for value in box.center],
            size=[float(value) for value in box.size],
            rotation=[float(np.cos(box.yaw / 2)), 0., 0., float(np.sin(box.yaw / 2))],
            attributes=[box.attribute] if box.attribute else [],
            num_lidar_pts=hits[box.object_id]))
    return records
