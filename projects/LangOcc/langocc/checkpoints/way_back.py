"""Our state dicts -> those of other families, held against the networks that the families have."""
from typing import Dict, Optional, Sequence, Set

from torch import Tensor

from .conversion import REDUCER, Conversion, complaint, finite, misfit, other_planes
from .families import FAMILIES, IMAGE_PARTS, TRUNK, Family
from .targets import Target


def from_ours(tensors: Dict[str, Tensor], family: Family, networks: Sequence[Target], where: str,
              reducer_name: Optional[str] = None) -> Conversion:
    """Our state dict -> another family's.

    For 'torchvision' and 'bevdet' this is the part that they have: the backbone, or the trunk.

    Args:
        tensors: ours.
        family: wanted.
        networks: that the result may be of (:func:`~.originals.networks_of`); the one that it is
            nearest to is meant.
        where: what errors are about: the file.
        reducer_name: their name of a reduced model's matrix.

    Raises:
        ValueError: the model has another head than the family; in a part that must be complete a
            tensor is missing, unknown to the family or of another shape; a tensor is not finite.
    """
    lacking = [head for head in family.head if not any(name.startswith(head) for name in tensors)]
    if lacking:
        heads = sorted({name.split('.')[1] for name in tensors if name.startswith('occ_head.')})
        raise ValueError(f'{where} cannot become a {family.title}: it has no {lacking[0]}*, its '
                         f'head has {heads}')
    complete = {*family.complete, *(['occ_head'] if family.head else [])}
    tried = []
    for network in networks:
        result = Conversion(family, reducer_name=reducer_name)
        _sort(result, tensors, network, complete)
        _look_for_gaps(result, tensors, network, complete)
        tried.append((len(result.wrong), len(tried), network, result))
    _, _, network, result = min(tried)
    if not result.mapped:
        raise ValueError(f'{where} has nothing of a {family.title}')
    if result.wrong:
        raise ValueError(complaint(
            result.wrong, f'{where} cannot become a {family.title} ({network.name})',
            '--config names the recipe of a network with other sizes'))
    for name in result.mapped:
        finite(tensors[name], name, where)
    return result


def _sort(result: Conversion, tensors: Dict[str, Tensor], network: Target,
          complete: Set[str]) -> None:
    """Takes what the network has."""
    family, planes = result.family, other_planes(tensors, network, result.family)
    parts = {family.theirs(name).split('.')[0] for name in network.shapes}
    for name, tensor in tensors.items():
        part, theirs = name.split('.')[0], family.theirs(name)
        if name == REDUCER and network.reducer_dims:
            _take_reducer(result, tensor, network)
            continue
        if theirs is None or theirs.split('.')[0] not in parts:
            reason = f'{family.title} has no such part'
        else:
            reason = planes.get(part) or misfit(name, tensor, network)
            if reason is not None and part in complete:
                result.wrong[name] = reason
        if reason is None:
            result.take(name, theirs, tensor)
        else:
            result.unused[name] = reason


def _take_reducer(result: Conversion, matrix: Tensor, network: Target) -> None:
    if matrix.ndim != 2 or matrix.shape[1] != network.reducer_dims:
        result.wrong[REDUCER] = (f'{tuple(matrix.shape)}, {network.name} has '
                                 f'(any, {network.reducer_dims})')
    if result.reducer_name is None:
        result.unused[REDUCER] = 'its published name is not known: --reducer-name gives it one'
    else:
        result.take(REDUCER, result.reducer_name, matrix)


def _look_for_gaps(result: Conversion, tensors: Dict[str, Tensor], network: Target,
                   complete: Set[str]) -> None:
    """What the network has beyond what was taken, by their names."""
    for name in network.names():
        if name not in tensors and name.split('.')[0] in complete:
            result.wrong[name] = 'missing'
        elif name not in result.mapped and name != REDUCER:
            result.missing[result.family.theirs(name)] = (
                'of another shape in the file' if name in tensors else 'not in the file')


def check_complete(tensors: Dict[str, Tensor], target: Target, where: str) -> None:
    """Raises ValueError unless our state dict has just the target's names and shapes."""
    wrong = {name: reason for name, tensor in tensors.items()
             if (reason := misfit(name, tensor, target)) and name != REDUCER}
    wrong.update({name: 'missing' for name in target.names() if name not in tensors})
    if wrong:
        raise ValueError(complaint(wrong, f'{where} does not fit {target.name}',
                                   'Name the config of that network'))


def back_family(tensors: Dict[str, Tensor]) -> Optional[Family]:
    """The family that our state dict could go back to, by its parts; None: it has none of any."""
    parts = {name.split('.')[0] for name in tensors}
    conv = tensors.get('occ_head.final_conv.conv.weight')
    if parts >= set(TRUNK) and conv is not None and conv.ndim == 5:
        for family in FAMILIES.values():
            if family.head and all(any(name.startswith(head) for name in tensors)
                                   for head in family.head):
                return family
    if parts & set(IMAGE_PARTS[1:]):
        return FAMILIES['bevdet']
    return FAMILIES['torchvision'] if IMAGE_PARTS[0] in parts else None
