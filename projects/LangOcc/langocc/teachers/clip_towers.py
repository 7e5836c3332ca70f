"""CLIP's image and text towers as open_clip builds them, with weights from this machine.

Legend: K prompts, E embedding.
"""
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

from .clip_weights import ClipWeights, import_open_clip, read_config

_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
# CLIP's factor of the cosines at the end of its training, where its authors clamp it.
_LOGIT_SCALE = 100.0
_MAX_LISTED = 3
# The text side's construction wants an image side, which is dropped at once.
_NO_VISION = dict(image_size=32, patch_size=32, layers=1, width=64, head_width=64)


class TextTower(nn.Module):
    """The text side of an open_clip model and its tokenizer, on the CPU in evaluation mode.

    Args:
        weights: What to load.

    Attributes:
        embed_dims: E.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: see :class:`ClipWeights`; other weights than this model's (names the first
            missing, unexpected and misshapen ones); or a model that takes its tokenizer or tower
            from the network.
    """

    def __init__(self, weights: ClipWeights) -> None:
        super().__init__()
        config = weights.model_config
        _refuse_network(config, weights)
        open_clip = import_open_clip()
        settings = {key: value for key, value in config.items() if key != 'custom_text'}
        settings['vision_cfg'] = _NO_VISION
        kind = open_clip.CustomTextCLIP if config.get('custom_text') else open_clip.CLIP
        with torch.random.fork_rng(devices=[]):  # overwritten values must not move the seed
            self.model = kind(**settings).eval()
        self.model.visual = nn.Identity()
        self._load(weights)
        text_config = config['text_cfg']
        self.embed_dims = int(config['embed_dim'])
        self.tokenizer = open_clip.SimpleTokenizer(
            context_length=text_config.get('context_length', 77),
            **text_config.get('tokenizer_kwargs', {}))

    def forward(self, sentences: List[str]) -> Tensor:
        """(K, E) embeddings of sentences, of any length, where the tower is."""
        device = next(self.model.parameters()).device
        return self.model.encode_text(self.tokenizer(sentences).to(device))

    def _load(self, weights: ClipWeights) -> None:
        # CustomTextCLIP keeps its tower in ``text``; CLIP has its parts beside the image tower.
        prefix = 'text.' if hasattr(self.model, 'text') else ''
        state = {key.removeprefix('text.'): value for key, value in weights.read().items()
                 if not key.startswith(('visual.', 'logit_'))}
        wanted = {key.removeprefix(prefix): value for key, value in
                  self.model.state_dict().items() if not key.startswith('logit_')}
        _check(state, wanted, weights, 'text')
        self.model.load_state_dict({prefix + key: value for key, value in state.items()},
                                   strict=False)


def image_tower(weights: ClipWeights, state: Dict[str, Tensor]) -> nn.Module:
    """The image side of a model, on the CPU in evaluation mode.

    Args:
        weights: Of which model.
        state: What ``weights.read()`` gave.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: see :class:`ClipWeights`, or other weights than this model's (names the first
            missing, unexpected and misshapen ones).
    """
    open_clip = import_open_clip()
    config = weights.model_config
    vision = {**config['vision_cfg'], 'timm_model_pretrained': False, 'output_tokens': False}
    with torch.random.fork_rng(devices=[]):  # overwritten values must not move the seed
        tower = open_clip.model._build_vision_tower(
            config['embed_dim'], vision, config.get('quick_gelu', False))
    visual = {key.removeprefix('visual.'): value for key, value in state.items()
              if key.startswith('visual.')}
    _check(visual, tower.state_dict(), weights, 'image')
    tower.load_state_dict(visual)
    return tower.eval()


def normalization(weights: ClipWeights) -> Tuple[Tuple[float, ...], Tuple[float, ...]]:
    """Mean and deviation of the three channels of images in [0, 1] that a model was trained with.

    From the configuration beside the weights, or else open_clip's for the tag, or else that of all
    of open_clip's trainings of the model.

    Raises:
        ValueError: trainings of the model differ, and none is named.
    """
    if weights.config is not None:
        found = read_config(weights.config, 'preprocess_cfg', {})
        if 'mean' in found and 'std' in found:
            return tuple(found['mean']), tuple(found['std'])
    open_clip = import_open_clip()
    tags = [weights.tag] if weights.tag else open_clip.list_pretrained_tags_by_model(weights.model)
    found = {(tuple(config['mean']), tuple(config['std'])) for config in
             (open_clip.get_pretrained_cfg(weights.model, tag) for tag in tags)}
    if len(found) > 1:
        raise ValueError(f'trainings of {weights.model} differ in mean and std of images '
                         f'({sorted(found)}); name mean and std, or the tag (one of {tags})')
    return found.pop() if found else (_OPENAI_MEAN, _OPENAI_STD)


def logit_scale(state: Dict[str, Tensor]) -> float:
    """What cosines are multiplied by before the softmax; 100 where the weights have not got it."""
    return float(state['logit_scale'].exp()) if 'logit_scale' in state else _LOGIT_SCALE


def _refuse_network(config: Dict[str, Any], weights: ClipWeights) -> None:
    text_config = config.get('text_cfg', {})
    for key in ('hf_model_name', 'hf_tokenizer_name'):
        if key in text_config:
            raise ValueError(f'model {weights.shown} takes its {key} {text_config[key]!r} from '
                             f'the network, which is never asked; expected a model of its own '
                             f'text tower and tokenizer, such as ViT-B-16')


def _check(state: Dict[str, Tensor], wanted: Dict[str, Tensor], weights: ClipWeights,
           side: str) -> None:
    """Refuse other names and shapes than those wanted."""
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = [f'{key}: {tuple(state[key].shape)}, expected {tuple(wanted[key].shape)}'
              for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or unexpected or shapes:
        found = ((kind, names) for kind, names in (
            ('missing', missing), ('unexpected', unexpected), ('of another shape', shapes)))
        text = '; '.join(f'{len(names)} {kind} ({", ".join(names[:_MAX_LISTED])})'
                         for kind, names in found if names)
        raise ValueError(f'{weights.path} does not hold the {side} weights of '
                         f'{weights.shown!r}: {text}')
