"""State dicts of other families -> ours, every tensor accounted for."""
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

import torch
from torch import Tensor

from .families import Family
from .targets import Target

REDUCER = 'occ_head.reducer.matrix'
_COUNT = 'num_batches_tracked'  # of a BatchNorm; older files have none
_WORKS_ON = {4: 'on the BEV plane', 5: 'on volumes'}  # by the dimensions of its convolutions


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
    if family.has_head(target.shapes):
        complete.add('occ_head')
    _sort(result, tensors, target, where, complete)
    if target.reducer_dims:
        _take_reducer(result, tensors, target)
    _look_for_gaps(result, {family.ours(name): result.unused.get(name) for name in tensors}, target,
                   complete)
    if result.wrong and not partial:
        raise ValueError(complaint(
            result.wrong, f'{where} ({family.title}) does not fit {target.name}',
            'Name the config of that network, or --partial to take only what fits'))
    if not result.mapped:
        raise ValueError(f'{where}: no tensor of this {family.title} fits {target.name}')
    return result


def _sort(result: Conversion, tensors: Dict[str, Tensor], target: Target, where: str,
          complete: Set[str]) -> None:
    """Takes what fits the target."""
    planes = other_planes({result.family.ours(name): tensor for name, tensor in tensors.items()},
                          target, result.family)
    for name, tensor in tensors.items():
        reason = result.family.why_dropped(name)
        ours = result.family.ours(name)
        part = ours.split('.')[0]
        if reason is None:
            reason = planes.get(part) or misfit(ours, tensor, target)
            if reason is not None and part in complete:
                result.wrong[name] = reason
        if reason is None:
            result.take(name, ours, finite(tensor, name, where))
        else:
            result.unused[name] = reason


def _look_for_gaps(result: Conversion, offered: Dict[str, Optional[str]], target: Target,
                   complete: Set[str]) -> None:
    """Names of the target that are still empty.

    ``offered``: our names of what the source has -> why it is left out.
    """
    for name in target.names():
        if name in result.tensors:
            continue
        if name.endswith(_COUNT) and name[:-len(_COUNT)] + 'running_mean' in result.tensors:
            result.tensors[name] = torch.zeros((), dtype=torch.int64)
            result.filled.append(name)
        elif name in offered:
            reason = offered[name] or ''
            result.missing[name] = (f"the file's {reason}" if reason.startswith('works ')
                                    else 'of another shape in the file')
        else:
            result.missing[name] = 'not in the file'
            if name.split('.')[0] in complete:
                result.wrong[name] = 'missing'


def other_planes(tensors: Dict[str, Tensor], target: Target, family: Family) -> Dict[str, str]:
    """Loose parts of the family that work on the BEV plane where the target's work on volumes, or
    the other way round -> a reason that says so.

    Of such a part a norm may fit by chance; without its convolutions it means nothing.
    """
    reasons = {}
    for part in family.loose:
        here, there = (max((len(shape) for name, shape in shapes.items()
                            if name.startswith(f'{part}.')), default=0)
                       for shapes in ({name: tensor.shape for name, tensor in tensors.items()},
                                      target.shapes))
        if here != there and {here, there} <= set(_WORKS_ON):
            reasons[part] = f'works {_WORKS_ON[here]}, {target.name} {_WORKS_ON[there]}'
    return reasons


def misfit(name: str, tensor: Tensor, target: Target) -> Optional[str]:
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


def finite(tensor: Tensor, name: str, where: str) -> Tensor:
    """The tensor; ValueError where it has NaN or infinite values."""
    if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
        raise ValueError(f'{where}: {name} {tuple(tensor.shape)} has values that are not finite')
    return tensor


def complaint(wrong: Dict[str, str], beginning: str, advice: str, most: int = 3) -> str:
    """One line: the first of the tensors that do not fit, how many more there are, what to do."""
    listed: List[Tuple[str, str]] = sorted(wrong.items(), key=lambda item: item[1] == 'missing')
    text = '; '.join(f'{name}: {reason}' for name, reason in listed[:most])
    more = f'; and {len(wrong) - most} more' if len(wrong) > most else ''
    return f'{beginning}: {text}{more}. {advice}'
