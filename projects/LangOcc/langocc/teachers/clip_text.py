"""CLIP's text tower from weights on this machine. Nothing here ever asks the network.

Legend: K prompts, T templates, E embedding.
"""
from functools import cached_property
from typing import Any, Dict, List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor

from .clip_towers import TextTower
from .clip_weights import CLIP_WEIGHTS_VARIABLE, cached_snapshots, find_weights, named_weights
from .offline_text import OfflineTextEncoder
from .templates import DEFAULT_TEMPLATES, find_templates
from .text import PathLike, TextEncoder
from .text_cache import TextCache

# Repositories of CLIP ViT-B/16 that open_clip fills the Hugging Face cache with -> model name.
_CACHED_MODELS = {
    'timm/vit_base_patch16_clip_224.openai': 'ViT-B-16-quickgelu',
    'laion/CLIP-ViT-B-16-laion2B-s34B-b88K': 'ViT-B-16',
    'laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K': 'ViT-B-16',
}


@TASK_UTILS.register_module()
class ClipTextEncoder(TextEncoder):
    """CLIP's text encoder, by open_clip.

    Every prompt goes into every template; the T embeddings are normalised, averaged and normalised
    again.

    Args:
        weights: A file (``.safetensors``, or ``.pt``, ``.pth``, ``.bin`` with a state dict of
            tensors), or a folder with such a file and, where it has one, ``open_clip_config.json``,
            which then decides the model. None takes the environment's LANGOCC_CLIP_WEIGHTS. The
            image tower may be left out of the file.
        model: open_clip's name of the model. OpenAI's own weights were trained with another
            activation: 'ViT-B-16-quickgelu' is their name.
        templates: T sentences with '{}' where the prompt goes, or a name or file of such
            (:func:`find_templates`): 'clip85' are the 85 of the published recipe.
        chunk_size: Sentences at a time.
        pretrained: Instead of ``weights``, open_clip's tag of a training of ``model`` that lies in
            the Hugging Face cache, for instance 'openai'.
        cache: Keep rows on disk (:class:`TextCache`): True in the default place, or a folder. The
            tower is then loaded only for prompts that are not there.
        device: Where the tower runs; rows are on the CPU in any case.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError: no weights are named, or they are not there.
        ValueError: the file is no state dict, its weights are not those of ``model`` (names the
            first missing, unexpected and misshapen ones), the model is unknown or needs a
            tokenizer from the network, or a template has no '{}'. With ``cache``, what is wrong
            inside the file shows at the first prompt that is not cached.
    """

    def __init__(self,
                 weights: Optional[PathLike] = None,
                 model: str = 'ViT-B-16',
                 templates: Union[PathLike, Sequence[str]] = DEFAULT_TEMPLATES,
                 chunk_size: int = 256,
                 pretrained: Optional[str] = None,
                 cache: Union[bool, PathLike] = False,
                 device: str = 'cpu') -> None:
        self.templates = find_templates(templates)
        self._weights = find_weights(weights, pretrained, model)
        self.weights = self._weights.path
        self.model_name = self._weights.shown
        self.chunk_size = chunk_size
        self.device = torch.device(device)
        self._embed_dims = int(self._weights.model_config['embed_dim'])
        self._cache: Optional[TextCache] = None
        if cache:
            self._cache = TextCache(None if cache is True else cache, self._space(),
                                    self._embed_dims)
        else:
            self._tower  # loaded now, so that bad weights are an error now

    @property
    def embed_dims(self) -> int:
        """E."""
        return self._embed_dims

    @property
    def name(self) -> str:
        """What made the rows, in words."""
        return f'CLIP {self._weights.name}'

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file."""
        return self._weights.sha256

    def describe(self) -> Dict[str, Any]:
        """See :meth:`TextEncoder.describe`."""
        weights = self._weights
        return dict(super().describe(), encoder=self.name,
                    model=None if weights.config else weights.model, pretrained=weights.tag,
                    weights_sha256=self.weights_sha256, templates=list(self.templates))

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embed any sentences, (K, E) float32, unit rows."""
        if self._cache is None:
            return self._encode(prompts)
        return self._cache.rows(prompts, self._encode)

    @cached_property
    def _tower(self) -> TextTower:
        return TextTower(self._weights).to(self.device)

    def _space(self) -> Dict[str, Any]:
        """All that makes a row beside its prompt; not where the files lie, nor the device."""
        config = self._weights.model_config
        return dict(model={key: config.get(key) for key in (
            'embed_dim', 'text_cfg', 'quick_gelu', 'custom_text')},
            weights_sha256=self.weights_sha256, templates=self.templates)

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Tensor:
        sentences: List[str] = [template.replace('{}', prompt) for prompt in prompts
                                for template in self.templates]
        rows = [torch.zeros(0, self.embed_dims)]
        for start in range(0, len(sentences), self.chunk_size):
            rows.append(self._tower(sentences[start:start + self.chunk_size]).float().cpu())
        each = F.normalize(torch.cat(rows), dim=-1)
        return F.normalize(each.reshape(-1, len(self.templates), self.embed_dims).mean(1), dim=-1)


def available_text_encoder(weights: Optional[PathLike] = None) -> TextEncoder:
    """CLIP where its weights are on this machine, else the offline words; says which and why.

    Looks at the argument, at LANGOCC_CLIP_WEIGHTS, and for CLIP ViT-B/16 in the Hugging Face cache.
    Weights that were named and cannot be used are an error, never a reason to go on without.

    Args:
        weights: See :class:`ClipTextEncoder`.

    Raises:
        See :class:`ClipTextEncoder`, if weights are named.
    """
    options = find_clip(weights)
    reason = 'no CLIP weights were found'
    if options is not None:
        try:
            encoder = ClipTextEncoder(**options)
            place = 'found in the cache' if 'model' in options else 'as named'
            print_log(f'text encoder: {encoder.name} from {encoder.weights}, {place}', 'current')
            return encoder
        except ImportError as error:
            if 'model' not in options:
                raise
            reason = f'CLIP weights are in {options["weights"]}, but {error}'
    encoder = OfflineTextEncoder()
    print_log(f'text encoder: {encoder.name} ({len(encoder.words)} words and no others), since '
              f'{reason}. Free text needs CLIP: name weights in {CLIP_WEIGHTS_VARIABLE} before '
              f'data and models are made', 'current')
    return encoder


def find_clip(weights: Optional[PathLike] = None) -> Optional[Dict[str, Any]]:
    """What :class:`ClipTextEncoder` needs to know of the CLIP on this machine.

    Args:
        weights: A place that is named; None looks at LANGOCC_CLIP_WEIGHTS.

    Returns:
        ``weights``, if a place is named; or ``weights`` and ``model`` of a CLIP ViT-B/16 in the
        Hugging Face cache; or None.
    """
    named = named_weights(weights)
    if named:
        return dict(weights=named)
    for repository, model in _CACHED_MODELS.items():
        for snapshot in cached_snapshots(repository)[:1]:
            return dict(weights=snapshot, model=model)
    return None
