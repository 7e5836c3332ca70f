"""A feature store as a teacher.

Legend: P pixels, E embedding.
"""
from typing import Any, Dict, Optional, Sequence, Union

from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from ..teachers.base import image_of
from ..teachers.text import PathLike, TextEncoder
from ..teachers.text_teacher import TextTeacher
from .store import FeatureStore


@TASK_UTILS.register_module()
class StoreTeacher(TextTeacher):
    """Teacher from a :class:`FeatureStore`, whose tokens are those of the images (sample_data).

    Args:
        root: Folder of the store.
        text_encoder, class_names, dynamic_classes, sky_classes, ground_classes: See
            :class:`TextTeacher`.
        expected, verify: See :class:`FeatureStore`.
        parity_half_pixel: See :func:`sample_map`.
    """

    def __init__(self,
                 root: PathLike,
                 text_encoder: Union[TextEncoder, dict, None] = None,
                 class_names: Optional[Sequence[str]] = None,
                 dynamic_classes: Sequence[str] = (),
                 sky_classes: Sequence[str] = (),
                 expected: Optional[Dict[str, Any]] = None,
                 verify: str = 'manifest',
                 parity_half_pixel: bool = False,
                 ground_classes: Optional[Sequence[str]] = None) -> None:
        self.store = FeatureStore(root, verify, expected)
        super().__init__(self.store.embed_dims, text_encoder, class_names, dynamic_classes,
                         sky_classes, ground_classes=ground_classes)
        self.parity_half_pixel = parity_half_pixel

    def features(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """See :meth:`Teacher.features`."""
        image = image_of(info, camera)
        return self.store.sample(image['sample_data_token'], pixels,
                                 (image['width'], image['height']), self.parity_half_pixel)
