"""What is known of a sample that is to be drawn, and how its pictures are laid out.

Legend: X, Y, Z grid cells. Pictures are (H, W, 3) uint8 RGB arrays.
"""
import os
from dataclasses import dataclass
from typing import Mapping, Optional

import numpy as np
from mmengine.logging import MMLogger

from voxelrender import VoxelGrid

from ..occ3d import OCC3D_RANGE
from .camera_maps import RigMaps
from .pictures import resize_picture, with_caption

OCC3D_GRID = VoxelGrid(point_cloud_range=OCC3D_RANGE, voxel_size=(0.4, 0.4, 0.4))
GAP = 6  # pixels between pictures
TITLE, CAPTION = 19, 16  # font sizes, pixels


@dataclass
class SamplePictures:
    """What is known of a sample; a picture whose parts are None is left out.

    Attributes:
        info: metainfo: ``camera_names``, ``images``, ``key_ego2global``.
        images: camera -> (H, W, 3) uint8, original images.
        grid: of the volumes.
        prediction, truth: (X, Y, Z) Occ3D classes, 17 = free.
        mask_camera: (X, Y, Z) bool, voxels that a camera sees.
        predicted_maps, true_maps: what the cameras see of either.
        rendered: whether ``predicted_maps`` are rendered from a density field; else they are cast
            through ``prediction``.
        unseen: what becomes of voxels outside the mask: 'draw', 'pale' or 'hide'.
        far: metres, end of the distances' colours.
    """
    info: Mapping
    images: Mapping[str, np.ndarray]
    grid: VoxelGrid
    prediction: Optional[np.ndarray] = None
    truth: Optional[np.ndarray] = None
    mask_camera: Optional[np.ndarray] = None
    predicted_maps: Optional[RigMaps] = None
    true_maps: Optional[RigMaps] = None
    rendered: bool = False
    unseen: str = 'pale'
    far: float = 40.

    @property
    def source(self) -> str:
        """How a row of predicted maps came about, for its margin."""
        return 'rendered\nfrom the\nprediction' if self.rendered else 'predicted\nvoxels'


def optional_file(path: Optional[str], what: str, info: Mapping) -> Optional[str]:
    """``path`` of a sample where there is such a file; infos name labels that need not be there.

    Args:
        path: file, or None.
        what: the file is, for the warning that it is not there.
        info: of the sample.
    """
    if path is None or os.path.isfile(path):
        return path
    MMLogger.get_current_instance().warning(
        f'sample {info.get("token")}: no {what} {path}, drawn without')
    return None


def fit(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture at that width."""
    return picture if picture.shape[1] == width else resize_picture(picture, width)


def titled(picture: np.ndarray, title: str, width: int) -> np.ndarray:
    """The picture, widened with white to ``width``, under a title."""
    missing = max(width - picture.shape[1], 0)
    picture = np.pad(picture, ((0, 0), (0, missing), (0, 0)), constant_values=255)
    return with_caption(picture, title, TITLE)


def note(text: str, width: int) -> np.ndarray:
    """A line of small text."""
    return with_caption(np.zeros((0, width, 3), np.uint8), text, CAPTION - 2)


def tight(picture: np.ndarray) -> np.ndarray:
    """Without the gap that `picture_grid` leaves around."""
    return picture[GAP:-GAP, GAP:-GAP]
