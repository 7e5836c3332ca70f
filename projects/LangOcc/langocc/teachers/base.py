"""The interface of every 2D teacher: features, and classes where it has them, at pixels.

A teacher is asked at single pixels and never for whole maps, so that it may read them from small
files, from a store, or compute them on the spot.

Legend: P pixels, E embedding.
"""
from abc import ABC, abstractmethod
from typing import Any, Dict, Optional, Sequence

from torch import Tensor

from .class_names import ClassNames


class Teacher(ClassNames, ABC):
    """Base of 2D teachers.

    Args:
        class_names, dynamic_classes, sky_classes, ground_classes: See :class:`ClassNames`; None and
            nothing for a teacher without classes.

    Raises:
        ValueError: a dynamic, sky or ground class is not one of ``class_names``.
    """

    def __init__(self,
                 class_names: Optional[Sequence[str]] = None,
                 dynamic_classes: Sequence[str] = (),
                 sky_classes: Sequence[str] = (),
                 ground_classes: Optional[Sequence[str]] = None) -> None:
        super().__init__(class_names, dynamic_classes, sky_classes, ground_classes)

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


def image_of(info: Dict[str, Any], camera: str) -> Dict[str, Any]:
    """``info['images'][camera]``, with an error that names frame and camera if it is not there."""
    try:
        return info['images'][camera]
    except KeyError:
        raise KeyError(f'frame {info.get("token")} has no camera {camera!r}; it has '
                       f'{sorted(info.get("images", {}))}') from None
