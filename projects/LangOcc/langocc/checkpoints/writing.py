"""Writing converted weights, and saying what was converted."""
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files import atomic_write
from .conversion import Conversion

SUFFIXES = ('.pth', '.pt', '.safetensors')
_FEW = 4


def check_suffix(path: Union[str, Path]) -> Path:
    """``path``; ValueError unless its suffix says how to write it."""
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f'{path}: expected a name that ends in {", ".join(SUFFIXES)}')
    return Path(path)


def write_checkpoint(path: Union[str, Path], tensors: Dict[str, Tensor],
                     notes: Dict[str, Any]) -> None:
    """Writes weights whole or not at all.

    ``.pth`` and ``.pt``: ``dict(state_dict=..., meta=...)``, as mmengine's and mmcv's loaders take
    it; ``.safetensors``: the tensors. ``notes`` (JSON) go into the meta data, and
    :func:`.reading.read_checkpoint` gives them back.

    Raises:
        ValueError: another suffix.
    """
    path = check_suffix(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        if path.suffix == '.safetensors':
            save_file(tensors, str(temporary), metadata={'langocc_conversion': json.dumps(notes)})
        else:
            torch.save(dict(state_dict=tensors, meta=dict(langocc_conversion=notes)), temporary)


def notes_of(conversion: Conversion, source: Path, layout: str,
             colors: Optional[str] = None) -> Dict[str, Any]:
    """What a converted file says about where it comes from.

    Args:
        conversion, source: what became of which file.
        layout: 'ours' or 'theirs'.
        colors: of the images that the result sees, 'RGB' or 'BGR'; None: not known.
    """
    notes = dict(source=source.name, sha256=_sha256(source), family=conversion.family.name,
                 layout=layout)
    if colors is not None:
        notes['colors'] = colors
    if conversion.reducer_name is not None:
        notes['reducer_name'] = conversion.reducer_name
    return notes


def describe(conversion: Conversion) -> str:
    """What became of the tensors: counts by part, then those left out, by reason."""
    tensors, numbers = Counter(), Counter()
    for name, tensor in conversion.tensors.items():
        part = name.split('.')[0]
        tensors[part] += 1
        numbers[part] += tensor.numel()
    filled = Counter(name.split('.')[0] for name in conversion.filled)
    width = max(map(len, tensors))
    lines = [f'  {part:<{width}} {tensors[part]:>5} tensors {numbers[part]:>12,} numbers'
             + (f' ({filled[part]} set to 0)' if filled[part] else '') for part in tensors]
    lines.insert(0, f'taken: {len(conversion.mapped)} tensors')
    if conversion.filled:
        lines.append(f'set to 0: {len(conversion.filled)} counters of BatchNorm that older files '
                     'have not')
    lines += _grouped('unused', conversion.unused)
    lines += _grouped('missing, left to the model\'s initialisation', conversion.missing)
    return '\n'.join(lines)


def table(conversion: Conversion) -> Dict[str, Any]:
    """The same, tensor by tensor, for a JSON file."""
    return dict(family=conversion.family.name, mapped=conversion.mapped, unused=conversion.unused,
                missing=conversion.missing, filled=conversion.filled,
                shapes={name: list(tensor.shape) for name, tensor in conversion.tensors.items()})


def _grouped(title: str, reasons: Dict[str, str]) -> List[str]:
    groups: Dict[str, List[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    lines = [f'{title}: {len(reasons)} tensors'] if groups else []
    for reason, names in groups.items():
        listed = ', '.join(names[:_FEW]) + (' ...' if len(names) > _FEW else '')
        lines.append(f'  {len(names)} ({reason}): {listed}')
    return lines


def _sha256(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
