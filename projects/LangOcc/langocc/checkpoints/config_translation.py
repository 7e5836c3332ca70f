"""BEVDet's occupancy configs (mmdet3d 0.x) -> ours, as differences from one of our recipes.

The keys that describe the network keep their names and meaning here; what differs is where they
stand (the head is a part of its own, transforms are of mmdet3d 1.x) and the registry's scopes.
"""
import copy
import os
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

from mmengine.config import Config

from .config_reading import ConfigValues
from .schedule_translation import set_schedule

DETECTOR = 'BEVStereo4DOCC'
# Parts whose config stands here as it does there, by its type there.
_PARTS = dict(img_neck='CustomFPN', img_view_transformer='LSSViewTransformerBEVStereo',
              pre_process='CustomResNet3D', img_bev_encoder_backbone='CustomResNet3D',
              img_bev_encoder_neck='LSSFPN3D')
_HEAD_KEYS = ('out_dim', 'num_classes', 'use_mask', 'loss_occ')
_DONE = ('type', 'img_backbone', 'num_adj', 'use_predicter', 'align_after_view_transfromation',
         *_PARTS, *_HEAD_KEYS)
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def translate(source: ConfigValues, base: Config) -> Tuple[Dict[str, Any], List[str]]:
    """A BEVDet-Occ config in the terms of one of our recipes.

    Args:
        source: what the file assigns.
        base: a recipe with ``BEVOccHead``.

    Returns:
        What differs from ``base``, as a config that has it for ``_base_`` says it; and lines that
        tell what was left out and what else there is to do.

    Raises:
        ValueError: another model, or a part that has no counterpart here.
    """
    model = _require(source, 'model')
    if model.get('type') != DETECTOR:
        raise ValueError(f"model.type is '{model.get('type')}', expected '{DETECTOR}': other "
                         'networks than BEVDet\'s occupancy network are not converted')
    cfg = copy.deepcopy(base.to_dict())
    notes = _set_model(cfg['model'], model, _require(source, 'grid_config'))
    notes += _set_data(cfg, source) + set_schedule(cfg, source)
    read = {'model', 'grid_config', 'data_config', 'bda_aug_conf', 'multi_adj_frame_id_cfg',
            'optimizer', 'optimizer_config', 'lr_config', 'runner', 'data', 'load_from'}
    left = sorted((set(source.values) | set(source.unread)) - read)
    notes.append(f'not read, the recipe\'s own take their place: {left}')
    if source.get('load_from'):
        notes.append(f'load_from {source.get("load_from")}: convert it by '
                     'tools/convert_checkpoint.py, then set load_from to the result')
    return difference(cfg, base.to_dict()), notes


def config_text(changes: Dict[str, Any], base: Union[str, Path], out: Union[str, Path],
                source: str) -> str:
    """The text of a config file at ``out`` that changes the recipe ``base``."""
    relative = os.path.relpath(Path(base).resolve(), Path(out).resolve().parent)
    head = f'"""Converted from {source} by tools/convert_config.py."""\n_base_ = [{relative!r}]\n\n'
    return head + (Config(changes).pretty_text if changes else '')


def difference(new: Any, old: Any) -> Any:
    """What a config says that turns ``old`` into ``new``; dicts only where something differs."""
    changes = {}
    for key, value in new.items():
        if key in old and _same(value, old[key]):
            continue
        if not isinstance(value, dict) or not isinstance(old.get(key), dict):
            changes[key] = value
        elif set(old[key]) - set(value):
            changes[key] = dict(_delete_=True, **value)
        else:
            changes[key] = difference(value, old[key])
    return changes


def _same(one: Any, other: Any) -> bool:
    """Equal, lists and tuples alike."""
    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _require(source: ConfigValues, name: str) -> Any:
    value = source.get(name)
    if value is None:
        raise ValueError(f"the config has no '{name}'")
    return value


def _set_model(ours: dict, theirs: dict, grid_config: dict) -> List[str]:
    """Writes their network into our ``model``; what is ours alone (parity switches) stays."""
    if theirs.get('align_after_view_transfromation') or not theirs.get('use_predicter', True):
        raise ValueError('align_after_view_transfromation=True and use_predicter=False have no '
                         'counterpart here')
    ours['num_adj'] = theirs.get('num_adj', 1)
    ours['img_backbone'] = _backbone(theirs['img_backbone'], ours['img_backbone'])
    for part, kind in _PARTS.items():
        value = theirs.get(part)
        if not isinstance(value, dict) or value.get('type') != kind:
            found = value.get('type') if isinstance(value, dict) else value
            raise ValueError(f"model.{part} is '{found}', expected '{kind}'")
        kept = {key: item for key, item in ours[part].items()
                if key in ('truncate', 'published_invalid', 'low_memory', 'downsample')}
        ours[part] = {**kept, **value}
    head = ours['occ_head']
    axes = [grid_config[axis] for axis in 'xyz']
    head['grid'] = dict(head['grid'], voxel_size=[float(step) for _, _, step in axes],
                        point_cloud_range=[float(axis[i]) for i in (0, 1) for axis in axes])
    head['in_channels'] = ours['img_bev_encoder_neck']['out_channels']
    head['feat_channels'] = theirs.get('out_dim', 32)
    head['num_classes'] = theirs.get('num_classes', 18)
    head['mask'] = 'camera' if theirs.get('use_mask', True) else 'none'
    if 'loss_occ' in theirs:
        loss = dict(theirs['loss_occ'])
        head['loss_occ'] = dict(loss, type=_scoped(loss['type']))
    left = sorted(set(theirs) - set(_DONE))
    return [f'not read of the model: {left}'] if left else []


def _backbone(theirs: dict, ours: dict) -> dict:
    theirs = dict(theirs)
    if theirs.get('type') != 'ResNet':
        raise ValueError(f"model.img_backbone is '{theirs.get('type')}', expected 'ResNet': stereo "
                         'features are read behind its first stage')
    checkpoint = theirs.pop('pretrained', None) or (theirs.pop('init_cfg', None) or {}).get(
        'checkpoint')
    init_cfg = None if checkpoint is None else dict(type='BackboneInit', checkpoint=checkpoint)
    style = dict(style=theirs.pop('style', 'pytorch'))
    return dict(theirs, type='mmdet.ResNet', init_cfg=init_cfg, **style,
                norm_cfg=theirs.get('norm_cfg', ours['norm_cfg']))


def _scoped(kind: str) -> str:
    """A loss of mmdet's, in mmdet3d's registry."""
    return kind if '.' in kind else f'mmdet.{kind}'


def _set_data(cfg: dict, source: ConfigValues) -> List[str]:
    """Image and BEV augmentation, cameras and frames, in pipelines and data sets; batch size."""
    data_config, grid_config = _require(source, 'data_config'), source.get('grid_config')
    bev = source.get('bda_aug_conf')
    frames = tuple(_require(source, 'multi_adj_frame_id_cfg'))
    changes = dict(PrepareImageInputs=dict(data_config=data_config),
                   PointToMultiViewDepth=dict(grid_config=grid_config))
    if bev is not None:
        changes['BEVAug'] = dict(bda_aug_conf=bev)
    pipelines = [cfg[loader]['dataset']['pipeline'] for loader in _LOADERS]
    pipelines += [cfg[name] for name in ('train_pipeline', 'test_pipeline') if name in cfg]
    for pipeline in pipelines:
        for transform in pipeline:
            transform.update(changes.get(transform['type'], {}))
    for loader in _LOADERS:
        cfg[loader]['dataset'].update(multi_adj_frame_id_cfg=frames)
        if data_config.get('cams'):
            cfg[loader]['dataset']['camera_names'] = list(data_config['cams'])
    loader, problem = cfg['train_dataloader'], source.unread.get('data')
    if problem is None:
        data = source.get('data') or {}
        samples = (data.get('train_dataloader') or {}).get('samples_per_gpu',
                                                           data.get('samples_per_gpu'))
        if isinstance(samples, int) and samples > 0:
            loader['batch_size'] = samples
            return []
        problem = f'data.samples_per_gpu is {samples}'
    return [f"{problem}: the recipe's batch size of {loader['batch_size']} stays"]
