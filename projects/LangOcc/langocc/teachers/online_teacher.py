"""Targets of rays from images, on the spot: no feature is stored anywhere.

The network runs on the device of the rays, on the few images that they were drawn from, and its
maps are read at their pixels by the rule of :mod:`.sampling`. What comes out is what the same
teacher's stored maps would give.

Legend: R rays of a batch, M different images of a batch, E embedding, (H, W) size of an image.
"""
from dataclasses import replace
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from voxelrender import RayBundle

from ..structures import RayImages
from .class_names import class_demands
from .dense_teacher import DenseTeacher, one_size_batches
from .sampling import sample_tensor_maps


class OnlineTeacher:
    """A dense teacher that makes the targets of a batch's rays where the model is.

    No module on purpose: what holds it has the teacher's weights neither among its parameters nor
    in its checkpoints, and a copy of that (averaged weights) shares them. They follow the rays to
    their device.

    Args:
        teacher: A :class:`DenseTeacher`, or its config, built when first needed.
    """

    def __init__(self, teacher: Union[DenseTeacher, dict]) -> None:
        self._config = teacher
        self._teacher: Optional[DenseTeacher] = None
        self._device: Optional[torch.device] = None

    def __deepcopy__(self, memo: dict) -> 'OnlineTeacher':
        return self  # frozen: copies of a model share it

    def build(self) -> DenseTeacher:
        """The teacher.

        Raises:
            TypeError: the config is of a teacher that makes no maps.
            FileNotFoundError, ValueError: as the teacher's own, for instance without its weights.
        """
        if self._teacher is None:
            teacher = self._config
            if isinstance(teacher, dict):
                teacher = TASK_UTILS.build(teacher)
            if not isinstance(teacher, DenseTeacher):
                raise TypeError(f'online_teacher is a {type(teacher).__name__}, which makes no '
                                'maps from images; expected a DenseTeacher')
            self._teacher = teacher
        return self._teacher

    @torch.no_grad()
    def __call__(self, rays: Sequence[RayBundle], images: Sequence[RayImages]) -> List[RayBundle]:
        """Rays with the targets that their images ask for.

        Args:
            rays: a bundle a sample, all on one device.
            images: where they were drawn from, likewise.

        Returns:
            The bundles with targets 'lang_feats' (R, E), 'classes', 'sky' and 'ground' (R,), those
            of ``RayImages.targets``; without the rays that ``RayImages.mask_dynamic`` drops.

        Raises:
            ValueError: classes are asked of a teacher that has none; other numbers of rays.
        """
        for bundle, item in zip(rays, images):
            self._check(bundle, item)
        device, wants_classes = rays[0].device, any(
            class_demands(item.targets, item.mask_dynamic) for item in images)
        with torch.autocast(device.type, enabled=False):  # the teacher has a precision of its own
            feats, classes = self._look_up(images, device, wants_classes)
        sizes = [len(item) for item in images]
        return [self._with_targets(*parts) for parts in zip(
            rays, images, feats.split(sizes), classes.split(sizes))]

    def _check(self, rays: RayBundle, images: RayImages) -> None:
        teacher = self.build()
        if len(rays) != len(images):
            raise ValueError(f'{len(rays)} rays with the pixels of {len(images)}')
        teacher.check_targets(images.targets, images.mask_dynamic)

    def _look_up(self, images: Sequence[RayImages], device: torch.device, wants_classes: bool
                 ) -> Tuple[Tensor, Tensor]:
        """Unit features (R, E) of all rays, and their classes (R,), -1 where not wanted."""
        teacher = self.build()
        if self._device != device:
            teacher.to(device)
            self._device = device
        pictures, ids = _different_images(images, device)
        pixels = torch.cat([item.pixels for item in images])
        feats = torch.zeros(len(pixels), teacher.embed_dims, device=device)
        classes = torch.full((len(pixels), ), -1, dtype=torch.long, device=device)
        for chunk in one_size_batches(
                [picture.shape for picture in pictures], teacher.chunk_size):
            height, width = pictures[chunk[0]].shape[1:]
            maps = teacher.maps(torch.stack([pictures[place] for place in chunk]))
            place_of = torch.full((len(pictures), ), -1, dtype=torch.long, device=device)
            place_of[chunk] = torch.arange(len(chunk), device=device)
            rows = torch.nonzero(place_of[ids] >= 0)[:, 0]
            map_ids = place_of[ids[rows]]
            values = sample_tensor_maps(maps, map_ids, pixels[rows], (width, height),
                                        teacher.parity_half_pixel)
            feats[rows] = F.normalize(values, dim=1)
            if wants_classes:
                kept = teacher.kept_prompts(maps)
                classes[rows] = teacher.nearest_prompt(feats[rows],
                                                       None if kept is None else kept[map_ids])
        return feats, classes

    def _with_targets(self, rays: RayBundle, images: RayImages, feats: Tensor, classes: Tensor
                      ) -> RayBundle:
        made = dict(lang_feats=feats, **self._teacher.targets_of(classes, images.targets))
        rays = replace(rays, targets={**rays.targets,
                                      **{name: made[name] for name in images.targets}})
        if images.mask_dynamic:  # offset 0 is the key frame, or a copy of it
            rays = rays[(rays.frame_ids == 0) | ~self._teacher.is_dynamic(classes)]
        return rays


def _different_images(images: Sequence[RayImages], device: torch.device
                      ) -> Tuple[List[Tensor], Tensor]:
    """Each image of a batch once, and (R,) long: the image of each ray among them."""
    places: Dict[str, int] = {}
    pictures: List[Tensor] = []
    ids = []
    for item in images:
        for token, picture in zip(item.tokens, item.images):
            if token not in places:
                places[token] = len(pictures)
                pictures.append(picture)
        table = torch.tensor([places[token] for token in item.tokens], dtype=torch.long,
                             device=device)
        ids.append(table[item.image_ids])
    return pictures, torch.cat(ids)
