"""The sensors of the synthetic car: six cameras and a LiDAR, mounted as on nuScenes' cars.

Frames: ego = rear axle on the road, x forward, y left, z up; camera = x right, y down, z forward
(integer pixels are pixel centres, so an image spans [-0.5, W - 0.5]); LiDAR = x right, y forward,
z up, as nuScenes mounts it. Metres, seconds, degrees where a name says so.

Fields of view are the data sheet's, 70 degrees at the front and sides and 110 at the back; the
rectified images of nuScenes show somewhat less (65 and 89), so here the ring closes with more
overlap.
"""
from dataclasses import dataclass
from typing import Dict, Tuple

import numpy as np

REFERENCE_WIDTH, REFERENCE_HEIGHT = 1600, 900
LIDAR_CHANNEL = 'LIDAR_TOP'


@dataclass(frozen=True)
class CameraMount:
    """Where a camera is on the car, where it looks and when it fires.

    Attributes:
        position: metres, ego frame.
        yaw: degrees, 0 forward, positive to the left.
        pitch, roll: degrees of misalignment; positive pitch looks down.
        fov: degrees, horizontal.
        principal_point: pixels (u, v) at 1600 x 900, integer = pixel centre.
        delay: seconds after the LiDAR of the key frame; nuScenes' cameras fire when the LiDAR's
            beam sweeps over them.
    """
    position: Tuple[float, float, float]
    yaw: float
    pitch: float
    roll: float
    fov: float
    principal_point: Tuple[float, float]
    delay: float


CAMERAS: Dict[str, CameraMount] = {
    'CAM_FRONT_LEFT': CameraMount((1.52, 0.49, 1.51), 55., 0.4, -0.3, 70., (813., 444.), -0.043),
    'CAM_FRONT': CameraMount((1.70, 0.02, 1.51), 0.3, 0.2, 0.1, 70., (804., 452.), -0.035),
    'CAM_FRONT_RIGHT': CameraMount((1.55, -0.49, 1.50), -55.6, 0.3, 0.2, 70., (797., 456.), -0.027),
    'CAM_BACK_LEFT': CameraMount((1.04, 0.48, 1.59), 108.5, 0.5, -0.1, 70., (792., 454.), -0.001),
    'CAM_BACK': CameraMount((0.03, 0.00, 1.58), 180.2, 0.6, 0.2, 110., (806., 446.), -0.010),
    'CAM_BACK_RIGHT': CameraMount((1.01, -0.48, 1.56), -109.4, 0.2, 0.3, 70., (796., 458.), -0.019),
}
CHANNELS: Tuple[str, ...] = (*CAMERAS, LIDAR_CHANNEL)
LIDAR_POSITION = (0.94, 0., 1.84)
# Seconds that a shot is off its camera's delay at most.
SHUTTER_JITTER = 0.001


def yaw_pitch_roll(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) rotation Rz(yaw) Ry(pitch) Rx(roll), degrees."""
    yaw, pitch, roll = np.deg2rad([yaw, pitch, roll])
    cosine, sine = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_z = np.array([[cosine[0], -sine[0], 0], [sine[0], cosine[0], 0], [0, 0, 1]])
    about_y = np.array([[cosine[1], 0, sine[1]], [0, 1, 0], [-sine[1], 0, cosine[1]]])
    about_x = np.array([[1, 0, 0], [0, cosine[2], -sine[2]], [0, sine[2], cosine[2]]])
    return about_z @ about_y @ about_x


def camera_intrinsics(channel: str, size: Tuple[int, int]) -> np.ndarray:
    """(3, 3) float64 ``cam2img`` of a camera for images of ``size`` (W, H) pixels.

    The reference image of 1600 x 900 is resampled to ``size``: pixel u becomes (u + 0.5) s - 0.5.

    Raises:
        ValueError: ``size`` is not positive, or not 16:9 to half a pixel's worth.
    """
    width, height = size
    if min(width, height) < 1 or abs(width * 9 / 16 - height) > 1:
        raise ValueError(f'image size is {size}, expected (W, H) positive and 16:9')
    mount = CAMERAS[channel]
    focal = REFERENCE_WIDTH / 2 / np.tan(np.deg2rad(mount.fov) / 2)
    scale = np.array([width / REFERENCE_WIDTH, height / REFERENCE_HEIGHT])
    centre = (np.array(mount.principal_point) + 0.5) * scale - 0.5
    return np.array([[focal * scale[0], 0., centre[0]], [0., focal * scale[1], centre[1]],
                     [0., 0., 1.]])


def sensor_to_ego(channel: str) -> np.ndarray:
    """(4, 4) float64: where a camera or the LiDAR is on the car."""
    matrix = np.eye(4)
    if channel == LIDAR_CHANNEL:
        matrix[:3, :3] = yaw_pitch_roll(-90., 0., 0.)
        matrix[:3, 3] = LIDAR_POSITION
        return matrix
    mount = CAMERAS[channel]
    axes = np.array([[0., 0., 1.], [-1., 0., 0.], [0., -1., 0.]])  # camera -> x forward, z up
    matrix[:3, :3] = yaw_pitch_roll(mount.yaw, mount.pitch, mount.roll) @ axes
    matrix[:3, 3] = mount.position
    return matrix


def shutter_delay(channel: str, rng: np.random.Generator) -> float:
    """Seconds from the LiDAR's time to a camera's, with a millisecond of jitter; 0 for the LiDAR.

    Args:
        channel: camera or LiDAR.
        rng: random numbers of this frame and sensor.
    """
    if channel == LIDAR_CHANNEL:
        return 0.
    return CAMERAS[channel].delay + float(rng.uniform(-SHUTTER_JITTER, SHUTTER_JITTER))
