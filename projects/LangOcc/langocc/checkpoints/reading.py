"""Checkpoint files -> tensors, without running what a file says.

A checkpoint is a pickle inside a zip, and a pickle is a program. Files are read by torch's
restricted unpickler (``weights_only=True``), which builds tensors and plain containers and refuses
the rest, or by safetensors, which holds nothing but tensors and text.
"""
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Dict, Optional, Tuple, Union

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files import existing_file
from .families import OUR_HEAD

# Where files of several trainers keep weights; the first one that is there is taken. Averages come
# first, for they are what is reported. mmengine's EMAHook swaps the two sets when it saves: there
# 'state_dict' is the average and 'ema_state_dict' the weights that are trained on.
WEIGHT_KEYS = ('state_dict_ema', 'ema_model', 'model_ema', 'ema', 'state_dict', 'ema_state_dict',
               'model_state_dict', 'model')
# What wraps a model in torch: DistributedDataParallel (and mmengine's averages), torch.compile.
_WRAPPERS = ('module.', '_orig_mod.')
# What an averaged model counts; no weight of the model.
_COUNTERS = ('steps', 'n_averaged')
_METADATA = 'langocc_conversion'


@dataclass
class Checkpoint:
    """Weights of a file.

    Attributes:
        path: the file.
        tensors: name -> tensor, names without the prefixes of wrappers.
        key: entry of the file that they lie under; '' where the file is one state dict.
        other_keys: further entries that hold weights.
        conversion: what an earlier conversion noted (:func:`.writing.write_checkpoint`).
        config: text of the config that it was trained with, as mmengine keeps it; '' where unknown.
    """
    path: Path
    tensors: Dict[str, Tensor]
    key: str = ''
    other_keys: Tuple[str, ...] = ()
    conversion: Dict[str, Any] = field(default_factory=dict)
    config: str = ''

    @property
    def colors(self) -> Optional[str]:
        """'RGB' or 'BGR', the images that a model of ours sees; None where the file does not say.

        A conversion notes it; a training's config has it in the data preprocessor.
        """
        if self.conversion.get('colors') in ('RGB', 'BGR'):
            return self.conversion['colors']
        preprocessor = re.search(r'data_preprocessor=dict\(([^()]*)', self.config)
        if preprocessor is None:
            return None
        return 'BGR' if re.search(r'\bbgr=True\b', preprocessor[1]) else 'RGB'

    @property
    def is_ours(self) -> bool:
        """Whether it is of this project's layout: as a conversion noted it, or by the names of its
        head, every one of which is then this project's."""
        head = [name for name in self.tensors if name.startswith('occ_head.')]
        return self.conversion.get('layout') == 'ours' or (
            bool(head) and all(map(OUR_HEAD.match, head)))


def read_checkpoint(path: Union[str, Path], key: str = 'auto') -> Checkpoint:
    """Reads a ``.safetensors`` file or a torch checkpoint.

    Args:
        path: the file.
        key: entry with the weights, dotted where it is nested; 'auto' takes the first one of
            ``WEIGHT_KEYS`` that is there, or the file itself where that is a state dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, asks for code, or holds no weights under ``key``.
    """
    path = Path(existing_file(path, 'checkpoint'))
    if path.suffix == '.safetensors':
        if key != 'auto':
            raise ValueError(f"{path}: a .safetensors file has no entries, got key '{key}'")
        tensors, conversion = _read_safetensors(path)
        return Checkpoint(path, unwrap(tensors), conversion=conversion)
    content = _read_torch(path)
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} holds a {type(content).__name__}, expected a dict with weights')
    found = {name: value for name, value in _entries(content).items() if _is_state(value)}
    if key == 'auto':
        key = next((name for name in WEIGHT_KEYS if name in found), '')
    state = found.get(key)
    if state is None and key == '' and _is_state(content):
        state = content
    if state is None:
        asked = f"'{key}'" if key else 'any known key'
        raise ValueError(f'{path}: no weights under {asked}; it has {_names(content)}, weights '
                         f'under {sorted(found)}')
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    config = meta.get('cfg')
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return Checkpoint(path, unwrap(tensors), key, tuple(n for n in found if n != key),
                      dict(meta.get(_METADATA) or {}), config if isinstance(config, str) else '')


def unwrap(tensors: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Names without the prefixes that all of them share by being wrapped, and without counters."""
    while True:
        named = {name: value for name, value in tensors.items() if name not in _COUNTERS}
        prefix = next((prefix for prefix in _WRAPPERS
                       if named and all(name.startswith(prefix) for name in named)), None)
        if prefix is None:
            return tensors
        tensors = {name[len(prefix):]: value for name, value in named.items()}


def _entries(content: Mapping) -> Dict[str, Any]:
    """Entries of a file, and of the dicts in it by dotted names."""
    entries = {}
    for name, value in content.items():
        entries[str(name)] = value
        if isinstance(value, Mapping) and not _is_state(value):
            entries.update({f'{name}.{inner}': nested for inner, nested in value.items()})
    return entries


def _is_state(value: Any) -> bool:
    """Whether it maps names to tensors, most of it."""
    if not isinstance(value, Mapping) or not value:
        return False
    tensors = sum(isinstance(item, Tensor) for item in value.values())
    return all(isinstance(name, str) for name in value) and 2 * tensors > len(value)


def _names(content: Mapping, most: int = 6) -> str:
    names = [str(name) for name in content]
    return f'entries {names[:most]}' + (' ...' if len(names) > most else '')


def _read_safetensors(path: Path) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
    try:
        with safe_open(str(path), framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            conversion = json.loads((file.metadata() or {}).get(_METADATA, '{}'))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f'{path} is no readable safetensors file: {error}') from error
    return tensors, conversion


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of pickles that no torch wrote
            return torch.load(path, map_location='cpu', weights_only=True)
    except UnpicklingError as error:
        asked = re.search(r'GLOBAL ([\w.]+)', str(error))
        if asked is None:
            raise ValueError(f'{path} is no readable checkpoint: torch did not write it; nothing '
                             'of it was run') from error
        raise ValueError(
            f"{path} is refused: it asks for '{asked[1]}', and a checkpoint may hold tensors and "
            'plain values only; nothing of it was run. If its origin is trusted, save its state '
            'dict alone where it was made') from error
    except Exception as error:  # a damaged file may raise anything
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f'{path} is no readable checkpoint ({path.stat().st_size} bytes): '
                         f'{message}') from error
