"""Optimizer, length and learning rate of a BEVDet config (mmcv 1.x) -> ours (mmengine).

What cannot be said in mmengine's terms leaves the recipe's own in place, and a note says so.
"""
from typing import Any, Dict, List, Optional, Tuple

from .config_reading import ConfigValues

_LR_KEYS = {'policy', 'step', 'gamma', 'by_epoch', 'warmup', 'warmup_iters', 'warmup_ratio'}


def set_schedule(cfg: dict, source: ConfigValues) -> List[str]:
    """Writes their schedule into our config; returns what a person should know of it."""
    notes = _set_optimizer(cfg['optim_wrapper'], source)
    epochs, iters, more = _set_length(cfg, source.get('runner') or {}, source)
    schedule = source.get('lr_config')
    if schedule:
        schedulers, problem = _schedulers(schedule, epochs, iters)
        if problem is None:
            cfg['param_scheduler'] = schedulers
        else:
            more.append(f'lr_config with {problem} is not converted: the recipe keeps its own '
                        'param_scheduler')
    else:
        more.append('lr_config is not given: the recipe keeps its own param_scheduler')
    return notes + more


def _set_optimizer(wrapper: dict, source: ConfigValues) -> List[str]:
    optimizer = dict(source.get('optimizer') or {})
    if optimizer:
        wrapper.pop('paramwise_cfg', None)
        if optimizer.get('paramwise_cfg'):
            wrapper['paramwise_cfg'] = optimizer['paramwise_cfg']
        wrapper['optimizer'] = {key: value for key, value in optimizer.items()
                                if key != 'paramwise_cfg'}
    hook = source.get('optimizer_config')
    if hook is None:
        return ["optimizer_config is not given: the recipe's clipping of gradients stays"]
    wrapper['clip_grad'] = dict(hook['grad_clip']) if hook.get('grad_clip') else None
    left = sorted(set(hook) - {'grad_clip'})
    return [f'not read of optimizer_config: {left}'] if left else []


def _set_length(cfg: dict, runner: dict, source: ConfigValues
                ) -> Tuple[Optional[int], Optional[int], List[str]]:
    """Epochs or iterations: (epochs, None, notes), (None, iterations, notes), or neither."""
    epochs, iters = runner.get('max_epochs'), runner.get('max_iters')
    if epochs:
        cfg['max_epochs'] = cfg['train_cfg']['max_epochs'] = epochs
        cfg['train_cfg']['val_interval'] = epochs
        return epochs, None, []
    if not iters:
        return None, None, [f'runner is {runner or "not given"}: the recipe\'s '
                            f'{cfg["train_cfg"]["max_epochs"]} epochs stay']
    interval = (source.values.get('checkpoint_config') or {}).get('interval') or iters
    cfg['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=iters)
    hooks = cfg['default_hooks'] = dict(cfg['default_hooks'])
    hooks['checkpoint'] = dict(hooks['checkpoint'], by_epoch=False, interval=interval)
    cfg['log_processor'] = dict(cfg['log_processor'], by_epoch=False)
    return None, iters, [f'{iters} iterations, evaluated at their end, a checkpoint every '
                         f'{interval}; max_epochs of the recipe counts no longer']


def _schedulers(schedule: Dict[str, Any], epochs: Optional[int], iters: Optional[int]
                ) -> Tuple[List[dict], Optional[str]]:
    """mmengine's schedulers, and what of ``lr_config`` has none (None: all has)."""
    by_epoch = schedule.get('by_epoch', iters is None)
    others = {key: value for key, value in schedule.items() if key not in _LR_KEYS and value}
    if schedule.get('policy') != 'step':
        return [], f"policy '{schedule.get('policy')}'"
    if others:
        return [], ', '.join(f'{key}={value!r}' for key, value in sorted(others.items()))
    if by_epoch and iters is not None:
        return [], 'by_epoch=True under a runner of iterations'
    warm, problem = _warm_up(schedule.get('warmup'), schedule.get('warmup_iters', 0),
                             schedule.get('warmup_ratio', 0.1))
    if problem:
        return [], problem
    length = epochs if by_epoch else iters
    until = {} if length is None else dict(end=length)
    common = dict(gamma=schedule.get('gamma', 0.1), by_epoch=by_epoch, begin=0, **until)
    steps = schedule['step']
    if isinstance(steps, int):  # a period, not a milestone
        return warm + ([] if length is not None and steps >= length else [
            dict(type='StepLR', step_size=steps, **common)]), None
    steps = [step for step in steps if length is None or step < length]
    return warm + ([dict(type='MultiStepLR', milestones=steps, **common)] if steps else []), None


def _warm_up(kind: Optional[str], count: int, ratio: float) -> Tuple[List[dict], Optional[str]]:
    """mmcv's warm-up over ``count`` iterations from ``ratio`` of the rate; or what it has not."""
    if kind is None:
        return [], None
    if kind not in ('linear', 'constant', 'exp') or count < 1 or not 0 < ratio <= 1:
        return [], f"warmup='{kind}', warmup_iters={count}, warmup_ratio={ratio}"
    if kind == 'linear':
        return [dict(type='LinearLR', start_factor=ratio, begin=0, end=count, by_epoch=False)], None
    if kind == 'constant':
        return [dict(type='ConstantLR', factor=ratio, begin=0, end=count + 1, by_epoch=False)], None
    # ratio ** (1 - i / count): the factor ratio for good, and a growth that has made up for it.
    return [dict(type='ConstantLR', factor=ratio, by_epoch=False),
            dict(type='ExponentialLR', gamma=ratio**(-1 / count), begin=0, end=count + 1,
                 by_epoch=False)], None
