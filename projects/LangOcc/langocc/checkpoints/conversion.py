"""State dicts of other families -> ours and back, every tensor accounted for."""
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

import torch
from torch import Tensor

from .families import FAMILIES, IMAGE_PARTS, Family
from .targets import Target

REDUCER = 'occ_head.reducer.matrix'
_COUNT = 'num_batches_tracked'  # of a BatchNorm; older files have none


@dataclass
class Conversion:
    """What became of every tensor.

    Attributes:
        family: theirs.
        tensors: of the result.
        mapped: name in the source -> name in the result.
        unused: name in the source -> why it is left out.
        missing: name that the result should have -> why it has not; the model initialises it.
        filled: names in the result that the source had not: counters of BatchNorm, set to 0.
        wrong: name -> what is wrong with it, in parts that must be complete.
        reducer_name: how the source calls the matrix of a reduced model, where it has one.
    """
    family: Family
    tensors: Dict[str, Tensor] = field(default_factory=dict)
    mapped: Dict[str, str] = field(default_factory=dict)
    unused: Dict[str, str] = field(default_factory=dict)
    missing: Dict[str, str] = field(default_factory=dict)
    filled: List[str] = field(default_factory=list)
    wrong: Dict[str, str] = field(default_factory=dict)
    reducer_name: Optional[str] = None

    def take(self, source: str, target: str, tensor: Tensor) -> None:
        """Map one tensor."""
        self.mapped[source] = target
        self.tensors[target] = tensor


def to_ours(tensors: Dict[str, Tensor], family: Family, target: Target, where: str,
            partial: bool = False) -> Conversion:
    """Another family's state dict -> ours.

    Args:
        tensors: theirs.
        family: of :func:`~.families.detect_family`.
        target: names and shapes of the model that will load it.
        where: what errors are about: the file.
        partial: leave out tensors that do not fit the target, instead of raising.

    Raises:
        ValueError: a part that must be complete lacks a tensor, has one too many or one of another
            shape; a tensor is not finite; or nothing fits at all.
    """
    result = Conversion(family)
    complete = set(family.complete)
    if family.head and any(name.startswith(family.head) for name in target.shapes):
        complete.add('occ_head')
    _sort(result, tensors, target, where, complete)
    if target.reducer_dims:
        _take_reducer(result, tensors, target)
    _look_for_gaps(result, {family.ours(name) for name in tensors}, target, complete)
    if result.wrong and not partial:
        raise ValueError(_complaint(result.wrong, family, target, where))
    if not result.mapped:
        raise ValueError(f'{where}: no tensor of this {family.title} fits {target.name}')
    return result


def _sort(result: Conversion, tensors: Dict[str, Tensor], target: Target, where: str,
          complete: Set[str]) -> None:
    """Takes what fits the target."""
    for name, tensor in tensors.items():
        reason = result.family.why_dropped(name)
        ours = result.family.ours(name)
        if reason is None:
            reason = _misfit(ours, tensor, target)
            if reason is not None and ours.split('.')[0] in complete:
                result.wrong[name] = reason
        if reason is None:
            result.take(name, ours, _finite(tensor, name, where))
        else:
            result.unused[name] = reason


def _look_for_gaps(result: Conversion, offered: Set[str], target: Target,
                   complete: Set[str]) -> None:
    """Names of the target that are still empty; ``offered``: our names of what the source has."""
    for name in target.names():
        if name in result.tensors:
            continue
        if name.endswith(_COUNT) and name[:-len(_COUNT)] + 'running_mean' in result.tensors:
            result.tensors[name] = torch.zeros((), dtype=torch.int64)
            result.filled.append(name)
        elif name in offered:
            result.missing[name] = 'of another shape in the file'
        else:
            result.missing[name] = 'not in the file'
            if name.split('.')[0] in complete:
                result.wrong[name] = 'missing'


def from_ours(tensors: Dict[str, Tensor], family: Family, where: str,
              reducer_name: Optional[str] = None) -> Conversion:
    """Our state dict -> another family's.

    For 'torchvision' and 'bevdet' this is the part that they have: the backbone, or all that looks
    at images.

    Args:
        tensors: ours.
        family: wanted.
        where: what errors are about: the file.
        reducer_name: their name of a reduced model's matrix.

    Raises:
        ValueError: the model has another head than the family.
    """
    if family.head and not any(name.startswith(family.head) for name in tensors):
        heads = sorted({name.split('.')[1] for name in tensors if name.startswith('occ_head.')})
        raise ValueError(f'{where} cannot become a {family.title}: it has no {family.head}*, its '
                         f'head has {heads}')
    result = Conversion(family, reducer_name=reducer_name)
    for name, tensor in tensors.items():
        theirs = family.theirs(name)
        if name == REDUCER and family.name == 'langocc':
            theirs = reducer_name
            reason = 'its published name is not known: --reducer-name gives it one'
        else:
            reason = f'{family.title} has no such part'
        if theirs is None:
            result.unused[name] = reason
        else:
            result.take(name, theirs, tensor)
    if not result.mapped:
        raise ValueError(f'{where} has nothing of a {family.title}')
    return result


def check_complete(tensors: Dict[str, Tensor], target: Target, where: str) -> None:
    """Raises ValueError unless our state dict has just the target's names and shapes."""
    wrong = {name: reason for name, tensor in tensors.items()
             if (reason := _misfit(name, tensor, target)) and name != REDUCER}
    wrong.update({name: 'missing' for name in target.shapes if name not in tensors})
    if target.reducer_dims and REDUCER not in tensors:
        wrong[REDUCER] = 'missing'
    if wrong:
        raise ValueError(_complaint(wrong, None, target, where))


def back_family(tensors: Dict[str, Tensor]) -> Family:
    """The family whose head our state dict has; the detector's where it has none of them."""
    for family in FAMILIES.values():
        if family.head and any(name.startswith(family.head) for name in tensors):
            return family
    return FAMILIES['bevdet' if any(name.startswith(f'{part}.') for name in tensors
                                    for part in IMAGE_PARTS[1:]) else 'torchvision']


def _misfit(name: str, tensor: Tensor, target: Target) -> Optional[str]:
    """Why a tensor cannot become the target's ``name``; None where it can."""
    if name not in target.shapes:
        return f'no such tensor in {target.name}'
    if tuple(tensor.shape) != target.shapes[name]:
        return f'{tuple(tensor.shape)}, {target.name} has {target.shapes[name]}'
    return None


def _take_reducer(result: Conversion, tensors: Dict[str, Tensor], target: Target) -> None:
    """Takes for the reducer's (E, D) the one unknown matrix with D columns, or rows.

    The list of published names is the full model's: U's own name is not in it.
    """
    fits = [(name, tensors[name]) for name in result.unused if _is_reducer(tensors[name], target)]
    if len(fits) == 1:
        name, matrix = fits[0]
        del result.unused[name]
        result.wrong.pop(name, None)
        upright = matrix.shape[1] == target.reducer_dims
        result.take(name, REDUCER, matrix if upright else matrix.t().contiguous())
        result.reducer_name = name


def _is_reducer(tensor: Tensor, target: Target) -> bool:
    dims = target.reducer_dims
    return tensor.ndim == 2 and dims in tensor.shape and max(tensor.shape) > dims


def _finite(tensor: Tensor, name: str, where: str) -> Tensor:
    if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
        raise ValueError(f'{where}: {name} {tuple(tensor.shape)} has values that are not finite')
    return tensor


def _complaint(wrong: Dict[str, str], family: Optional[Family], target: Target, where: str,
               most: int = 3) -> str:
    """One line: how many tensors do not fit, the first of them, what to do."""
    listed: List[Tuple[str, str]] = sorted(wrong.items(), key=lambda item: item[1] == 'missing')
    text = '; '.join(f'{name}: {reason}' for name, reason in listed[:most])
    more = f'; and {len(wrong) - most} more' if len(wrong) > most else ''
    title = f' ({family.title})' if family else ''
    return (f'{where}{title} does not fit {target.name}: {text}{more}. Name the config of that '
            'network' + ('' if family is None else ', or --partial to take only what fits'))
