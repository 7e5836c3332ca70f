"""Names and shapes of the tensors that a config's model loads, without its memory or its data."""
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

# Parts of a head that are read from files of a data root; none has a parameter.
_FROM_FILES = ('vocabulary', 'reducer', 'start_at_vocabulary')
# Options that change what a part computes or how its tensors are named, not what its type is.
_OPTIONS = dict(style='pytorch', deep_stem=False, avg_down=False, norm_input=False)


@dataclass(frozen=True)
class Target:
    """What a model's state dict is.

    Attributes:
        name: of the config, for messages.
        shapes: name -> shape, without the reducer's matrix.
        reducer_dims: D of a reduced model, whose matrix is (E, D) for any E; None: no such matrix.
        bgr: whether the model reads images as the published ones do.
        kinds: part -> its type, without the registry's scope; the head's decoders too.
    """
    name: str
    shapes: Dict[str, Tuple[int, ...]]
    reducer_dims: Optional[int] = None
    bgr: bool = False
    kinds: Dict[str, str] = field(default_factory=dict)

    @property
    def colors(self) -> str:
        """Of the images that the model sees."""
        return 'BGR' if self.bgr else 'RGB'

    def names(self) -> Tuple[str, ...]:
        """All of them, the reducer's matrix too."""
        return (*self.shapes, *(['occ_head.reducer.matrix'] if self.reducer_dims else []))


def target_of(cfg: Config, name: str) -> Target:
    """The target that a config describes; vocabulary and reducer files need not be there.

    Args:
        cfg: with ``model``.
        name: for messages.

    Raises:
        ValueError: the config has no model.
    """
    if 'model' not in cfg:
        raise ValueError(f'{name} has no model')
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    model = cfg.model.to_dict()
    bgr = bool((model.pop('data_preprocessor', None) or {}).get('bgr', False))
    head, reduced = model.get('occ_head'), False
    if head is not None:
        reduced = head.get('reducer') is not None
        model['occ_head'] = {key: value for key, value in head.items() if key not in _FROM_FILES}
    with torch.device('meta'):
        built = MODELS.build(model)
    shapes = {key: tuple(value.shape) for key, value in built.state_dict().items()}
    dims = built.occ_head.language_decoder.out_channels if reduced else None
    return Target(name, shapes, dims, bgr, _kinds(model))


def _kinds(model: Dict[str, Any]) -> Dict[str, str]:
    """Types of the parts, named as in the config but for the name of pre_process's tensors."""
    head = model.get('occ_head') or {}
    parts = {**model, 'pre_process_net': model.get('pre_process'),
             'occ_head.density_decoder': head.get('density_decoder')}
    parts.update({f'occ_head.decoders.{name}': decoder
                  for name, decoder in (head.get('decoders') or {}).items()})
    kinds = {name: _kind(part) for name, part in parts.items()
             if isinstance(part, dict) and 'type' in part and name != 'pre_process'}
    return dict(kinds, volume_skip=str(model.get('volume_skip', False)))


def _kind(part: Dict[str, Any]) -> str:
    other = [f'{name}={part[name]}' for name, usual in _OPTIONS.items()
             if part.get(name, usual) != usual]
    return ' with '.join([part['type'].split('.')[-1], *other])
