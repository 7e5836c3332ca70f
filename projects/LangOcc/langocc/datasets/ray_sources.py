"""Where training rays come from: pixels of the cameras of the key frame and of its neighbours.

A source draws pixels over ``results['ray_frames']`` x ``results['camera_names']``; which frames are
there is the data set's business, and a frame that stands in for one outside the scene counts again,
as published. Pixels are those of original images; integer = pixel centre.

Frames of reference: LiDAR -> LiDAR-ego (ego pose at the LiDAR's own time) -> global -> ego at the
camera's own time -> camera; and camera -> ego at the camera's time -> global -> key ego. Paths in
infos are opened as they are (the data set has joined them with its root).

Legend: F ray frames, N cameras, R rays, G = F x N groups of pixels, P points.
"""
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmdet3d.registry import TASK_UTILS

from voxelrender import RayBundle

from ..occ3d import OCC3D_RANGE
from ..teachers.base import image_of
from ..teachers.class_names import ClassNames
from ..teachers.sampling import LRUCache
from .geometry import homogeneous, lidar_to_camera, project
from .pixel_draw import PixelDraw, draw_from_groups, draw_to_rays


class RaySource(ABC):
    """Base of ray sources.

    Args:
        key_frame_share: Part of the rays in [0, 1] to draw from the key frame; where one side has
            too few pixels the other fills up. None draws uniformly over all frames, as the paper.
        num_images: Draw from so many of the F x N images only, chosen anew for each sample, for
            teachers that compute features on the spot. With ``key_frame_share``, that part of them
            is of the key frame, and at least one is where the share is not 0. A copy of the key
            frame that stands in for one outside the scene counts as a frame of its own. None draws
            from all, as the paper.

    Attributes:
        labels: :class:`ClassNames` of a source whose draws have ``classes``; None of others.
    """
    labels: Optional[ClassNames] = None

    def __init__(self, key_frame_share: Optional[float] = None,
                 num_images: Optional[int] = None) -> None:
        if key_frame_share is not None and not 0 <= key_frame_share <= 1:
            raise ValueError(f'key_frame_share is {key_frame_share}, expected 0 ... 1 or None')
        if num_images is not None and num_images < 1:
            raise ValueError(f'num_images is {num_images}, expected at least 1 or None')
        self.key_frame_share = key_frame_share
        self.num_images = num_images

    def __call__(self, results: Dict[str, Any], num_rays: int, rng: np.random.Generator
                 ) -> RayBundle:
        """Draw rays: :meth:`draw`, then :func:`draw_to_rays`."""
        return draw_to_rays(results, self.draw(results, num_rays, rng))

    @abstractmethod
    def draw(self, results: Dict[str, Any], num_rays: int, rng: np.random.Generator) -> PixelDraw:
        """Draw at most ``num_rays`` pixels, without replacement."""

    def _choose(self, results: Dict[str, Any], counts: np.ndarray, num_rays: int,
                rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
        """As :func:`draw_from_groups` over (F, N) ``counts``, minding ``key_frame_share``."""
        if self.key_frame_share is None:
            return draw_from_groups(counts.reshape(-1), num_rays, rng)
        is_key = _is_key(results)
        key, other = np.where(is_key, counts, 0), np.where(is_key, 0, counts)
        num_key = min(round(self.key_frame_share * num_rays), int(key.sum()))
        num_other = min(num_rays - num_key, int(other.sum()))
        parts = [draw_from_groups(key.reshape(-1), num_rays - num_other, rng),
                 draw_from_groups(other.reshape(-1), num_other, rng)]
        groups, indices = (np.concatenate(values) for values in zip(*parts))
        order = np.argsort(groups, kind='stable')
        return groups[order], indices[order]

    def _choose_images(self, results: Dict[str, Any], rng: np.random.Generator) -> np.ndarray:
        """(F, N) bool: the images to draw from; without ``num_images`` no random number is used."""
        shape = len(results['ray_frames']), len(results['camera_names'])
        if self.num_images is None:
            return np.ones(shape, dtype=bool)
        chosen = np.zeros(shape, dtype=bool)
        if self.key_frame_share is None:
            parts = [(np.arange(chosen.size), self.num_images)]
        else:
            is_key = np.broadcast_to(_is_key(results), shape).reshape(-1)
            key, other = np.flatnonzero(is_key), np.flatnonzero(~is_key)
            num_key = round(self.key_frame_share * self.num_images)
            num_key = min(max(num_key, int(self.key_frame_share > 0)), len(key))
            num_other = min(self.num_images - num_key, len(other))
            parts = [(key, self.num_images - num_other), (other, num_other)]
        for images, count in parts:
            chosen.flat[rng.choice(images, min(count, len(images)), replace=False)] = True
        return chosen


def _is_key(results: Dict[str, Any]) -> np.ndarray:
    """(F, 1) bool: frames that are the key frame, or a copy of it."""
    return np.array([[frame['info']['token'] == results['token']]
                     for frame in results['ray_frames']], dtype=bool)


@TASK_UTILS.register_module()
class LidarPixelSource(RaySource):
    """The paper's source: pixels at which a LiDAR point of the same frame projects.

    A hidden use of LiDAR in the published recipe; :class:`CameraPixelSource` does without.

    Args:
        point_cloud_range: Box (x0, y0, z0, x1, y1, z1) in metres in the frame's own LiDAR-ego frame
            in which points must lie; None takes all points.
        min_depth, max_depth: Metres along the optical axis; points between them are taken.
        key_frame_share, num_images: See :class:`RaySource`. LiDAR is read of the frames that images
            are taken of; they may have fewer than the rays wanted.
        cache_size: Frames of which the projected points stay in memory (about 0.8 MB each at 35,000
            points); the frames of one sample recur in its neighbours.
    """

    def __init__(self,
                 point_cloud_range: Optional[Sequence[float]] = OCC3D_RANGE,
                 min_depth: float = 1.,
                 max_depth: float = 40.,
                 key_frame_share: Optional[float] = None,
                 num_images: Optional[int] = None,
                 cache_size: int = 64) -> None:
        super().__init__(key_frame_share, num_images)
        self.box = None
        if point_cloud_range is not None:
            self.box = np.asarray(point_cloud_range, dtype=np.float64).reshape(-1)
            if self.box.shape != (6,) or not (self.box[:3] < self.box[3:]).all():
                raise ValueError(f'point_cloud_range is {point_cloud_range}, expected '
                                 '(x0, y0, z0, x1, y1, z1), increasing')
        if not 0 < min_depth < max_depth:
            raise ValueError(f'depths {min_depth} ... {max_depth}, expected 0 < min < max')
        self.min_depth, self.max_depth = min_depth, max_depth
        self._cache = LRUCache(cache_size)

    def draw(self, results: Dict[str, Any], num_rays: int, rng: np.random.Generator) -> PixelDraw:
        """See :meth:`RaySource.draw`.

        Raises:
            ValueError, FileNotFoundError: a frame has no LiDAR, or its file is missing or damaged.
        """
        frames, cameras = results['ray_frames'], tuple(results['camera_names'])
        chosen = self._choose_images(results, rng)
        nothing = [np.zeros((0, 2), np.float32), np.zeros(0, np.float32)]
        nothing += [np.zeros(0, np.int64)] * (self.labels is not None)
        seen: List[Sequence[np.ndarray]] = []
        for frame, wanted in zip(frames, chosen):
            info, of_frame = frame['info'], [nothing] * len(cameras)
            if wanted.any():
                of_frame = self._cache.get((info['token'], cameras),
                                           lambda: self.visible_points(info, cameras))
            seen += of_frame
        counts = np.array([len(columns[0]) for columns in seen], dtype=np.int64)
        groups, indices = self._choose(results, counts.reshape(chosen.shape) * chosen, num_rays,
                                       rng)
        pixels, distances, *labels = (
            _gather(parts, groups, indices) for parts in zip(*(seen or [nothing])))
        return PixelDraw(groups // len(cameras), groups % len(cameras), pixels.astype(np.float64),
                         distances.astype(np.float64), *labels)

    def visible_points(self, info: Dict[str, Any], cameras: Sequence[str]
                       ) -> List[Sequence[np.ndarray]]:
        """LiDAR points of a frame in each camera: pixels (P, 2) and distances (P,), float32.

        A source that labels them adds classes (P,) int64.
        """
        points = read_lidar(info)
        columns = self._columns(info, len(points))
        if self.box is not None:
            lidar2ego = homogeneous(info['lidar_points']['lidar2ego'])
            in_ego = points @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
            inside = ((in_ego > self.box[:3]) & (in_ego < self.box[3:])).all(axis=1)
            points, columns = points[inside], [column[inside] for column in columns]
        seen = []
        for camera in cameras:
            lidar2cam, image = lidar_to_camera(info, camera), image_of(info, camera)
            pixels, distances, index = self._project(points, lidar2cam, image)
            seen.append([pixels, distances, *(column[index] for column in columns)])
        return seen

    def _columns(self, info: Dict[str, Any], num_points: int) -> List[np.ndarray]:
        """What else is known of each point of a frame's LiDAR file, (P,) arrays."""
        return []

    def _project(self, points: np.ndarray, lidar2cam: np.ndarray, image: Dict[str, Any]
                 ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels and distances of the points in an image, and which points they are."""
        depths = points @ lidar2cam[2, :3] + lidar2cam[2, 3]
        index = np.flatnonzero((depths > self.min_depth) & (depths < self.max_depth))
        pixels, _ = project(points[index], lidar2cam, image['cam2img'])
        limits = np.array([image['width'] - 1, image['height'] - 1])
        inside = ((pixels > 0) & (pixels < limits)).all(axis=1)
        index = index[inside]
        centre = np.linalg.inv(lidar2cam)[:3, 3]
        distances = np.linalg.norm(points[index] - centre, axis=1)
        return pixels[inside].astype(np.float32), distances.astype(np.float32), index


@TASK_UTILS.register_module()
class CameraPixelSource(RaySource):
    """Pixels drawn uniformly over frames x cameras x pixels, no LiDAR read; distances unknown.

    Rays then also meet the sky and things beyond the grid; losses must know (target 'sky').

    Args:
        key_frame_share, num_images: See :class:`RaySource`.
    """

    def draw(self, results: Dict[str, Any], num_rays: int, rng: np.random.Generator) -> PixelDraw:
        """See :meth:`RaySource.draw`; pixels are integers, that is pixel centres."""
        frames, cameras = results['ray_frames'], results['camera_names']
        images = [image_of(frame['info'], camera) for frame in frames for camera in cameras]
        widths = np.array([image['width'] for image in images], dtype=np.int64)
        heights = np.array([image['height'] for image in images], dtype=np.int64)
        chosen = self._choose_images(results, rng)
        counts = (widths * heights).reshape(chosen.shape) * chosen
        groups, indices = self._choose(results, counts, num_rays, rng)
        rows, columns = np.divmod(indices, widths[groups])
        pixels = np.stack([columns, rows], axis=1).astype(np.float64)
        return PixelDraw(groups // len(cameras), groups % len(cameras), pixels,
                         np.full(len(groups), np.nan))


def _gather(parts: Sequence[np.ndarray], groups: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Rows ``indices`` (R,) of the arrays ``groups`` (R,) among ``parts``."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    return np.concatenate(parts)[starts[groups] + indices]


def read_lidar(info: Dict[str, Any]) -> np.ndarray:
    """Points of a frame's LiDAR file, (P, 3) float64, metres, LiDAR frame.

    Raises:
        ValueError: the frame has no LiDAR, or the file's size does not fit its number of values.
        FileNotFoundError: no such file.
    """
    lidar = info.get('lidar_points')
    if not lidar or not lidar.get('lidar_path'):
        raise ValueError(f'frame {info.get("token")} has no LiDAR; use CameraPixelSource')
    path = Path(lidar['lidar_path'])
    if not path.is_file():
        raise FileNotFoundError(f'LiDAR file {path} of frame {info.get("token")} does not exist')
    values, width = np.fromfile(path, dtype=np.float32), int(lidar['num_pts_feats'])
    if len(values) % width:
        raise ValueError(f'LiDAR file {path} has {len(values)} float32 values, expected a multiple '
                         f'of num_pts_feats = {width}')
    return values.reshape(-1, width)[:, :3].astype(np.float64)
