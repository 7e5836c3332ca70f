"""2D label maps from files as a teacher: classes of any segmenter, text of them as features.

Legend: P pixels, C classes, E embedding, (h, w) size of a map.
"""
from typing import Any, Dict, Mapping, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from .base import Teacher, image_of
from .map_files import MapFiles
from .sampling import nearest_cells
from .text import PathLike, TextEncoder


@TASK_UTILS.register_module()
class LabelMapTeacher(Teacher):
    """Pseudo-labels: what a segmenter, open-vocabulary or not, said of each pixel.

    Files: ``.png`` (one channel, 8 or 16 bits, or a palette), ``.npy`` or ``.npz`` with integers
    (h, w), see :class:`MapFiles`. A pixel has the label of the cell that it lies in.

    Args:
        root: Folder of the files.
        class_names: The C classes, by number in the files unless ``label_ids`` says otherwise. For
            a decoder of Occ3D's classes: those 17 in order, then 'sky' or what else there is (see
            :func:`~langocc.teachers.class_names.check_numbering`).
        label_ids: Class name -> number or numbers in the files, for segmenters with other numbers.
        unknown_ids: Numbers that stand for no class; pixels with them get -1.
        text_encoder: A :class:`TextEncoder` or its config, for 'lang_feats': the text of the class;
            where nothing is known the normalised mean of all. None: classes only.
        prompts: The text of each class; None takes the class names.
        dynamic_classes, sky_classes: See :class:`Teacher`; None is ``('sky',)`` if it is a class.
        ground_classes: See :class:`Teacher`.
        layout, key, cache_size: See :class:`MapFiles`.

    Raises:
        FileNotFoundError: no such folder; later, an image without a map.
        ValueError: settings that do not fit each other; later, a map that cannot be read or has a
            number that is neither a class nor unknown.
    """

    def __init__(self,
                 root: PathLike,
                 class_names: Sequence[str],
                 label_ids: Optional[Mapping[str, Union[int, Sequence[int]]]] = None,
                 unknown_ids: Sequence[int] = (255, ),
                 text_encoder: Union[TextEncoder, dict, None] = None,
                 prompts: Optional[Sequence[str]] = None,
                 dynamic_classes: Sequence[str] = (),
                 sky_classes: Optional[Sequence[str]] = None,
                 layout: str = 'token',
                 key: Optional[str] = None,
                 cache_size: int = 64,
                 ground_classes: Optional[Sequence[str]] = None) -> None:
        if sky_classes is None:
            sky_classes = [name for name in ('sky', ) if name in class_names]
        super().__init__(class_names, dynamic_classes, sky_classes, ground_classes)
        self.files = MapFiles(root, 'label maps', layout, key, cache_size)
        self._table = self._make_table(label_ids, unknown_ids)
        self.text_embeds: Optional[Tensor] = None
        if text_encoder is not None:
            if isinstance(text_encoder, dict):
                text_encoder = TASK_UTILS.build(text_encoder)
            words = self.class_names if prompts is None else tuple(prompts)
            if len(words) != len(self.class_names):
                raise ValueError(f'{len(words)} prompts for {len(self.class_names)} classes')
            self.text_embeds = text_encoder.encode(words)

    def _make_table(self, label_ids: Optional[Mapping], unknown_ids: Sequence[int]
                    ) -> Dict[int, int]:
        """Number in the files -> class, -1 unknown."""
        if label_ids is None:
            label_ids = {name: index for index, name in enumerate(self.class_names)}
        if set(label_ids) != set(self.class_names):
            missing = [name for name in self.class_names if name not in label_ids]
            unknown = sorted(set(label_ids) - set(self.class_names))
            raise ValueError(f'LabelMapTeacher: label_ids lacks the classes {missing} ([] for one '
                             f'that the files have not) and has {unknown}, which class_names lacks')
        table = {int(number): -1 for number in unknown_ids}
        for name, numbers in label_ids.items():
            for number in [numbers] if isinstance(numbers, int) else numbers:
                if number in table:
                    raise ValueError(f'LabelMapTeacher: the number {number} of {name!r} stands for '
                                     'something else too (label_ids, unknown_ids)')
                table[int(number)] = self.class_names.index(name)
        return table

    @property
    def embed_dims(self) -> int:
        """E of the text embeddings; 0 without them."""
        return 0 if self.text_embeds is None else self.text_embeds.shape[1]

    def check_targets(self, targets: Sequence[str], mask_dynamic: bool) -> None:
        """See :meth:`ClassNames.check_targets`; features need a text encoder."""
        if 'lang_feats' in targets and self.text_embeds is None:
            raise ValueError("PrepareRays: target 'lang_feats' needs text_encoder in the teacher, "
                             'a LabelMapTeacher')
        super().check_targets(targets, mask_dynamic)

    def classes(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """Class at pixels, (P,) long, -1 unknown."""
        image, stored = image_of(info, camera), self.files.read(info, camera)
        if not np.issubdtype(stored.dtype, np.integer):
            raise ValueError(f'label maps: {self.files.find(info, camera)} holds {stored.dtype}, '
                             'expected integers')
        cells = nearest_cells(np.asarray(pixels), stored.shape, (image['width'], image['height']))
        numbers, inverse = np.unique(stored[cells], return_inverse=True)
        strange = [int(number) for number in numbers if int(number) not in self._table]
        if strange:
            raise ValueError(f'label maps: {self.files.find(info, camera)} holds {strange}, which '
                             f'are no class and not unknown; known: {sorted(self._table)} (set '
                             'label_ids or unknown_ids)')
        table = np.array([self._table[int(number)] for number in numbers], dtype=np.int64)
        return torch.from_numpy(table[inverse.reshape(-1)])

    def features(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """See :meth:`Teacher.features`; the text of the class."""
        if self.text_embeds is None:
            raise ValueError('LabelMapTeacher has no features without a text_encoder')
        unknown = F.normalize(self.text_embeds.mean(0, keepdim=True), dim=1)
        classes = self.classes(info, camera, pixels)  # -1 is the last row
        return torch.cat([F.normalize(self.text_embeds, dim=1), unknown])[classes]
