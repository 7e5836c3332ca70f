"""Segmenter probabilities times text embeddings: a dense teacher in CLIP's text space.

feature(pixel) = normalise(sum_c p_c(pixel) t_c), with p the class probabilities without background,
renormalised, and t_c the text embedding of class c.

Legend: P pixels, C classes, E embedding, (h, w) size of the map.
"""
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from .base import Teacher, image_of
from .sampling import LRUCache, sample_map
from .text import PathLike, TextEncoder

CITYSCAPES_CLASSES = ('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light',
                      'traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car',
                      'truck', 'bus', 'train', 'motorcycle', 'bicycle')
CITYSCAPES_DYNAMIC = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')


@TASK_UTILS.register_module()
class ProbabilityTeacher(Teacher):
    """Teacher from stored class probabilities.

    Files: ``{root}/{sample_data_token}.npz`` with ``probs`` (C + 1, h, w), uint8 (probability x
    255) or floating, covering the whole image; the last channel is background.

    Args:
        root: Folder of the files.
        text_encoder: A :class:`TextEncoder` or its config.
        class_names: The C classes in channel order.
        prompts: The text of each class; None takes the class names.
        background: Whether the map has a background channel after the classes.
        dynamic_classes: See :class:`Teacher`; None is Cityscapes' eight movers, those it has.
        sky_classes: See :class:`Teacher`; None is ``('sky',)`` if it has that class.
        ground_classes: See :class:`Teacher`.
        parity_half_pixel: See :func:`sample_map`.
        cache_size: Maps kept in memory (160 KiB each at 20 x 64 x 128).
    """

    def __init__(self,
                 root: PathLike,
                 text_encoder: Union[TextEncoder, dict],
                 class_names: Sequence[str] = CITYSCAPES_CLASSES,
                 prompts: Optional[Sequence[str]] = None,
                 background: bool = True,
                 dynamic_classes: Optional[Sequence[str]] = None,
                 sky_classes: Optional[Sequence[str]] = None,
                 parity_half_pixel: bool = False,
                 cache_size: int = 160,
                 ground_classes: Optional[Sequence[str]] = None) -> None:
        if dynamic_classes is None:
            dynamic_classes = [name for name in CITYSCAPES_DYNAMIC if name in class_names]
        if sky_classes is None:
            sky_classes = [name for name in ('sky',) if name in class_names]
        super().__init__(class_names, dynamic_classes, sky_classes, ground_classes)
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f'teacher probabilities: no folder {self.root}')
        if isinstance(text_encoder, dict):
            text_encoder = TASK_UTILS.build(text_encoder)
        words = list(class_names if prompts is None else prompts)
        if len(words) != len(self.class_names):
            raise ValueError(f'{len(words)} prompts for {len(self.class_names)} classes')
        self.text_embeds = text_encoder.encode(words)
        self.num_channels = len(self.class_names) + int(background)
        self.parity_half_pixel = parity_half_pixel
        self._cache = LRUCache(cache_size)

    @property
    def embed_dims(self) -> int:
        """E of the text embeddings."""
        return self.text_embeds.shape[1]

    def probabilities(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """Class probabilities without background at pixels.

        Where a pixel is background alone nothing is known: it gets 1 / C for every class.

        Args:
            info, camera, pixels: See :meth:`Teacher.features`.

        Returns:
            (P, C) float32, rows sum to 1.
        """
        image = image_of(info, camera)
        path = self.root / f'{image["sample_data_token"]}.npz'
        stored = self._cache.get(path, lambda: self._load(path))
        raw = sample_map(stored, np.asarray(pixels), (image['width'], image['height']),
                         self.parity_half_pixel)
        classes = torch.from_numpy(raw)[:, :len(self.class_names)].clamp(min=0)
        total = classes.sum(dim=1, keepdim=True)
        uniform = torch.full_like(classes, 1 / classes.shape[1])
        return torch.where(total > 0, classes / total.clamp(min=1e-12), uniform)

    def features(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """See :meth:`Teacher.features`."""
        return F.normalize(self.probabilities(info, camera, pixels) @ self.text_embeds, dim=1)

    def classes(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """Most probable class at pixels, (P,) long; -1 where all are equal (background alone)."""
        probabilities = self.probabilities(info, camera, pixels)
        best, index = probabilities.max(dim=1)
        unknown = best <= probabilities.min(dim=1).values
        return index.masked_fill(unknown, -1)

    def _load(self, path: Path) -> np.ndarray:
        if not path.is_file():
            raise FileNotFoundError(f'teacher probabilities {path} do not exist')
        try:
            with np.load(path, allow_pickle=False) as archive:
                if 'probs' not in archive.files:
                    raise ValueError(f"no array 'probs', only {archive.files}")
                probs = archive['probs']
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f'cannot read teacher probabilities {path}: {error}') from error
        if probs.ndim != 3 or probs.shape[0] != self.num_channels or 0 in probs.shape:
            raise ValueError(f'{path}: probs has shape {probs.shape}, expected '
                             f'({self.num_channels}, h, w)')
        if probs.dtype != np.uint8 and not np.issubdtype(probs.dtype, np.floating):
            raise ValueError(f'{path}: probs is {probs.dtype}, expected uint8 or floating')
        return probs
