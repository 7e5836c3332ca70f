"""Pixels drawn from images, and the rays through them.

Pixels are those of original images; integer = pixel centre. Frames of reference: camera -> ego at
the camera's time -> global -> key ego.

Legend: R rays, G groups of pixels, F ray frames, N cameras.
"""
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch

from voxelrender import RayBundle, pixels_to_rays

from ..teachers.base import image_of
from .geometry import camera_to_global, homogeneous


@dataclass(frozen=True)
class PixelDraw:
    """Pixels that a source drew.

    Attributes:
        frames: (R,) int64, index in ``results['ray_frames']``.
        cameras: (R,) int64, index in ``results['camera_names']``.
        pixels: (R, 2) float64 (u, v) in original images.
        distances: (R,) float64, metres from the camera centre; nan = unknown.
        classes: (R,) int64 of a source that labels its pixels, -1 = unknown; or None.
    """
    frames: np.ndarray
    cameras: np.ndarray
    pixels: np.ndarray
    distances: np.ndarray
    classes: Optional[np.ndarray] = None

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: np.ndarray) -> 'PixelDraw':
        return PixelDraw(self.frames[index], self.cameras[index], self.pixels[index],
                         self.distances[index],
                         None if self.classes is None else self.classes[index])


def draw_from_groups(counts: np.ndarray, num_rays: int, rng: np.random.Generator
                     ) -> Tuple[np.ndarray, np.ndarray]:
    """Draw uniformly without replacement from the union of G groups.

    Args:
        counts: (G,) sizes of the groups.
        num_rays: R; all members are taken where there are fewer.
        rng: Random numbers.

    Returns:
        Group (R,) and index within the group (R,), sorted by group.
    """
    ends = np.cumsum(np.asarray(counts, dtype=np.int64))
    total = int(ends[-1]) if len(ends) else 0
    if total <= num_rays:
        chosen = np.arange(total)
    else:
        chosen = np.sort(rng.choice(total, num_rays, replace=False, shuffle=False))
    groups = np.searchsorted(ends, chosen, side='right')
    return groups, chosen - (ends - counts)[groups] if len(ends) else chosen


def draw_to_rays(results: Dict[str, Any], draw: PixelDraw) -> RayBundle:
    """Rays of drawn pixels in the (augmented) key ego frame.

    Composed in float64 and rounded to float32 at the end. ``bev_aug_matrix`` is applied where
    ``results`` has it.

    Args:
        results: ``ray_frames``, ``camera_names``, ``key_ego2global``, ``token``; where it is there,
            ``ray_ego2global`` is taken for ``key_ego2global`` (published pipeline).
        draw: R pixels.

    Returns:
        R rays with target 'distances'; ``frame_ids`` are offsets from the key frame, 0 also for a
        copy of the key frame that stands in for one outside the scene.
    """
    frames, cameras = results['ray_frames'], results['camera_names']
    bev_aug, global2key = _key_frame(results)
    used, inverse = np.unique(draw.frames * len(cameras) + draw.cameras, return_inverse=True)
    cam2img, cam2key = np.empty((2, len(used), 4, 4))
    for i, group in enumerate(used):
        info, camera = frames[group // len(cameras)]['info'], cameras[group % len(cameras)]
        cam2img[i] = homogeneous(image_of(info, camera)['cam2img'])
        cam2key[i] = global2key @ camera_to_global(info, camera)
    origins, directions = pixels_to_rays(
        torch.from_numpy(draw.pixels), torch.from_numpy(cam2img[inverse]),
        torch.from_numpy(cam2key[inverse]))
    offsets = np.array([0 if frame['info']['token'] == results['token'] else frame['offset']
                        for frame in frames], dtype=np.int64)
    rays = RayBundle(
        origins, directions, torch.from_numpy(draw.cameras),
        torch.from_numpy(offsets[draw.frames]),
        dict(distances=torch.from_numpy(draw.distances))).transformed(bev_aug)
    return RayBundle(rays.origins.float(), rays.directions.float(), rays.camera_ids,
                     rays.frame_ids, dict(distances=rays.targets['distances'].float()))


def ego_poses(results: Dict[str, Any]) -> torch.Tensor:
    """(F, 3, 4) float32: ego frame of each ray frame -> (augmented) key ego frame.

    Of the infos' ``ego2global``; ``results`` as for :func:`draw_to_rays`.
    """
    bev_aug, global2key = _key_frame(results)
    ego2global = np.array([homogeneous(frame['info']['ego2global'])
                           for frame in results['ray_frames']])
    return (bev_aug @ torch.from_numpy(global2key @ ego2global))[:, :3].float()


def ray_scales(results: Dict[str, Any], rays: RayBundle) -> torch.Tensor:
    """(R,) float32: metres along (augmented) rays per metre of the world, 1 without augmentation.

    ``results`` and ``rays`` as :func:`draw_to_rays` has and gives them.
    """
    bev_aug, _ = _key_frame(results)
    in_world = rays.directions.double() @ torch.linalg.inv(bev_aug[:3, :3]).T
    return (1 / in_world.norm(dim=1)).float()


def _key_frame(results: Dict[str, Any]) -> Tuple[torch.Tensor, np.ndarray]:
    """``bev_aug_matrix`` (4, 4), identity where there is none, and global -> key ego (4, 4)."""
    key_ego2global = results.get('ray_ego2global', results['key_ego2global'])
    return (torch.as_tensor(results.get('bev_aug_matrix', np.eye(4)), dtype=torch.float64),
            np.linalg.inv(np.asarray(key_ego2global, dtype=np.float64)))
