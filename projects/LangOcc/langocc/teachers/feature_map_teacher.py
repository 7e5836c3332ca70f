"""Any dense 2D feature map from files as a teacher.

Legend: P pixels, E embedding, (h, w) size of the map.
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

from .base import image_of
from .map_files import read_array
from .sampling import LRUCache, sample_map
from .text import PathLike, TextEncoder
from .text_teacher import TextTeacher


@TASK_UTILS.register_module()
class FeatureMapTeacher(TextTeacher):
    """Teacher from stored maps (E, h, w), one file an image, covering the whole image.

    Files: ``{root}/{sample_data_token}.npy`` (memory-mapped: only the cells around the asked pixels
    are read) or ``.npz`` with one array, or with ``key``.

    Args:
        root: Folder of the files.
        embed_dims: E.
        key: Name of the array in ``.npz`` files; None takes the only one.
        text_encoder, class_names, dynamic_classes, sky_classes, ground_classes: See
            :class:`TextTeacher`.
        parity_half_pixel: See :func:`sample_map`.
        cache_size: Maps kept in memory (or open).
    """

    def __init__(self,
                 root: PathLike,
                 embed_dims: int = 512,
                 key: Optional[str] = None,
                 text_encoder: Union[TextEncoder, dict, None] = None,
                 class_names: Optional[Sequence[str]] = None,
                 dynamic_classes: Sequence[str] = (),
                 sky_classes: Sequence[str] = (),
                 parity_half_pixel: bool = False,
                 cache_size: int = 8,
                 ground_classes: Optional[Sequence[str]] = None) -> None:
        super().__init__(embed_dims, text_encoder, class_names, dynamic_classes, sky_classes,
                         ground_classes=ground_classes)
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f'teacher features: no folder {self.root}')
        self.key = key
        self.parity_half_pixel = parity_half_pixel
        self._cache = LRUCache(cache_size)

    def features(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """See :meth:`Teacher.features`."""
        image = image_of(info, camera)
        token = image['sample_data_token']
        stored = self._cache.get(token, lambda: self._load(token))
        values = sample_map(stored, np.asarray(pixels), (image['width'], image['height']),
                            self.parity_half_pixel)
        return F.normalize(torch.from_numpy(values), dim=1)

    def _load(self, token: str) -> np.ndarray:
        paths = [self.root / f'{token}{suffix}' for suffix in ('.npy', '.npz')]
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(f'teacher features: neither of '
                                    f'{[str(p) for p in paths]} exists')
        try:
            values = read_array(path, self.key)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f'cannot read teacher features {path}: {error}') from error
        if values.ndim != 3 or values.shape[0] != self.embed_dims or 0 in values.shape:
            raise ValueError(f'{path}: feature map has shape {values.shape}, expected '
                             f'({self.embed_dims}, h, w)')
        return values
