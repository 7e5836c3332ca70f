"""Rays with their targets for one sample.

Legend: R rays, E embedding, N cameras, M images that have rays, D candidate distances.
"""
from dataclasses import replace
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TASK_UTILS, TRANSFORMS
from torch import Tensor

from voxelrender import RayBundle

from ...structures import RayImages
from ...teachers.base import Teacher, image_of
from ...teachers.class_names import ClassNames, class_demands
from ...teachers.sampling import LRUCache, sample_map
from ..depth_maps import DepthSource
from ..photometric_sweep import PhotometricSweep
from ..pixel_draw import PixelDraw, draw_to_rays, ego_poses, ray_scales
from ..ray_sources import RaySource
from .loading import read_image

NAMES = ('rays', 'image_rays')
TARGETS = ('lang_feats', 'rgb', 'distances', 'classes', 'sky', 'ground', 'ego_poses',
           'photometric_costs')
# Those that a teacher makes.
TEACHER_TARGETS = ('lang_feats', 'classes', 'sky', 'ground')
# In place of a teacher: the model's data preprocessor has one, and is given the images.
ONLINE = 'online'


@TRANSFORMS.register_module()
class PrepareRays(BaseTransform):
    """Draw rays from the frames of a sample and look up what they should render.

    Reads ``ray_frames``, ``camera_names``, ``key_ego2global``, ``token`` and, if it is there,
    ``bev_aug_matrix``; adds ``rays``, a RayBundle in the augmented key ego frame. Only files of
    images with drawn rays are opened. A sample without any ray gives an empty bundle.

    With ``teacher='online'`` nothing is looked up here: the images that have rays are added as
    ``ray_images`` (RayImages), and ``OccDataPreprocessor(online_teacher=...)`` runs its teacher on
    them on the model's device and makes the targets then. Let the source take few images
    (``num_images``): every one of them goes through that network in every step.

    Random numbers come from numpy's global generator, which mmengine seeds per worker.

    Targets:
        lang_feats: (R, E) float32, L2-normalised; the teacher's features.
        rgb: (R, 3) float32 in [0, 1]; the original image's colour at the pixel.
        distances: (R,) float32 metres along the ray, nan = unknown; the source's (LiDAR), or those
            of ``depth``.
        classes: (R,) long, index in the teacher's classes, -1 = unknown; or in those of a source
            that labels its pixels, which the teacher is not asked for then.
        sky: (R,) bool, whether the teacher's class is one of its sky classes.
        ground: (R,) bool, whether it is one of those that lie on the ground
            (:class:`GroundPixelLoss`).
        ego_poses: (R, 3, 4) float32, ego of the ray's frame -> augmented key ego frame: where the
            car was (:class:`DrivenPathLoss`).
        photometric_costs: (R, D, 2) float32, candidate distances in metres along the ray and what
            each costs, of ``photometric`` (:class:`PhotometricLoss`).

    Args:
        source: Config of a :class:`RaySource`, or one.
        teacher: Config of a :class:`Teacher`, or one, which then runs in the data loader's worker;
            'online' for one in the model's data preprocessor; None for targets that need none.
        depth: Config of a :class:`DepthSource`, or one: stored depth maps, which then tell the
            target 'distances' instead of the source.
        photometric: Config of a :class:`PhotometricSweep`, or one, which makes the target
            'photometric_costs'.
        num_rays: R at most.
        targets: Which of the targets.
        mask_dynamic: Drop rays of frames other than the key frame at which the teacher's class is
            one of its dynamic classes: what moves is elsewhere by then.
        parity_half_pixel: Read colours half a pixel off as published (see :func:`sample_map`); the
            teacher has its own switch.
        name: Where the bundle goes: 'rays', which are rendered, or 'image_rays', pixels of the key
            frame for an :class:`ImageFeatureHead`.
        image_cache_size: Decoded images kept in memory for 'rgb', an online teacher and
            ``photometric`` (4.3 MB each at 1600 x 900).

    Raises:
        ValueError: an unknown target, one that needs a teacher or its classes and has none, or
            ``depth`` or ``photometric`` without its target.
    """

    def __init__(self,
                 source: Union[RaySource, dict],
                 teacher: Union[Teacher, dict, str, None] = None,
                 num_rays: int = 8192,
                 targets: Sequence[str] = ('lang_feats', ),
                 mask_dynamic: bool = False,
                 parity_half_pixel: bool = False,
                 image_cache_size: int = 0,
                 depth: Union[DepthSource, dict, None] = None,
                 photometric: Union[PhotometricSweep, dict, None] = None,
                 name: str = 'rays') -> None:
        self.source = TASK_UTILS.build(source) if isinstance(source, dict) else source
        self.teacher = TASK_UTILS.build(teacher) if isinstance(teacher, dict) else teacher
        self.depth = TASK_UTILS.build(depth) if isinstance(depth, dict) else depth
        self.photometric = (TASK_UTILS.build(photometric) if isinstance(photometric, dict)
                            else photometric)
        self.num_rays = num_rays
        self.name = name
        self.targets = tuple(targets)
        self.mask_dynamic = mask_dynamic
        self.parity_half_pixel = parity_half_pixel
        self._images = LRUCache(image_cache_size)
        self._check()

    @property
    def is_online(self) -> bool:
        """Whether the model's data preprocessor makes the teacher's targets."""
        return self.teacher == ONLINE

    def _check(self) -> None:
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown:
            raise ValueError(f'PrepareRays: unknown targets {unknown}; known: {list(TARGETS)}')
        if self.name not in NAMES:
            raise ValueError(f'PrepareRays: name is {self.name!r}, expected one of {list(NAMES)}')
        if self.is_online and self.name != 'rays':
            raise ValueError("PrepareRays: teacher='online' makes targets of 'rays' only, not of "
                             f'{self.name!r}')
        if self.num_rays < 1:
            raise ValueError(f'PrepareRays: num_rays is {self.num_rays}, expected at least 1')
        if self.depth is not None and 'distances' not in self.targets:
            raise ValueError("PrepareRays: depth is set, but 'distances' is not among the targets "
                             f'{list(self.targets)}')
        if (self.photometric is None) == ('photometric_costs' in self.targets):
            raise ValueError("PrepareRays: the target 'photometric_costs' and photometric, which "
                             'makes it, need each other; targets are '
                             f'{list(self.targets)}, photometric is '
                             f'{type(self.photometric).__name__}')
        if isinstance(self.teacher, str):
            self._check_online()
            return
        wants = class_demands(self.targets, self.mask_dynamic)
        feats = ['lang_feats'] * ('lang_feats' in self.targets)
        labels = self.source.labels
        if self.teacher is None and (feats or wants and labels is None):
            raise ValueError(f'PrepareRays: {wants + feats} need a teacher, none is set')
        if labels is not None:
            labels.check_targets(self.targets, self.mask_dynamic)
            wants = []
        if wants or feats:
            asked = [name for name in self.targets if labels is None or name in feats]
            self.teacher.check_targets(asked, self.mask_dynamic and labels is None)

    def _check_online(self) -> None:
        if self.teacher != ONLINE:
            raise ValueError(f"PrepareRays: teacher is {self.teacher!r}, expected a teacher's "
                             f"config, '{ONLINE}' or None")
        wants = class_demands(self.targets, self.mask_dynamic)
        if wants and self.source.labels is not None:
            raise ValueError(f"PrepareRays: {wants} are the source's, a "
                             f"{type(self.source).__name__}; teacher='{ONLINE}' would make them "
                             'too')
        if not set(self.targets) & set(TEACHER_TARGETS):
            raise ValueError(f"PrepareRays: teacher='{ONLINE}' has nothing to do: none of "
                             f'{list(TEACHER_TARGETS)} is among the targets {list(self.targets)}')

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Add the bundle to ``results``, and ``ray_images`` for an online teacher."""
        rng = np.random.default_rng(np.random.randint(2**31))
        draw = self.source.draw(results, self.num_rays, rng)
        classes = None if self.is_online else self._classes(results, draw)
        if self.mask_dynamic and not self.is_online:
            keep = self._static_or_key(results, draw, classes)
            draw, classes = draw[keep.numpy()], classes[keep]
        if self.depth is not None:
            draw = replace(draw, distances=self._distances(results, draw))
        rays = draw_to_rays(results, draw)
        distances = rays.targets.pop('distances')
        if 'rgb' in self.targets:
            rays.targets['rgb'] = self._colours(results, draw)
        if 'distances' in self.targets:
            rays.targets['distances'] = distances
        if 'ego_poses' in self.targets:
            rays.targets['ego_poses'] = ego_poses(results)[torch.from_numpy(draw.frames)]
        if self.photometric is not None:
            rays.targets['photometric_costs'] = self._photometric_costs(results, draw, rays)
        if self.is_online:
            results['ray_images'] = self._ray_images(results, draw)
        else:
            rays.targets.update(self._looked_up(results, draw, classes))
        results[self.name] = rays
        return results

    def _looked_up(self, results: Dict[str, Any], draw: PixelDraw, classes: Optional[Tensor]
                   ) -> Dict[str, Tensor]:
        """The teacher's targets."""
        targets = {}
        if 'lang_feats' in self.targets:
            targets['lang_feats'] = self._features(results, draw)
        if classes is not None:
            targets.update(self.labeller.targets_of(classes, self.targets))
        return targets

    def _ray_images(self, results: Dict[str, Any], draw: PixelDraw) -> RayImages:
        """What the teacher in the data preprocessor needs."""
        images, tokens = [], []
        image_ids = torch.empty(len(draw), dtype=torch.long)
        for index, info, camera in _images(results, draw):
            record = image_of(info, camera)
            if record['sample_data_token'] not in tokens:  # else a copy of the key frame
                tokens.append(record['sample_data_token'])
                images.append(torch.from_numpy(self._image(record)).permute(2, 0, 1).contiguous())
            image_ids[index] = tokens.index(record['sample_data_token'])
        return RayImages(
            tuple(images), tuple(tokens), image_ids, torch.from_numpy(draw.pixels),
            tuple(name for name in TEACHER_TARGETS if name in self.targets),
            self.mask_dynamic).validate()

    def _static_or_key(self, results: Dict[str, Any], draw: PixelDraw, classes: Tensor) -> Tensor:
        is_key = torch.tensor([frame['info']['token'] == results['token']
                               for frame in results['ray_frames']], dtype=torch.bool)
        return is_key[torch.from_numpy(draw.frames)] | ~self.labeller.is_dynamic(classes)

    @property
    def labeller(self) -> ClassNames:
        """Whose classes those of the rays are, unless an online teacher's."""
        return self.teacher if self.source.labels is None else self.source.labels

    def _classes(self, results: Dict[str, Any], draw: PixelDraw) -> Optional[Tensor]:
        """(R,) long classes, or None where nobody asks for them."""
        if not class_demands(self.targets, self.mask_dynamic):
            return None
        if draw.classes is not None:
            return torch.from_numpy(draw.classes)
        out = torch.full((len(draw), ), -1, dtype=torch.long)
        for index, info, camera in _images(results, draw):
            out[index] = self.teacher.classes(info, camera, torch.from_numpy(draw.pixels[index]))
        return out

    def _distances(self, results: Dict[str, Any], draw: PixelDraw) -> np.ndarray:
        """(R,) metres along the rays, of the stored depth maps."""
        out = np.empty(len(draw))
        for index, info, camera in _images(results, draw):
            out[index] = self.depth.distances(info, camera, draw.pixels[index])
        return out

    def _photometric_costs(self, results: Dict[str, Any], draw: PixelDraw, rays: RayBundle
                           ) -> Tensor:
        """(R, D, 2) candidate distances along the (augmented) rays, and their costs."""
        out = np.empty((len(draw), len(self.photometric), 2), dtype=np.float32)
        for index, _, camera in _images(results, draw):
            out[index] = np.stack(self.photometric.costs(
                results['ray_frames'], draw.frames[index[0]], camera, draw.pixels[index],
                self._image), axis=-1)
        out[..., 0] *= ray_scales(results, rays).numpy()[:, None]
        return torch.from_numpy(out)

    def _features(self, results: Dict[str, Any], draw: PixelDraw) -> Tensor:
        """(R, E) teacher features."""
        out = torch.empty(len(draw), self.teacher.embed_dims)
        for index, info, camera in _images(results, draw):
            out[index] = self.teacher.features(info, camera, torch.from_numpy(draw.pixels[index]))
        return out

    def _colours(self, results: Dict[str, Any], draw: PixelDraw) -> Tensor:
        """(R, 3) colours of original images."""
        out = torch.empty(len(draw), 3)
        for index, info, camera in _images(results, draw):
            record = image_of(info, camera)
            colours = sample_map(self._image(record).transpose(2, 0, 1), draw.pixels[index],
                                 (record['width'], record['height']), self.parity_half_pixel)
            out[index] = torch.from_numpy(colours) / 255
        return out

    def _image(self, record: Dict[str, Any]) -> np.ndarray:
        """(H, W, 3) uint8 RGB of an original image, of the size that its info says."""
        path, size = record['img_path'], (record['width'], record['height'])
        image = self._images.get(path, lambda: np.array(read_image(path)))
        if image.shape[:2] != size[::-1]:
            raise ValueError(f'image {path} has {image.shape[1]} x {image.shape[0]} pixels, '
                             f'its info says {size[0]} x {size[1]}')
        return image

    def __repr__(self) -> str:
        teacher = self.teacher if self.is_online else type(self.teacher).__name__
        return (f'{type(self).__name__}(source={type(self.source).__name__}, '
                f'teacher={teacher}, depth={type(self.depth).__name__}, '
                f'num_rays={self.num_rays}, '
                f'targets={self.targets}, mask_dynamic={self.mask_dynamic})')


def _images(results: Dict[str, Any], draw: PixelDraw
            ) -> Iterator[Tuple[np.ndarray, Dict[str, Any], str]]:
    """(indices of its rays, info, camera) of every image that has rays."""
    cameras = results['camera_names']
    groups = draw.frames * len(cameras) + draw.cameras
    order = np.argsort(groups, kind='stable')
    used, starts = np.unique(groups[order], return_index=True)
    for group, index in zip(used, np.split(order, starts[1:])):
        info = results['ray_frames'][group // len(cameras)]['info']
        yield index, info, cameras[group % len(cameras)]
