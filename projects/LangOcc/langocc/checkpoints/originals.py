"""The networks that the families' checkpoints are of: what the way back must give."""
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .families import FAMILIES, Family
from .targets import Target, target_of

# Recipes whose networks are the published ones, tensor by tensor.
_RECIPES = {
    'langocc': {'the full model': 'published/langocc-full_r50_4xb4-18e_nus-occ3d.py',
                'the reduced model': 'published/langocc-reduced_r50_4xb4-18e_nus-occ3d.py'},
    'bevdet-occ': {'bevdet-occ-r50-4d-stereo':
                   'published/bevstereo-occ_r50_4xb4-24e_nus-occ3d.py'},
    'bevdet': {'bevdet-r50-4d-stereo-cbgs': 'flashocc_r50_4xb4-24e_nus-occ3d.py'}}
# What a detector has otherwise than the recipe whose trunk is its: 59 depth bins.
_CHANGES = {'bevdet': {'model.img_view_transformer.grid_config.depth': [1., 60., 1.]}}
_DEPTHS = (18, 34, 50, 101, 152)  # of torchvision's ResNets


def networks_of(family: Family, configs: Path, target: Optional[Target] = None) -> List[Target]:
    """Networks of a family, with our names of what the family has.

    Args:
        family: wanted.
        configs: folder of this project's recipes.
        target: a recipe's model: the family's network has its sizes then; None: those that are
            published.

    Raises:
        ValueError: the family has no such network: a part is of another type.
    """
    known = [_shared(network, family) for network in _published(family, configs)]
    if target is None:
        return known
    for part, kinds in family.kinds.items():
        found = target.kinds.get(part)
        if found not in kinds and part.split('.')[0] not in family.loose:
            raise ValueError(f'{target.name} describes no {family.title}: its {part} is {found}, '
                             f'theirs {" or ".join(kinds)}')
    parts = {_part(name, family) for name in known[0].shapes}
    shapes = {name: shape for name, shape in _shared(target, family).shapes.items()
              if _part(name, family) in parts}
    for part in family.loose:
        if target.kinds.get(part) not in family.kinds[part]:
            shapes = {name: shape for name, shape in shapes.items() if not _is_of(name, part)}
            shapes.update({name: shape for name, shape in known[0].shapes.items()
                           if _is_of(name, part)})
    if family is FAMILIES['torchvision'] and not any(set(shapes) == set(network.shapes)
                                                     for network in known):
        raise ValueError(f'{target.name} describes no {family.title}: the layers of its '
                         'img_backbone are of none of them')
    return [Target(target.name, shapes, target.reducer_dims, target.bgr)]


def _published(family: Family, configs: Path) -> List[Target]:
    if family is FAMILIES['torchvision']:
        return [_resnet(depth) for depth in _DEPTHS]
    networks = []
    for name, recipe in _RECIPES[family.name].items():
        cfg = Config.fromfile(configs / recipe)
        cfg.merge_from_dict(_CHANGES.get(family.name, {}))
        networks.append(target_of(cfg, name))
    return networks


def _resnet(depth: int) -> Target:
    init_default_scope('mmdet3d')
    with torch.device('meta'):
        built = MODELS.build(dict(type='mmdet.ResNet', depth=depth))
    return Target(f'ResNet-{depth}', {f'img_backbone.{name}': tuple(tensor.shape)
                                      for name, tensor in built.state_dict().items()})


def _shared(network: Target, family: Family) -> Target:
    """The network without what the family has not."""
    changed: Dict[str, Any] = dict(vars(network), shapes={
        name: shape for name, shape in network.shapes.items() if family.theirs(name) is not None})
    return Target(**changed)


def _part(name: str, family: Family) -> str:
    """What their name of our tensor begins with."""
    return (family.theirs(name) or '').split('.')[0]


def _is_of(name: str, part: str) -> bool:
    return name.startswith(f'{part}.')
