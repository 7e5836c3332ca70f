"""The interface of every 2D teacher: features, and classes where it has them, at pixels.

A teacher is asked at single pixels and never for whole maps, so that it may read them from small
files, from a store, or compute them on the spot.

Legend: P pixels, E embedding.
"""
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .text import nearest_names


class Teacher(ABC):
    """Base of 2D teachers.

    Args:
        class_names: The teacher's own classes, or None if it has none. They need not be Occ3D's.
        dynamic_classes: Names of classes that move by themselves.
        sky_classes: Names of classes that are infinitely far away.

    Raises:
        ValueError: a dynamic or sky class is not one of ``class_names``.
    """

    def __init__(self,
                 class_names: Optional[Sequence[str]] = None,
                 dynamic_classes: Sequence[str] = (),
                 sky_classes: Sequence[str] = ()) -> None:
        self.class_names: Optional[Tuple[str, ...]] = (
            None if class_names is None else tuple(class_names))
        self.dynamic_classes = tuple(dynamic_classes)
        self.sky_classes = tuple(sky_classes)
        self._dynamic_ids = self._indices('dynamic_classes', self.dynamic_classes)
        self._sky_ids = self._indices('sky_classes', self.sky_classes)

    @property
    @abstractmethod
    def embed_dims(self) -> int:
        """E, the number of values per feature."""

    @abstractmethod
    def features(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """Features at pixels of one image.

        Args:
            info: Info of the frame (``images[camera]`` has ``sample_data_token``, ``height``,
                ``width``, ``img_path``).
            camera: Name of the camera.
            pixels: (P, 2) (u, v) in the original image; integer = pixel centre.

        Returns:
            (P, E) float32, L2-normalised.
        """

    def classes(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Optional[Tensor]:
        """Index in ``class_names`` at pixels, (P,) long, -1 unknown; None if it has no classes."""
        return None

    def is_dynamic(self, classes: Tensor) -> Tensor:
        """Which class indices are dynamic, as bool of the same shape."""
        return torch.isin(classes, self._dynamic_ids.to(classes.device))

    def is_sky(self, classes: Tensor) -> Tensor:
        """Which class indices are sky, as bool of the same shape."""
        return torch.isin(classes, self._sky_ids.to(classes.device))

    def check_targets(self, targets: Sequence[str], mask_dynamic: bool) -> None:
        """Whether it can make PrepareRays' ``targets``.

        Raises:
            ValueError: it has no classes, or none that are sky or dynamic, and they are asked for.
        """
        name, wants = type(self).__name__, class_demands(targets, mask_dynamic)
        if wants and self.class_names is None:
            raise ValueError(f'PrepareRays: {wants} need a teacher with classes; {name} has none')
        if mask_dynamic and not self.dynamic_classes:
            raise ValueError(f'PrepareRays: mask_dynamic needs dynamic_classes in the teacher, a '
                             f'{name}')
        if 'sky' in targets and not self.sky_classes:
            raise ValueError(f"PrepareRays: target 'sky' needs sky_classes in the teacher, a "
                             f'{name}')

    def _indices(self, setting: str, names: Sequence[str]) -> Tensor:
        known = self.class_names or ()
        for name in names:
            if name not in known:
                raise ValueError(f'{setting} of {type(self).__name__}: {name!r} is not one of its '
                                 f'classes {list(known)}; nearest: {nearest_names(name, known)}')
        return torch.tensor([known.index(name) for name in names], dtype=torch.long)


def class_demands(targets: Sequence[str], mask_dynamic: bool) -> List[str]:
    """Which of PrepareRays' targets and ``mask_dynamic`` need a teacher's classes."""
    wants = [name for name in ('classes', 'sky') if name in targets]
    return wants + ['mask_dynamic'] * mask_dynamic


def image_of(info: Dict[str, Any], camera: str) -> Dict[str, Any]:
    """``info['images'][camera]``, with an error that names frame and camera if it is not there."""
    try:
        return info['images'][camera]
    except KeyError:
        raise KeyError(f'frame {info.get("token")} has no camera {camera!r}; it has '
                       f'{sorted(info.get("images", {}))}') from None
