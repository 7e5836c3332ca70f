"""Where CLIP's weights are on this machine, and of which open_clip model. Never asks the network.

Weights are named by file or folder, by open_clip's name of a training ("tag", looked up in the
Hugging Face cache), or by the environment's LANGOCC_CLIP_WEIGHTS.
"""
import hashlib
import json
import os
import pickle
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from ..files import existing_file
from .text import PathLike

CLIP_WEIGHTS_VARIABLE = 'LANGOCC_CLIP_WEIGHTS'
_CONFIG_NAME = 'open_clip_config.json'
_WEIGHT_NAMES = ('open_clip_model.safetensors', 'open_clip_pytorch_model.safetensors',
                 'open_clip_pytorch_model.bin')
# Entries that OpenAI's own files have beside the weights.
_OPENAI_MARKS = ('input_resolution', 'context_length', 'vocab_size')


def import_open_clip():
    """The module open_clip, or an ImportError that says how to get it."""
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(f'CLIP needs open_clip, which cannot be imported ({error}); pip install '
                          f'open_clip_torch==3.3.0') from error
    return open_clip


@dataclass(frozen=True)
class ClipWeights:
    """Where the weights of an open_clip model are, and what model they are of.

    Attributes:
        path: Weights file.
        model: open_clip's name of the model.
        config: ``open_clip_config.json`` beside the file, which then decides the model, or None.
        tag: open_clip's name of the training, or None.
    """
    path: Path
    model: str
    config: Optional[Path] = None
    tag: Optional[str] = None

    @property
    def name(self) -> str:
        """The model, in words."""
        return f'{self.shown} ({self.tag})' if self.tag else self.shown

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights file."""
        with open(self.path, 'rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()

    @property
    def shown(self) -> str:
        """What decides the model, for messages: the configuration file or the name."""
        return str(self.config or self.model)

    @cached_property
    def model_config(self) -> Dict[str, Any]:
        """open_clip's configuration of the model, from the JSON file or by name.

        A tag decides the activation: OpenAI's and some others were trained with QuickGELU.

        Raises:
            ImportError: open_clip is not installed.
            ValueError: an unknown model, or JSON without one.
        """
        if self.config is not None:
            return read_config(self.config, 'model_cfg')
        open_clip = import_open_clip()
        found = open_clip.get_model_config(self.model)
        if found is None:
            raise ValueError(f'open_clip knows no model {self.model!r}; for instance ViT-B-16, '
                             f'ViT-B-16-quickgelu, ViT-L-14')
        if self.tag is not None:
            training = open_clip.get_pretrained_cfg(self.model, self.tag)
            found['quick_gelu'] = bool(training.get('quick_gelu'))
        return found

    def read(self) -> Dict[str, Tensor]:
        """All tensors of the file, with open_clip's names.

        Raises:
            ValueError: no state dict, or OpenAI's weights for a model of another activation.
        """
        state = _read_state(self.path)
        if any(mark in state for mark in _OPENAI_MARKS) and not self.model_config.get('quick_gelu'):
            raise ValueError(f"{self.path} holds OpenAI's weights, which need the activation "
                             f"QuickGELU; model is {self.shown!r}, expected for "
                             f"instance 'ViT-B-16-quickgelu'")
        return {key: value for key, value in state.items() if key not in _OPENAI_MARKS}


def find_weights(weights: Optional[PathLike] = None, pretrained: Optional[str] = None,
                 model: str = 'ViT-B-16') -> ClipWeights:
    """Weights by file or folder, by name from the cache, or else by LANGOCC_CLIP_WEIGHTS.

    Args:
        weights: A file (``.safetensors``, or ``.pt``, ``.pth``, ``.bin`` with a state dict of
            tensors), or a folder with such a file and, where it has one, ``open_clip_config.json``,
            which then decides the model.
        pretrained: open_clip's tag of a training of ``model``, for instance 'openai' or
            'laion2b_s34b_b88k', whose files lie in the Hugging Face cache.
        model: open_clip's name of the model.

    Raises:
        ImportError: ``pretrained`` is named without open_clip, which knows the tags.
        FileNotFoundError: nothing is named, or what is named is not there.
        ValueError: both a place and a tag, or a tag that open_clip does not know.
    """
    if weights and pretrained:
        raise ValueError(f'CLIP weights: both a place ({weights}) and a tag ({pretrained!r}) are '
                         f'named, expected one of them')
    if pretrained:
        return _cached_training(model, pretrained)
    weights = named_weights(weights)
    if not weights:
        raise FileNotFoundError(f'no CLIP weights: name a file or folder, as an argument or in '
                                f'{CLIP_WEIGHTS_VARIABLE}')
    path, config = _locate(weights)
    return ClipWeights(path, model, config)


def named_weights(weights: Optional[PathLike] = None) -> Optional[PathLike]:
    """The place given, or else the environment's, or else None."""
    return weights or os.environ.get(CLIP_WEIGHTS_VARIABLE)


def cached_snapshots(repository: str) -> List[Path]:
    """Folders of a repository's weights in the Hugging Face cache; the current one first."""
    home = os.environ.get('HF_HOME') or '~/.cache/huggingface'
    cache = Path(os.environ.get('HF_HUB_CACHE') or f'{home}/hub').expanduser()
    folder = cache / f'models--{repository.strip("/").replace("/", "--")}'
    current = folder / 'refs' / 'main'
    first = current.read_text().strip() if current.is_file() else ''
    found = [path for path in sorted((folder / 'snapshots').glob('*'))
             if any((path / name).is_file() for name in _WEIGHT_NAMES)]
    return sorted(found, key=lambda path: path.name != first)


def _locate(weights: PathLike) -> Tuple[Path, Optional[Path]]:
    """The weights file, and the ``open_clip_config.json`` beside it if a folder was named.

    Raises:
        FileNotFoundError: nothing there, or a folder without a single file of weights.
    """
    path = Path(weights).expanduser()
    if not path.is_dir():
        return Path(existing_file(path, 'CLIP weights')), None
    known = [path / name for name in _WEIGHT_NAMES if (path / name).is_file()]
    found = known[:1] or sorted(file for pattern in ('*.safetensors', '*.pt', '*.pth', '*.bin')
                                for file in path.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f'folder of CLIP weights {path}: expected one of {_WEIGHT_NAMES} '
                                f'or a single file of weights, got {[f.name for f in found]}')
    config = path / _CONFIG_NAME
    return found[0], config if config.is_file() else None


def _cached_training(model: str, tag: str) -> ClipWeights:
    """A training that open_clip names, from the Hugging Face cache."""
    open_clip = import_open_clip()
    known = open_clip.list_pretrained_tags_by_model(model)
    repository = open_clip.get_pretrained_cfg(model, tag).get('hf_hub', '')
    if not repository:
        raise ValueError(f'open_clip knows no training {tag!r} of {model!r} on the Hugging Face '
                         f'hub; known: {known}')
    # 'owner/name/' or 'owner/name/file'
    owner, name, *file = repository.split('/')
    snapshots = cached_snapshots(f'{owner}/{name}')
    if not snapshots:
        raise FileNotFoundError(f'no CLIP weights: {owner}/{name} ({model}, {tag}) is not in the '
                                f'Hugging Face cache (HF_HUB_CACHE, HF_HOME); fetch it where there '
                                f'is a network: hf download {owner}/{name}')
    path, _ = _locate(snapshots[0] / file[0] if file and file[0] else snapshots[0])
    return ClipWeights(path, model, tag=tag)


def read_config(path: Path, key: str, default: Optional[dict] = None) -> Dict[str, Any]:
    """An entry of a JSON file, or ``default`` (None: it must be there)."""
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
        return values[key] if default is None else values.get(key, default)
    except (ValueError, KeyError) as error:
        raise ValueError(f'{path}: expected JSON with {key} ({error!r})') from error


def _read_state(path: Path) -> Dict[str, Tensor]:
    """Tensors of a weights file; the plain state dict of open_clip."""
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file
            state = load_file(path)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # any of zipfile's, pickle's, safetensors', torch's
        hint = ("; it is a TorchScript archive, save its state dict: torch.save(torch.jit.load"
                "('in.pt', 'cpu').state_dict(), 'out.pt')" if 'TorchScript' in str(error) else '')
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        if isinstance(error, pickle.UnpicklingError):  # torch advises to load it unsafely
            reason = 'torch did not write it, or it holds more than tensors'
        raise ValueError(f'{path} is no checkpoint of tensors: {reason}{hint}') from error
    if isinstance(state, dict) and isinstance(state.get('state_dict'), dict):
        state = state['state_dict']
    if not isinstance(state, dict) or not state or not all(
            isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'{path} is no state dict: expected names and tensors')
    return {key.removeprefix('module.'): value for key, value in state.items()}
