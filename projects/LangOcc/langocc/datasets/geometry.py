"""Where sensors of an info are: matrices and exact projection in float64.

Legend: P points, N cameras, F frames. ``info`` is one entry of the infos file (or of ``frames``);
matrices ``a2b`` with ``p_b = a2b @ p_a``; metres; integer pixel coordinates are pixel centres.
"""
from typing import Optional, Sequence, Tuple

import numpy as np
import torch

from langocc.structures import CameraRig


def homogeneous(matrix: np.ndarray) -> np.ndarray:
    """(3, 3) or (3, 4) or (4, 4) -> (4, 4) float64."""
    matrix = np.asarray(matrix, dtype=np.float64)
    result = np.eye(4)
    result[:matrix.shape[0], :matrix.shape[1]] = matrix
    return result


def camera_to_global(info: dict, camera: str) -> np.ndarray:
    """(4, 4): through the camera's own ego pose, at its own time."""
    image = info['images'][camera]
    return homogeneous(image['ego2global']) @ homogeneous(image['cam2ego'])


def lidar_to_global(info: dict) -> np.ndarray:
    """(4, 4): through the LiDAR's own ego pose.

    Raises:
        KeyError: the sample has no LiDAR.
    """
    if 'lidar_points' not in info:
        raise KeyError(f'sample {info.get("token")} has no lidar_points')
    points = info['lidar_points']
    return homogeneous(points['ego2global']) @ homogeneous(points['lidar2ego'])


def lidar_to_camera(info: dict, camera: str) -> np.ndarray:
    """(4, 4): LiDAR -> ego at the LiDAR's time -> global -> ego at the camera's time -> camera."""
    return np.linalg.inv(camera_to_global(info, camera)) @ lidar_to_global(info)


def project(points: np.ndarray,
            sensor2cam: np.ndarray,
            cam2img: np.ndarray,
            img_aug_matrix: Optional[np.ndarray] = None) -> Tuple[np.ndarray, np.ndarray]:
    """Points -> pixels.

    Args:
        points: (P, 3) in the sensor's frame.
        sensor2cam: (4, 4).
        cam2img: (3, 3) or (4, 4).
        img_aug_matrix: (4, 4), original pixel -> augmented pixel; None = the original image.

    Returns:
        pixels (P, 2) float64, nan where the depth is not positive; z-depths (P,) in metres.
    """
    points = np.asarray(points, dtype=np.float64)
    in_camera = points @ sensor2cam[:3, :3].T + sensor2cam[:3, 3]
    in_image = in_camera @ homogeneous(cam2img)[:3, :3].T
    depths = in_camera[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = np.where(depths[:, None] > 0, in_image[:, :2] / in_image[:, 2:3], np.nan)
    if img_aug_matrix is not None:
        matrix = np.asarray(img_aug_matrix, dtype=np.float64)
        pixels = pixels @ matrix[:2, :2].T + matrix[:2, 3]
    return pixels, depths


def build_rig(frames: Sequence[dict], camera_names: Sequence[str], key_ego2global: np.ndarray,
              img_aug_matrices: np.ndarray) -> CameraRig:
    """The rig of a sample.

    Args:
        frames: F infos, key first.
        camera_names: N channels.
        key_ego2global: (4, 4).
        img_aug_matrices: (N, 4, 4), shared by the frames.

    Returns:
        CameraRig (F, N, 4, 4).
    """
    def gather(key: str) -> np.ndarray:
        return np.stack([[homogeneous(info['images'][name][key]) for name in camera_names]
                         for info in frames])

    shape = (len(frames), len(camera_names), 4, 4)
    augmentation = np.broadcast_to(np.asarray(img_aug_matrices, dtype=np.float64), shape).copy()
    return CameraRig(
        cam2img=torch.from_numpy(gather('cam2img')),
        cam2ego=torch.from_numpy(gather('cam2ego')),
        ego2global=torch.from_numpy(gather('ego2global')),
        img_aug_matrix=torch.from_numpy(augmentation),
        key_ego2global=torch.from_numpy(np.array(key_ego2global, dtype=np.float64)))
