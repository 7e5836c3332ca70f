"""Loading images, occupancy labels and LiDAR depth.

Legend: F frames, N cameras, H x W augmented image, X, Y, Z voxels.
"""
import io
import zipfile
from typing import List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine import fileio
from PIL import Image

from langocc.occ3d import OCC3D_SHAPE, range_of_labels
from langocc.structures import OccData

from ..geometry import build_rig, lidar_to_camera, project
from .augmentation import ImageAugmentation, sample_image_augmentation


def read_image(path: str, backend_args: Optional[dict] = None) -> Image.Image:
    """Decodes an image file to RGB.

    Raises:
        FileNotFoundError: no such file.
        OSError: truncated, or no image; the message names the file.
    """
    try:
        content = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'image not found: {path}') from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert('RGB')
    except (OSError, SyntaxError) as error:
        raise OSError(f'cannot decode image {path} ({len(content)} bytes): {error}') from error


@TRANSFORMS.register_module()
class PrepareImageInputs(BaseTransform):
    """Loads the images of all frames and augments them, one augmentation a camera.

    Reads ``frames``, ``camera_names``, ``key_ego2global``. Adds ``imgs`` (F, N, 3, H, W) uint8 RGB
    and ``rig`` CameraRig (F, N, 4, 4), and sets ``camera_names`` to the N cameras taken.

    Args:
        data_config: BEVDet's keys. ``input_size`` (H, W) of the result; ``src_size`` (H, W) of the
            files, optional, checked; ``cams``: channels, default the data set's ``camera_names``;
            ``Ncams``: in training that many of them, drawn at random, keep their order; ``resize``,
            ``rot``, ``flip``, ``crop_h``, ``resize_test``: see
            :func:`~langocc.datasets.transforms.augmentation.sample_image_augmentation`.
        is_train: draw the augmentation.
        color_type: ``'color'``; other names of mmcv are refused.
        backend_args: mmengine's file client.

    Raises:
        ValueError: a camera is not in the sample, or an image is not of ``src_size``.
        FileNotFoundError, OSError: an image is missing or broken; the message names it.
    """

    def __init__(self,
                 data_config: dict,
                 is_train: bool = False,
                 color_type: str = 'color',
                 backend_args: Optional[dict] = None) -> None:
        if color_type != 'color':
            raise ValueError(f"color_type must be 'color' (RGB), got {color_type!r}")
        if len(data_config.get('input_size', ())) != 2:
            raise ValueError('data_config.input_size must be (height, width), got '
                             f'{data_config.get("input_size")}')
        self.data_config = dict(data_config)
        self.is_train = is_train
        self.color_type = color_type
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Adds ``imgs`` and ``rig``."""
        cameras = self._choose_cameras(results['camera_names'])
        images, matrices = [], []
        for camera in cameras:
            of_camera, matrix = self._load_camera(results['frames'], camera)
            images.append(of_camera)
            matrices.append(matrix)
        results['imgs'] = torch.from_numpy(np.ascontiguousarray(
            np.stack(images, axis=1).transpose(0, 1, 4, 2, 3)))
        results['rig'] = build_rig(results['frames'], cameras, results['key_ego2global'],
                                   np.stack(matrices))
        results['camera_names'] = cameras
        return results

    def _choose_cameras(self, available: Sequence[str]) -> List[str]:
        cameras = list(self.data_config.get('cams') or available)
        absent = [camera for camera in cameras if camera not in available]
        if absent:
            raise ValueError(f'data_config.cams {absent} are not among the data set\'s '
                             f'camera_names {list(available)}')
        count = self.data_config.get('Ncams', len(cameras))
        if not 0 < count <= len(cameras):
            raise ValueError(f'data_config.Ncams is {count}, there are {len(cameras)} cameras')
        if not self.is_train or count == len(cameras):
            return cameras
        chosen = np.random.choice(len(cameras), count, replace=False)
        return [cameras[i] for i in sorted(chosen)]

    def _load_camera(self, frames: Sequence[dict], camera: str) -> Tuple[np.ndarray, np.ndarray]:
        """Images (F, H, W, 3) uint8 of one camera and its (4, 4) augmentation."""
        augmentation: Optional[ImageAugmentation] = None
        images = []
        for info in frames:
            path = info['images'][camera]['img_path']
            image = read_image(path, self.backend_args)
            size = image.size[::-1]
            expected = tuple(self.data_config.get('src_size') or size)
            if augmentation is not None:
                expected = augmentation.source_size
            if size != expected:
                raise ValueError(f'{path} is {size[0]} x {size[1]} (height x width), expected '
                                 f'{expected[0]} x {expected[1]} (data_config.src_size, or the key '
                                 'frame\'s size)')
            if augmentation is None:
                augmentation = sample_image_augmentation(self.data_config, size, self.is_train)
            images.append(np.asarray(augmentation.apply(image)))
        return np.stack(images), augmentation.matrix()

    def __repr__(self) -> str:
        return f'{type(self).__name__}(data_config={self.data_config}, is_train={self.is_train})'


@TRANSFORMS.register_module()
class LoadOccGTFromFile(BaseTransform):
    """Loads Occ3D labels into ``gt_occ`` (OccData), flipped like ``bev_aug_matrix``.

    A flip of an axis reverses its index, which is exact for a grid symmetric about the ego origin
    in x and y (Occ3D's).

    Args:
        grid_shape: (X, Y, Z) expected.
        point_cloud_range: where the labels lie, x0, y0, z0, x1, y1, z1 in metres, key ego frame;
            the files do not say it. Heads and metrics refuse a grid elsewhere. None: Occ3D's range
            for labels of Occ3D's shape; others are not checked.

    Raises:
        KeyError: the sample has no ``occ_path``, or the file lacks an array.
        FileNotFoundError, OSError: missing or broken file.
        ValueError: an array of the wrong shape, or a BEV augmentation with rotation or scale.
    """
    _ARRAYS = ('semantics', 'mask_lidar', 'mask_camera')

    def __init__(self, grid_shape: Sequence[int] = OCC3D_SHAPE,
                 point_cloud_range: Optional[Sequence[float]] = None) -> None:
        self.grid_shape = tuple(int(number) for number in grid_shape)
        if point_cloud_range is None:
            point_cloud_range = range_of_labels(self.grid_shape)
        self.point_cloud_range = None if point_cloud_range is None else tuple(
            float(edge) for edge in point_cloud_range)

    def transform(self, results: dict) -> dict:
        """Adds ``gt_occ``."""
        if results.get('occ_path') is None:
            raise KeyError(f'sample {results.get("token")} has no occ_path: without labels leave '
                           'LoadOccGTFromFile out of the pipeline')
        axes = self._flipped_axes(results.get('bev_aug_matrix', np.eye(4)))
        arrays = {name: np.ascontiguousarray(np.flip(array, axes)) for name, array in
                  self._read(results['occ_path']).items()}
        place = self.point_cloud_range
        results['gt_occ'] = OccData(
            metainfo={} if place is None else dict(point_cloud_range=place),
            semantics=torch.from_numpy(arrays['semantics'].astype(np.uint8)),
            mask_lidar=torch.from_numpy(arrays['mask_lidar'].astype(bool)),
            mask_camera=torch.from_numpy(arrays['mask_camera'].astype(bool)))
        return results

    def _read(self, path: str) -> dict:
        try:
            with np.load(path) as file:
                missing = [name for name in self._ARRAYS if name not in file.files]
                if missing:
                    raise KeyError(f'{path}: no array {missing}; it has {file.files}')
                arrays = {name: file[name] for name in self._ARRAYS}
        except FileNotFoundError as error:
            raise FileNotFoundError(f'occupancy labels not found: {path}; without labels leave '
                                    'LoadOccGTFromFile out of the pipeline') from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise OSError(f'cannot read occupancy labels {path}: {error}') from error
        for name, array in arrays.items():
            if array.shape != self.grid_shape:
                raise ValueError(f'{path}: {name} has shape {array.shape}, expected '
                                 f'{self.grid_shape} (X, Y, Z): set grid_shape of '
                                 'LoadOccGTFromFile')
        return arrays

    @staticmethod
    def _flipped_axes(matrix: np.ndarray) -> List[int]:
        signs = np.diag(matrix)
        is_flip = np.array_equal(np.abs(matrix), np.eye(4)) and (signs[2:] > 0).all()
        if not is_flip:
            raise ValueError('occupancy labels can follow flips in x and y only, not rotation or '
                             f'scale; bev_aug_matrix is {np.asarray(matrix).tolist()}')
        return [axis for axis in (0, 1) if signs[axis] < 0]

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(grid_shape={self.grid_shape}, '
                f'point_cloud_range={self.point_cloud_range})')


@TRANSFORMS.register_module()
class PointToMultiViewDepth(BaseTransform):
    """LiDAR z-depth in the key frame's augmented images: ``gt_depth`` (N, H, W) m, 0 = none.

    Every camera is reached through global, with its own ego pose at its own time. A point belongs
    to the cell whose centre is nearest; of several the nearest point stays. Reads ``points``
    (LiDAR frame), ``rig`` and ``imgs``, so it comes after ``LoadPointsFromFile`` and
    :class:`PrepareImageInputs`.

    Args:
        grid_config: ``depth`` = (low, high, step) in metres; points outside [low, high) are left
            out.
        downsample: side of a cell in pixels.
    """

    def __init__(self, grid_config: dict, downsample: int = 1) -> None:
        self.depth_range = tuple(float(number) for number in grid_config['depth'][:2])
        self.downsample = int(downsample)

    def transform(self, results: dict) -> dict:
        """Adds ``gt_depth``."""
        points = results['points'].tensor[:, :3].numpy()
        key_info, rig = results['frames'][0], results['rig'].frame(0)
        maps = []
        for i, camera in enumerate(results['camera_names']):
            pixels, depths = project(points, lidar_to_camera(key_info, camera),
                                     rig.cam2img[i].numpy(), rig.img_aug_matrix[i].numpy())
            maps.append(self._depth_map(pixels, depths, results['imgs'].shape[-2:]))
        results['gt_depth'] = torch.from_numpy(np.stack(maps))
        return results

    def _depth_map(self, pixels: np.ndarray, depths: np.ndarray,
                   image_size: Tuple[int, int]) -> np.ndarray:
        """(H / downsample, W / downsample) float32, the smallest depth of every cell."""
        height, width = (side // self.downsample for side in image_size)
        near, far = self.depth_range
        keep = (depths >= near) & (depths < far) & np.isfinite(pixels).all(axis=1)
        cells = np.floor((pixels[keep] + 0.5) / self.downsample)
        depths = depths[keep].astype(np.float32)
        inside = ((cells >= 0) & (cells < [width, height])).all(axis=1)
        columns, rows = cells[inside].astype(np.int64).T
        depth_map = np.full(height * width, np.inf, dtype=np.float32)
        np.minimum.at(depth_map, rows * width + columns, depths[inside])
        return np.where(np.isinf(depth_map), np.float32(0), depth_map).reshape(height, width)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(depth_range={self.depth_range}, '
                f'downsample={self.downsample})')
