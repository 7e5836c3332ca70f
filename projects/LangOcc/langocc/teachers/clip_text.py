"""CLIP's text tower from weights on this machine. Nothing here ever asks the network.

Legend: K prompts, T templates, E embedding.
"""
import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor, nn

from ..files import existing_file
from .offline_text import OfflineTextEncoder
from .text import PathLike, TextEncoder

CLIP_WEIGHTS_VARIABLE = 'LANGOCC_CLIP_WEIGHTS'
DEFAULT_TEMPLATES: Tuple[str, ...] = ('a photo of a {}.',)
_CONFIG_NAME = 'open_clip_config.json'
_WEIGHT_NAMES = ('open_clip_model.safetensors', 'open_clip_pytorch_model.safetensors',
                 'open_clip_pytorch_model.bin')
# Repositories of CLIP ViT-B/16 that open_clip fills the Hugging Face cache with -> model name.
_CACHED_MODELS = {
    'timm/vit_base_patch16_clip_224.openai': 'ViT-B-16-quickgelu',
    'laion/CLIP-ViT-B-16-laion2B-s34B-b88K': 'ViT-B-16',
    'laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K': 'ViT-B-16',
}
# Entries that OpenAI's own files have beside the weights.
_OPENAI_MARKS = ('input_resolution', 'context_length', 'vocab_size')
_MAX_LISTED = 3


@TASK_UTILS.register_module()
class ClipTextEncoder(TextEncoder):
    """CLIP's text encoder, by open_clip, on the CPU.

    Every prompt goes into every template; the T embeddings are normalised, averaged and normalised
    again.

    Args:
        weights: A file (``.safetensors``, or ``.pt``, ``.pth``, ``.bin`` with a state dict of
            tensors), or a folder with such a file and, where it has one, ``open_clip_config.json``,
            which then decides the model. None takes the environment's LANGOCC_CLIP_WEIGHTS. The
            image tower may be left out of the file.
        model: open_clip's name of the model. OpenAI's own weights were trained with another
            activation: 'ViT-B-16-quickgelu' is their name.
        templates: T sentences with '{}' where the prompt goes.
        chunk_size: Sentences at a time.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError: no weights are named, or they are not there.
        ValueError: the file is no state dict, its weights are not those of ``model`` (names the
            first missing, unexpected and misshapen ones), the model is unknown or needs a
            tokenizer from the network, or a template has no '{}'.
    """

    def __init__(self,
                 weights: Optional[PathLike] = None,
                 model: str = 'ViT-B-16',
                 templates: Sequence[str] = DEFAULT_TEMPLATES,
                 chunk_size: int = 256) -> None:
        self.templates = tuple(templates)
        if not self.templates or not all('{}' in template for template in self.templates):
            raise ValueError(f"templates {self.templates}: expected at least one, each with '{{}}'")
        weights = weights or os.environ.get(CLIP_WEIGHTS_VARIABLE)
        if not weights:
            raise FileNotFoundError(f'no CLIP weights: name a file or folder, as an argument or in '
                                    f'{CLIP_WEIGHTS_VARIABLE}')
        self.weights, config = locate_weights(weights)
        self.model_name = str(config or model)
        self.chunk_size = chunk_size
        model_config = _model_config(config, model)
        self._tower = _text_tower(model_config)
        _load(self._tower, self.weights, self.model_name, bool(model_config.get('quick_gelu')))
        text_config = model_config['text_cfg']
        self._tokenizer = _open_clip().SimpleTokenizer(
            context_length=text_config.get('context_length', 77),
            **text_config.get('tokenizer_kwargs', {}))
        self._embed_dims = int(model_config['embed_dim'])

    @property
    def embed_dims(self) -> int:
        """E."""
        return self._embed_dims

    @property
    def name(self) -> str:
        """What made the rows, in words."""
        return f'CLIP {self.model_name}'

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file."""
        with open(self.weights, 'rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()

    def describe(self) -> Dict[str, Any]:
        """See :meth:`TextEncoder.describe`."""
        return dict(super().describe(), encoder=self.name, weights_sha256=self.weights_sha256,
                    templates=list(self.templates))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embed any sentences, (K, E) float32, unit rows."""
        sentences = [template.replace('{}', prompt) for prompt in prompts
                     for template in self.templates]
        rows = [torch.zeros(0, self.embed_dims)]
        for start in range(0, len(sentences), self.chunk_size):
            tokens = self._tokenizer(sentences[start:start + self.chunk_size])
            rows.append(self._tower(tokens).float())
        each = F.normalize(torch.cat(rows), dim=-1)
        return F.normalize(each.reshape(-1, len(self.templates), self.embed_dims).mean(1), dim=-1)


class _TextTower(nn.Module):
    """The text side of an open_clip model, with the names that its state dict has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # CustomTextCLIP keeps its tower in ``text``; CLIP has its parts beside the image tower.
        self.prefix = 'text.' if hasattr(model, 'text') else ''
        model.visual = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


def locate_weights(weights: PathLike) -> Tuple[Path, Optional[Path]]:
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


def available_text_encoder(weights: Optional[PathLike] = None) -> TextEncoder:
    """CLIP where its weights are on this machine, else the offline words; says which and why.

    Looks at the argument, at LANGOCC_CLIP_WEIGHTS, and for CLIP ViT-B/16 in the Hugging Face cache.
    Weights that were named and cannot be used are an error, never a reason to go on without.

    Args:
        weights: See :class:`ClipTextEncoder`.

    Raises:
        See :class:`ClipTextEncoder`, if weights are named.
    """
    named = weights or os.environ.get(CLIP_WEIGHTS_VARIABLE)
    if named:
        encoder = ClipTextEncoder(named)
        print_log(f'text encoder: {encoder.name} from {encoder.weights}', 'current')
        return encoder
    cached = _cached_weights()
    reason = 'no CLIP weights were found'
    if cached:
        try:
            encoder = ClipTextEncoder(*cached)
            print_log(f'text encoder: {encoder.name} from {encoder.weights}, found in the cache',
                      'current')
            return encoder
        except ImportError as error:
            reason = f'CLIP weights are in {cached[0]}, but {error}'
    encoder = OfflineTextEncoder()
    print_log(f'text encoder: {encoder.name} ({len(encoder.words)} words and no others), since '
              f'{reason}. Free text needs CLIP: name weights in {CLIP_WEIGHTS_VARIABLE} before '
              f'data and models are made', 'current')
    return encoder


def _cached_weights() -> Optional[Tuple[Path, str]]:
    """Snapshot folder and model name of a CLIP ViT-B/16 in the Hugging Face cache."""
    home = os.environ.get('HF_HOME') or '~/.cache/huggingface'
    cache = Path(os.environ.get('HF_HUB_CACHE') or f'{home}/hub').expanduser()
    for repository, model in _CACHED_MODELS.items():
        folder = cache / f'models--{repository.replace("/", "--")}' / 'snapshots'
        for snapshot in sorted(folder.glob('*')):
            if any((snapshot / name).is_file() for name in _WEIGHT_NAMES):
                return snapshot, model
    return None


def _open_clip():
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(f"CLIP's text encoder needs open_clip, which cannot be imported "
                          f'({error}); pip install open_clip_torch==3.3.0') from error
    return open_clip


def _model_config(config: Optional[Path], model: str) -> Dict[str, Any]:
    """open_clip's configuration of a model, from a JSON file or by name."""
    if config is None:
        found = _open_clip().get_model_config(model)
        if found is None:
            raise ValueError(f'open_clip knows no model {model!r}; for instance ViT-B-16, '
                             f'ViT-B-16-quickgelu, ViT-L-14')
    else:
        try:
            found = json.loads(config.read_text(encoding='utf-8'))['model_cfg']
        except (ValueError, KeyError) as error:
            raise ValueError(f'{config}: expected JSON with model_cfg ({error!r})') from error
    text_config = found.get('text_cfg', {})
    for key in ('hf_model_name', 'hf_tokenizer_name'):
        if key in text_config:
            raise ValueError(f'model {config or model} takes its {key} {text_config[key]!r} from '
                             f'the network, which is never asked; expected a model of its own '
                             f'text tower and tokenizer, such as ViT-B-16')
    return found


def _text_tower(config: Dict[str, Any]) -> _TextTower:
    """A random text tower on the CPU in evaluation mode."""
    open_clip = _open_clip()
    settings = {key: value for key, value in config.items() if key != 'custom_text'}
    kind = open_clip.CustomTextCLIP if config.get('custom_text') else open_clip.CLIP
    state = torch.get_rng_state()
    tower = _TextTower(kind(**settings)).eval()
    torch.set_rng_state(state)  # initial values that are overwritten must not move the seed
    return tower


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
        raise ValueError(f'{path} is no checkpoint of tensors: {reason}{hint}') from error
    if isinstance(state, dict) and isinstance(state.get('state_dict'), dict):
        state = state['state_dict']
    if not isinstance(state, dict) or not state or not all(
            isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'{path} is no state dict: expected names and tensors')
    return {key.removeprefix('module.'): value for key, value in state.items()}


def _load(tower: _TextTower, path: Path, model: str, quick_gelu: bool) -> None:
    """Load the text side of a weights file.

    Raises:
        ValueError: other weights than this model's.
    """
    state = _read_state(path)
    if any(mark in state for mark in _OPENAI_MARKS) and not quick_gelu:
        raise ValueError(f"{path} holds OpenAI's weights, which need the activation QuickGELU; "
                         f"model is {model!r}, expected for instance 'ViT-B-16-quickgelu'")
    state = {key.removeprefix('text.'): value for key, value in state.items()
             if not key.startswith(('visual.', 'logit_')) and key not in _OPENAI_MARKS}
    wanted = {key.removeprefix(tower.prefix): value for key, value in
              tower.model.state_dict().items() if not key.startswith('logit_')}
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = [f'{key}: {tuple(state[key].shape)}, expected {tuple(wanted[key].shape)}'
              for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or unexpected or shapes:
        found = ((kind, names) for kind, names in (
            ('missing', missing), ('unexpected', unexpected), ('of another shape', shapes)))
        text = '; '.join(f'{len(names)} {kind} ({", ".join(names[:_MAX_LISTED])})'
                         for kind, names in found if names)
        raise ValueError(f'{path} does not hold the text weights of {model!r}: {text}')
    tower.model.load_state_dict({tower.prefix + key: value for key, value in state.items()},
                                strict=False)
