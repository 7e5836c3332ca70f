"""Names of the classes that somebody gives to pixels: a teacher, or labelled LiDAR points."""
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..occ3d import FREE_CLASS, OCC3D_CLASSES
from .text import nearest_names

# Classes that lie on the ground, by the names of Occ3D and Cityscapes.
GROUND_CLASSES = ('driveable_surface', 'other_flat', 'sidewalk', 'terrain', 'road')


class ClassNames:
    """Classes by number, and which of them move, are sky or the ground.

    Args:
        class_names: The classes, or None if there are none. They need not be Occ3D's.
        dynamic_classes: Names of classes that move by themselves.
        sky_classes: Names of classes that are infinitely far away.
        ground_classes: Names of classes whose pixels show the ground that the car stands on; None
            is those of ``GROUND_CLASSES`` that there are.
        owner: Whose they are, for errors; None is the name of the class.

    Raises:
        ValueError: a dynamic, sky or ground class is not one of ``class_names``.
    """

    def __init__(self,
                 class_names: Optional[Sequence[str]] = None,
                 dynamic_classes: Sequence[str] = (),
                 sky_classes: Sequence[str] = (),
                 ground_classes: Optional[Sequence[str]] = None,
                 owner: Optional[str] = None) -> None:
        self.class_names: Optional[Tuple[str, ...]] = (
            None if class_names is None else tuple(class_names))
        self.dynamic_classes = tuple(dynamic_classes)
        self.sky_classes = tuple(sky_classes)
        if ground_classes is None:
            ground_classes = [name for name in GROUND_CLASSES if name in (class_names or ())]
        self.ground_classes = tuple(ground_classes)
        self.owner = owner or type(self).__name__
        self._dynamic_ids = self._indices('dynamic_classes', self.dynamic_classes)
        self._sky_ids = self._indices('sky_classes', self.sky_classes)
        self._ground_ids = self._indices('ground_classes', self.ground_classes)

    def is_dynamic(self, classes: Tensor) -> Tensor:
        """Which class indices are dynamic, as bool of the same shape."""
        return torch.isin(classes, self._dynamic_ids.to(classes.device))

    def is_sky(self, classes: Tensor) -> Tensor:
        """Which class indices are sky, as bool of the same shape."""
        return torch.isin(classes, self._sky_ids.to(classes.device))

    def is_ground(self, classes: Tensor) -> Tensor:
        """Which class indices are the ground, as bool of the same shape."""
        return torch.isin(classes, self._ground_ids.to(classes.device))

    def targets_of(self, classes: Tensor, names: Sequence[str]) -> Dict[str, Tensor]:
        """Those of PrepareRays' targets ``names`` that class indices tell, each of their shape."""
        makers = dict(classes=lambda values: values, sky=self.is_sky, ground=self.is_ground)
        return {name: make(classes) for name, make in makers.items() if name in names}

    def check_targets(self, targets: Sequence[str], mask_dynamic: bool) -> None:
        """Whether PrepareRays' ``targets`` that need classes can be made of these.

        Raises:
            ValueError: there are no classes, or none that are sky, ground or dynamic, and they
                are asked for.
        """
        wants = class_demands(targets, mask_dynamic)
        if wants and self.class_names is None:
            raise ValueError(f'PrepareRays: {wants} need a teacher with classes; {self.owner} has '
                             'none')
        if mask_dynamic and not self.dynamic_classes:
            raise ValueError('PrepareRays: mask_dynamic needs dynamic_classes in the teacher, a '
                             f'{self.owner}')
        if 'sky' in targets and not self.sky_classes:
            raise ValueError("PrepareRays: target 'sky' needs sky_classes in the teacher, a "
                             f'{self.owner}')
        if 'ground' in targets and not self.ground_classes:
            raise ValueError("PrepareRays: target 'ground' needs ground_classes in the teacher, a "
                             f'{self.owner}')

    def _indices(self, setting: str, names: Sequence[str]) -> Tensor:
        known = self.class_names or ()
        for name in names:
            if name not in known:
                raise ValueError(f'{setting} of {self.owner}: {name!r} is not one of its classes '
                                 f'{list(known)}; nearest: {nearest_names(name, known)}')
        return torch.tensor([known.index(name) for name in names], dtype=torch.long)


def class_demands(targets: Sequence[str], mask_dynamic: bool) -> List[str]:
    """Which of PrepareRays' targets and ``mask_dynamic`` need somebody's classes."""
    wants = [name for name in ('classes', 'sky', 'ground') if name in targets]
    return wants + ['mask_dynamic'] * mask_dynamic


def check_numbering(names: Sequence[str], num_classes: int, owner: str) -> None:
    """Whether classes are numbered as a decoder that learns them numbers its own.

    Decoder and metric know numbers only. A decoder of 17 classes has Occ3D's, in Occ3D's order; one
    of another number has those of ``names``, whatever they are. Names beyond ``num_classes`` (sky)
    are not the decoder's.

    Args:
        names: the classes, by number.
        num_classes: of the decoder.
        owner: whose they are, for errors.

    Raises:
        ValueError: fewer names than ``num_classes``; or, for 17, one of Occ3D's names is not at
            Occ3D's number.
    """
    if len(names) < num_classes:
        raise ValueError(f'{owner} has {len(names)} class_names {list(names)}, the decoder that is '
                         f'taught by them {num_classes}: name them all, with [] in label_ids for '
                         'those that the labels have not')
    if num_classes != FREE_CLASS:
        return
    expected = OCC3D_CLASSES[:FREE_CLASS]
    moved = [f'{name!r} is {number}, expected {expected.index(name)}'
             for number, name in enumerate(names)
             if name in expected and expected.index(name) != number]
    if moved:
        raise ValueError(f'{owner}: the order of class_names is the numbering of the classes, and '
                         f"for a decoder of 17 classes that is Occ3D's: {', '.join(moved)}. Keep "
                         f'{list(expected)}, then sky or what else there is; classes of your own '
                         'need names that are not among these')
