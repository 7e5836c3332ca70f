"""What other images show along a pixel's ray: a plane sweep for every drawn pixel.

A static, matt surface has the same colour in every image that sees it. So the difference of colours
at each candidate distance says where a ray may end: from images and poses alone. Pixels are those
of original images; integer = pixel centre.

Legend: R pixels of one image, P cells of a patch, D candidate distances.
"""
from typing import Any, Callable, Dict, List, Sequence, Tuple

import cv2
import numpy as np
from mmdet3d.registry import TASK_UTILS

from ..teachers.base import image_of
from ..teachers.sampling import LRUCache
from .depth_maps import ray_lengths
from .geometry import camera_to_global, homogeneous

# Record of an image (``image_of``) -> (H, W, 3) uint8.
ImageReader = Callable[[Dict[str, Any]], np.ndarray]
PLANES = ('facing', 'horizontal')
# Disparities of a patch's cells over its centre's: a horizontal plane seen at the horizon has any.
_SHARES = 0.5, 2.
# OpenCV maps to images of less than 32,768 pixels a side.
_MOST_ROWS = 4096


@TASK_UTILS.register_module()
class PhotometricSweep:
    """How much a pixel's patch differs from what its camera saw in other frames, by distance.

    Candidates are even in disparity (1 / distance), as their pixels in other images are, and one
    lies at infinity for what is beyond. The patch is taken for a piece of a plane, one that faces
    its camera or a horizontal one, as the road is: whichever fits better (sweeps in several
    directions, Gallup et al., CVPR 2007). Where several images see it, the most similar counts
    (Monodepth2, arXiv 1806.01260): in front of the others something may stand. What moves, shines
    or has no texture misleads or says nothing.

    Args:
        near, far: Metres along the optical axis between which D - 1 candidates lie.
        num_distances: D - 1.
        offsets: Frames to compare with, counted from the pixel's own. Those outside ``ray_frames``
            (the data set's ``ray_frame_ids``) are left out.
        patch: Cells a side, odd.
        downscale: Images are averaged to 1 / ``downscale`` of their size before, and a cell is so
            many pixels wide. Candidates should lie about a cell apart in other images.
        planes: Some of 'facing' and 'horizontal' (in the ego frame).
        cache_size: Images of that size kept in memory (0.1 MB each at 128 x 72).

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(self, near: float = 2.5, far: float = 40., num_distances: int = 96,
                 offsets: Sequence[int] = (-1, 1), patch: int = 5, downscale: int = 2,
                 planes: Sequence[str] = PLANES, cache_size: int = 0) -> None:
        if not 0 < near < far:
            raise ValueError(f'PhotometricSweep: near is {near} m and far {far} m, expected '
                             '0 < near < far')
        if num_distances < 2:
            raise ValueError(f'PhotometricSweep: num_distances is {num_distances}, expected at '
                             'least 2')
        if patch < 1 or patch % 2 == 0:
            raise ValueError(f'PhotometricSweep: patch is {patch}, expected an odd number')
        if downscale < 1:
            raise ValueError(f'PhotometricSweep: downscale is {downscale}, expected at least 1')
        if not offsets or 0 in offsets:
            raise ValueError(f'PhotometricSweep: offsets are {list(offsets)}, expected frames '
                             'other than the own, 0')
        if not planes or set(planes) - set(PLANES):
            raise ValueError(f'PhotometricSweep: planes are {list(planes)}, expected some of '
                             f'{list(PLANES)}')
        self.disparities = np.append(np.linspace(1 / near, 1 / far, num_distances), 0)
        self.offsets, self.planes = tuple(offsets), tuple(planes)
        self.downscale = downscale
        steps = np.arange(patch) - patch // 2
        self.cells = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) * downscale
        self._images = LRUCache(cache_size)

    def __len__(self) -> int:
        """D."""
        return len(self.disparities)

    def costs(self, frames: Sequence[Dict[str, Any]], index: int, camera: str, pixels: np.ndarray,
              read: ImageReader) -> Tuple[np.ndarray, np.ndarray]:
        """Candidate distances of one image's pixels and what each costs.

        Args:
            frames: ``ray_frames`` of a sample.
            index: Of the image's frame among them.
            camera: Name.
            pixels: (R, 2) (u, v).
            read: Gives original images.

        Returns:
            distances (R, D) float64, metres along the rays, the last one infinite; costs (R, D)
            float32, mean absolute difference of colours in [0, 1], nan where no other image sees
            all of the patch.
        """
        info = frames[index]['info']
        record = image_of(info, camera)
        patches = pixels[:, None] + self.cells
        ones = np.ones((*patches.shape[:2], 1))
        in_camera = (np.concatenate([patches, ones], axis=-1)
                     @ np.linalg.inv(homogeneous(record['cam2img'])[:3, :3]).T)
        with np.errstate(divide='ignore'):
            distances = ray_lengths(pixels, record['cam2img'])[:, None] / self.disparities
        slopes = [self._slope(plane, in_camera, record['cam2ego']) for plane in self.planes]
        own, _ = self._colours(record, patches[..., :1], patches[..., 1:], read)
        own = np.repeat(own, len(self), axis=2)  # broadcast, three colours at a time, it is slow
        costs = np.full(distances.shape, np.nan, dtype=np.float32)
        cam2global = camera_to_global(info, camera)
        for other in _others(frames, info['token'], self.offsets):
            record = image_of(other, camera)
            matrix = np.linalg.inv(camera_to_global(other, camera)) @ cam2global
            for shares in slopes:
                x, y, front = self._places(in_camera, shares, matrix, record)
                colours, inside = self._colours(record, x, y, read)
                values = np.abs(colours - own).sum(axis=1).mean(axis=-1) / len(self.cells)
                seen = (inside & front).all(axis=1)
                costs = np.fmin(costs, np.where(seen, values, np.float32(np.nan)))
        return distances, costs

    def _slope(self, plane: str, in_camera: np.ndarray, cam2ego: np.ndarray) -> np.ndarray:
        """(R, P): disparity of each cell of a patch on a plane, as a share of its centre's.

        Args:
            plane: Of ``PLANES``.
            in_camera: (R, P, 3) at unit depth.
            cam2ego: (4, 4).
        """
        if plane == 'facing':
            return np.ones(in_camera.shape[:2])
        heights = in_camera @ homogeneous(cam2ego)[2, :3]
        middle = heights[:, len(self.cells) // 2, None]
        shares = heights / np.where(np.abs(middle) < 1e-6, 1e-6, middle)
        return np.clip(shares, *_SHARES)

    def _places(self, in_camera: np.ndarray, shares: np.ndarray, matrix: np.ndarray,
                record: Dict[str, Any]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """u, v in another image and whether in front of it, each (R, P, D).

        Args:
            in_camera: (R, P, 3) at unit depth.
            shares: (R, P), disparity of each cell over that of the patch's centre.
            matrix: (4, 4), this camera -> the other.
            record: The other image's.
        """
        cam2img = homogeneous(record['cam2img'])[:3, :3]
        turned = (in_camera @ (cam2img @ matrix[:3, :3]).T).astype(np.float32)
        disparities = (shares[..., None] * self.disparities).astype(np.float32)
        x, y, depth = (turned[..., axis, None] + np.float32(moved) * disparities
                       for axis, moved in enumerate(cam2img @ matrix[:3, 3]))
        front = depth > 1e-6
        depth[~front] = 1
        return x / depth, y / depth, front

    def _colours(self, record: Dict[str, Any], x: np.ndarray, y: np.ndarray, read: ImageReader
                 ) -> Tuple[np.ndarray, np.ndarray]:
        """Colours (R, P, D, 3) float32 in [0, 1] at u, v (R, P, D), and which are inside."""
        image = self._images.get(record['img_path'], lambda: self._shrink(read(record)))
        places, inside = [], True
        for values, size, small in ((x, record['width'], image.shape[1]),
                                    (y, record['height'], image.shape[0])):
            inside = inside & (values >= -0.5) & (values <= size - 0.5)
            values = (np.clip(values, -1, size) + 0.5) * (small / size) - 0.5
            places.append(np.split(values.astype(np.float32).reshape(len(values), -1),
                                   range(_MOST_ROWS, len(values), _MOST_ROWS)))
        colours = np.concatenate([
            cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for columns, rows in zip(*places)])
        return colours.reshape(*x.shape, 3), inside

    def _shrink(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32 in [0, 1], of 1 / ``downscale`` the size."""
        height, width = (-(-side // self.downscale) for side in image.shape[:2])
        if self.downscale > 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(image, dtype=np.float32) / 255


def _others(frames: Sequence[Dict[str, Any]], token: str, offsets: Sequence[int]
            ) -> List[Dict[str, Any]]:
    """Infos of the frames at ``offsets`` from the frame ``token``.

    A frame outside the scene is a copy of the key frame, so of all frames with one token the one
    with the smallest offset says where it is.
    """
    true: Dict[str, Dict[str, Any]] = {}
    for frame in sorted(frames, key=lambda frame: abs(frame['offset'])):
        true.setdefault(frame['info']['token'], frame)
    wanted = {true[token]['offset'] + offset for offset in offsets}
    return [frame['info'] for frame in true.values() if frame['offset'] in wanted]
