"""--cfg-options that change nothing, or name what is not there, are refused with a way out."""
import difflib
import inspect
import re
from typing import Any, Dict, Iterator, Optional, Sequence, Set, Tuple

from mmdet3d.registry import DATASETS, METRICS, MODELS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config
from mmengine.runner import Runner

_PAGE = "docs/your_dataset.md, 'Changing one thing'"
# What a run reads of a config: the runner's arguments, what it looks up in the config itself, and
# what tools/test.py asks for.
RUNNER_KEYS = tuple(name for name in inspect.signature(Runner.__init__).parameters
                    if name not in ('self', 'cfg')) + (
    'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters', 'activation_checkpointing',
    'efficient_conv_bn_eval', 'compile', 'runner_type', 'needs_checkpoint')
_REGISTRIES = (MODELS, DATASETS, TRANSFORMS, METRICS, TASK_UTILS)
_OF_MMENGINE = ('type', '_delete_', '_scope_')
_OF_IMAGE_SIZE = ('data_config', 'img_view_transformer', 'image_head')
_MOST_PLACES = 8  # that a message lists


def merge_options(cfg: Config, options: Optional[Dict[str, Any]],
                  also_read: Sequence[str] = ()) -> None:
    """Merge dotted options into a config, in place.

    A top-level name that nothing reads is most often a variable of the config files: by now its
    value stands in the dicts that took it, and to change the variable changes nothing.

    Args:
        cfg: as loaded from its file.
        options: dotted key -> value, as mmengine's DictAction gives them.
        also_read: top-level names that the tool reads, beside :data:`RUNNER_KEYS`.

    Raises:
        ValueError: an option that nothing reads, with the places that do count; one that its class
            (of this package) does not take.
    """
    read = {*RUNNER_KEYS, *also_read}
    for key in options or ():
        if key.split('.')[0] not in read and 'runner_type' not in cfg:
            raise ValueError(_not_read(cfg, key, read))
        _check_taken(cfg, key)
    cfg.merge_from_dict(options or {})


def check_image_sizes(cfg: Config) -> None:
    """Whether all pipelines give images of the size that the model is built for.

    Raises:
        ValueError: they do not; the message names every place.
    """
    of_model = dict(_sizes(cfg.get('model') or {}, 'model'))
    of_data: Dict[str, Tuple[int, ...]] = {}
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        of_data.update(_sizes(cfg.get(name) or {}, name))
    if not of_model or len({*of_model.values(), *of_data.values()}) < 2:
        return
    places: Dict[Tuple[int, ...], list] = {}
    for place, size in {**of_model, **of_data}.items():
        places.setdefault(size, []).append(place)
    stated = '; '.join(f'{size} at {", ".join(names)}' for size, names in places.items())
    raise ValueError(f'images of more than one size, (height, width): {stated}. Set all of them '
                     f'({_PAGE})')


def _sizes(part: Any, place: str) -> Iterator[Tuple[str, Tuple[int, ...]]]:
    """``input_size`` of pipelines, view transformers and image heads (teachers have their own)."""
    for name, value in _items(part):
        here = f'{place}.{name}'
        if name in _OF_IMAGE_SIZE and isinstance(value, dict) and 'input_size' in value:
            yield f'{here}.input_size', tuple(value['input_size'])
        else:
            yield from _sizes(value, here)


def _items(part: Any) -> Iterator[Tuple[str, Any]]:
    if isinstance(part, dict):
        yield from part.items()
    elif isinstance(part, (list, tuple)):
        yield from ((str(index), value) for index, value in enumerate(part))


def _not_read(cfg: Config, key: str, read: Set[str]) -> str:
    """What to say of an option that nothing reads."""
    name, _, rest = key.partition('.')
    said = f'--cfg-options {key}: '
    if name not in cfg:
        near = difflib.get_close_matches(name, sorted(read), 1)
        return f'{said}nothing reads {name!r}' + (f'; {near[0]!r} is near' if near else '')
    said += f'{name!r} is only a variable of the config files, whose value is in its places already'
    variable = re.search(rf'^{name} = .*environ\.get\([\'"](\w+)', cfg.text, re.M)
    if variable:
        return f'{said}; set {variable[1]} in the environment'
    names = set(re.findall(rf'(\w+)=(?:_base_\.)?{name}\b', cfg.text))
    places = [place for part in sorted(read & set(cfg))
              for place in _places(cfg[part], part, name, names, cfg[name])]
    if not places:
        return f'{said}, none of them under its name; how to change it: {_PAGE}'
    shown = ', '.join(f'{place}.{rest}' if rest else place for place in places[:_MOST_PLACES])
    more = f' and {len(places) - _MOST_PLACES} more' if len(places) > _MOST_PLACES else ''
    return f'{said}; set {shown}{more}, or change them in a config of your own ({_PAGE})'


def _places(part: Any, place: str, name: str, names: Set[str], value: Any) -> Iterator[str]:
    """Dotted places under ``part`` that have the name, or the value under one of ``names``."""
    for key, item in _items(part):
        here = f'{place}.{key}'
        if key == name or (key in names and _alike(item, value)):
            yield here
        else:
            yield from _places(item, here, name, names, value)


def _alike(item: Any, value: Any) -> bool:
    """Equal; of dicts with a type, of one type, since options may have been merged into them."""
    if isinstance(item, dict) and isinstance(value, dict) and 'type' in item:
        return item['type'] == value.get('type')
    return item == value


def _check_taken(cfg: Config, key: str) -> None:
    """Whether the class of the innermost dict that is there takes what is new in it."""
    owner: Any = dict(cfg.items())
    for part in key.split('.'):
        below = dict(_items(owner))
        if part not in below:
            break
        owner = below[part]
    else:
        return
    kind = owner.get('type') if isinstance(owner, dict) else None
    taken = _parameters(kind) if isinstance(kind, str) else None
    if taken is not None and part not in (*taken, *_OF_MMENGINE):
        near = difflib.get_close_matches(part, taken, 1)
        raise ValueError(f'--cfg-options {key}: {kind} takes no {part!r}; '
                         + (f'{near[0]!r} is near' if near else f'it takes {", ".join(taken)}'))


def _parameters(kind: str) -> Optional[Tuple[str, ...]]:
    """Arguments of a class of this package and of those that its ``**kwargs`` go to; else None."""
    classes = [registry.get(kind) for registry in _REGISTRIES]
    found = next((item for item in classes if inspect.isclass(item)), None)
    if found is None or not found.__module__.startswith('langocc.'):
        return None
    names: Dict[str, None] = {}
    for parent in found.__mro__:
        if '__init__' not in vars(parent):
            continue
        parameters = list(inspect.signature(parent.__init__).parameters.values())[1:]
        names.update((item.name, None) for item in parameters if item.kind != item.VAR_KEYWORD)
        if not any(item.kind == item.VAR_KEYWORD for item in parameters):
            return tuple(names)
    return None
