"""What one camera sees of a volume, as maps; and the rays of its pixels.

Legend: N cameras; h, w rows and columns of a map, which covers the whole original image; R = h * w
rays, row by row; E feature dimensions; K classes.
"""
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F

from voxelrender import RayBundle, pixels_to_rays

from ..datasets.geometry import camera_to_global, homogeneous

# Yaw in degrees, left positive, where the ring of cameras is cut open: beside the rear camera.
_SEAM = 145.


@dataclass
class CameraMaps:
    """What one camera sees.

    Attributes:
        distances: (h, w) float32, metres along the ray; nan where a ray meets nothing.
        opacities: (h, w) float32 in [0, 1].
        classes: (h, w) uint8, Occ3D classes; 17 where a ray meets nothing.
        feats: (h, w, E) float32, rendered language features, not normalised; None without.
        rgb: (h, w, 3) float32 in [0, 1], rendered colour, black where a ray meets nothing; None
            without.
        class_feats: (K, E) float32, what ``feats`` of each Occ3D class should be: the mean of its
            words' text embeddings, unit length, nan for a class without a word; the same in every
            camera. None without a vocabulary.
    """
    distances: np.ndarray
    opacities: np.ndarray
    classes: np.ndarray
    feats: Optional[np.ndarray] = None
    rgb: Optional[np.ndarray] = None
    class_feats: Optional[np.ndarray] = None


# Camera name -> what it sees.
RigMaps = Dict[str, CameraMaps]


def camera_rays(info: Mapping, camera: str, width: int, ego_key: str = 'key_ego2global'
                ) -> Tuple[RayBundle, Tuple[int, int]]:
    """Rays of ``width`` columns of pixels, spread evenly over a camera's original image.

    Args:
        info: a sample's info or the metainfo of its data sample.
        camera: channel.
        width: columns; rows follow from the image's aspect.
        ego_key: key of the (4, 4) pose whose ego frame the rays are in: ``'key_ego2global'`` (the
            volume's) or ``'ego2global'`` (the labels').

    Returns:
        (R,) rays, float32 metres, and (h, w).

    Raises:
        KeyError: the sample has no such camera.
        ValueError: ``width`` is not positive.
    """
    if camera not in info['images']:
        raise KeyError(f'sample {info.get("token")} has no camera {camera!r}; it has '
                       f'{sorted(info["images"])}')
    if width < 1:
        raise ValueError(f'width of a map must be at least 1 pixel, got {width}')
    image = info['images'][camera]
    height = max(round(width * image['height'] / image['width']), 1)
    # Pixel rule: integer = centre; the image spans [-0.5, W - 0.5].
    u = (torch.arange(width) + 0.5) * image['width'] / width - 0.5
    v = (torch.arange(height) + 0.5) * image['height'] / height - 0.5
    pixels = torch.stack(torch.meshgrid(u, v, indexing='xy'), -1).reshape(-1, 2).double()
    cam2ego = camera_to_ego(info, camera, ego_key)
    origins, directions = pixels_to_rays(pixels, torch.from_numpy(homogeneous(image['cam2img'])),
                                         torch.from_numpy(cam2ego))
    directions = F.normalize(directions.float(), dim=-1)
    return RayBundle(origins.float(), directions), (height, width)


def camera_to_ego(info: Mapping, camera: str, ego_key: str = 'key_ego2global') -> np.ndarray:
    """(4, 4) camera -> the ego frame of ``info[ego_key]``, through the camera's own ego pose."""
    return np.linalg.inv(homogeneous(info[ego_key])) @ camera_to_global(info, camera)


def ring_order(info: Mapping) -> List[str]:
    """The sample's ``camera_names`` from left to right, as a panorama around the car.

    nuScenes: back left, front left, front, front right, back right, back.
    """
    def place(camera: str) -> float:
        ahead = camera_to_ego(info, camera)[:2, 2]
        return (_SEAM - np.rad2deg(np.arctan2(ahead[1], ahead[0]))) % 360
    return sorted(info['camera_names'], key=place)
