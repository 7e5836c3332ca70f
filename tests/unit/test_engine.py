"""Averaging, schedule, checkpoints, initialisation, hooks: what the runner is given."""
import argparse
import math
import os
import uuid
from types import SimpleNamespace

import pytest
import torch
from mmdet3d.registry import METRICS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import nn

from langocc.engine import (
    BackboneInit, CheckpointError, RayCountHook, SetupCheckHook, WarmupEMA, add_runner_arguments,
    build_runner, close_process_group, read_config, set_amp, set_auto_scale_lr, set_checkpoint,
    set_resume
)
from voxelrender import RayBundle

init_default_scope('mmdet3d')


class WithBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer('running', torch.zeros(2))
        self.register_buffer('count', torch.tensor(0))


def test_ema_follows_the_published_decay_from_its_first_update():
    model = WithBuffer()
    ema = WarmupEMA(model)
    expected = torch.zeros(3)
    for step in range(1, 4):
        model.weight.data.fill_(float(step))
        model.running.fill_(float(step))
        ema.update_parameters(model)
        decay = 0.999 * (1 - math.exp(-(10560 + step) / 2000))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(ema.module.weight, expected, rtol=1e-5)
    assert torch.allclose(ema.module.running, expected[:2], rtol=1e-5)
    assert not ema.module.weight.requires_grad


def test_schedule_is_the_papers(repository):
    cfg = Config.fromfile(repository / 'configs/_base_/schedules/adamw_18e.py')
    model = nn.Linear(1, 1)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    epochs, per_epoch = 18, 250
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=wrapper)) for s in cfg.param_scheduler]
    rates = []
    for _ in range(epochs):
        for iteration in range(per_epoch):
            wrapper.optimizer.step()
            rates.append(wrapper.get_lr()['lr'][0])
            schedulers[0].step()
        schedulers[1].step()
    assert rates[0] == pytest.approx(1e-7) and rates[100] == pytest.approx(5e-5, rel=0.02)
    last = [rates[(epoch + 1) * per_epoch - 1] for epoch in range(epochs)]
    assert last[:8] == pytest.approx([1e-4] * 8)
    assert last[8] == pytest.approx(9.8e-5, rel=2e-3) and last[9] == pytest.approx(9.2e-5, rel=2e-3)
    assert last[17] == pytest.approx(3e-6, rel=0.02)
    assert cfg.optim_wrapper.clip_grad.max_norm == 5
    assert wrapper.param_groups[0]['weight_decay'] == 1e-2


def test_mmengine_history_loads_with_weights_only(tmp_path):
    buffer = HistoryBuffer([1., 2.], [1, 1])
    torch.save(dict(message_hub=dict(log_scalars={'train/loss': buffer})), tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)
    assert loaded['message_hub']['log_scalars']['train/loss'].mean(2) == 1.5


class Trojan:
    def __reduce__(self):
        return (exec, ('raise SystemExit("executed")',))


def test_a_malicious_checkpoint_is_refused(tmp_path):
    from mmengine.runner import load_checkpoint
    torch.save(dict(state_dict=Trojan()), tmp_path / 'bad.pth')
    with pytest.raises(Exception, match='(?i)weights.only'):
        load_checkpoint(WithBuffer(), str(tmp_path / 'bad.pth'))


class Snooper:
    def __reduce__(self):
        return (getattr, (HistoryBuffer, '__init__'))


def test_getattr_in_a_checkpoint_reaches_statistics_only(tmp_path):
    torch.save(dict(x=Snooper()), tmp_path / 'bad.pth')
    with pytest.raises(Exception, match='__init__'):
        torch.load(tmp_path / 'bad.pth', weights_only=True)


def test_backbone_weights_from_a_file_and_offline_message(tmp_path, monkeypatch):
    source = nn.Linear(2, 2)
    torch.save(source.state_dict(), tmp_path / 'w.pth')
    target = nn.Linear(2, 2)
    BackboneInit(checkpoint=str(tmp_path / 'w.pth'))(target)
    assert torch.equal(source.weight, target.weight)
    with pytest.raises(RuntimeError, match='missing.pth.*init_cfg=None'):
        BackboneInit(checkpoint=str(tmp_path / 'missing.pth'))(target)

    def offline(*args, **kwargs):
        from urllib.error import URLError
        raise URLError('no network')

    monkeypatch.setattr('mmengine.runner.checkpoint.load_url', offline)
    with pytest.raises(RuntimeError, match='torchvision://resnet50.*init_cfg.checkpoint='):
        BackboneInit(checkpoint='torchvision://resnet50')(target)


def batch(num_rays):
    bundle = RayBundle.empty() if num_rays == 0 else RayBundle(
        torch.zeros(num_rays, 3), torch.ones(num_rays, 3))

    class Sample(dict):
        gt_rays = bundle

        def __contains__(self, key):
            return key == 'gt_rays'
    return dict(data_samples=[Sample()])


def test_a_data_set_without_rays_is_an_error_but_a_sample_is_not():
    hook, runner = RayCountHook(patience=3), SimpleNamespace()
    for rays in (0, 0, 5):
        hook.after_train_iter(runner, 0, batch(rays))
    hook.after_train_epoch(runner)
    hook = RayCountHook(patience=3)
    hook.after_train_iter(runner, 0, batch(0))
    hook.after_train_iter(runner, 1, batch(0))
    with pytest.raises(RuntimeError, match='last 3 iterations.*ray'):
        hook.after_train_iter(runner, 2, batch(0))
    hook = RayCountHook()
    hook.after_train_iter(runner, 0, batch(0))
    with pytest.raises(RuntimeError, match='single ray'):
        hook.after_train_epoch(runner)


def test_command_line_switches(tmp_path):
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.))))
    with pytest.raises(ValueError, match='base_batch_size'):
        set_auto_scale_lr(cfg)
    cfg.auto_scale_lr = ConfigDict(enable=False, base_batch_size=16)
    set_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    set_resume(cfg, 'auto')
    assert cfg.resume and cfg.load_from is None
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        set_resume(cfg, str(tmp_path / 'nowhere.pth'))


def test_arguments_become_a_config(tmp_path, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    (tmp_path / 'recipe.py').write_text('train_cfg = dict(max_iters=9)\n')
    parser = argparse.ArgumentParser()
    add_runner_arguments(parser)
    cfg = read_config(parser.parse_args([str(tmp_path / 'recipe.py'), '--local-rank', '3']))
    assert os.environ.pop('LOCAL_RANK') == '3'
    assert cfg.work_dir == 'work_dirs/recipe' and cfg.train_cfg.max_iters == 9
    monkeypatch.setenv('LOCAL_RANK', '5')
    cfg = read_config(parser.parse_args([
        str(tmp_path / 'recipe.py'), '--work-dir', 'here', '--cfg-options', 'train_cfg.max_iters=2',
        'randomness.seed=5']))
    assert (cfg.work_dir, cfg.train_cfg.max_iters, cfg.randomness.seed) == ('here', 2, 5)
    assert os.environ['LOCAL_RANK'] == '5'  # torchrun's own stands


def test_evaluation_needs_a_checkpoint_unless_the_config_says_otherwise(tmp_path):
    (tmp_path / 'recipe.py').write_text('load_from = None')
    cfg = Config.fromfile(tmp_path / 'recipe.py')
    with pytest.raises(ValueError, match='recipe.py needs a CHECKPOINT'):
        set_checkpoint(cfg, None)
    with pytest.raises(FileNotFoundError, match='nowhere.pth does not exist'):
        set_checkpoint(cfg, str(tmp_path / 'nowhere.pth'))
    (tmp_path / 'c.pth').touch()
    set_checkpoint(cfg, str(tmp_path / 'c.pth'))
    assert cfg.load_from == str(tmp_path / 'c.pth')
    set_checkpoint(cfg, None)  # the config names one by now
    assert cfg.custom_hooks == [dict(type='ExactCheckpointHook')]
    set_checkpoint(Config(dict(needs_checkpoint=False)), None)


@MODELS.register_module()
class ThreeParts(BaseModel):
    """A layer, a norm, and what checkpoints need not hold."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.register_buffer('vocabulary', torch.zeros(4), persistent=False)

    def forward(self, inputs, data_samples=None, mode='predict'):
        return [float(self.layer.weight.sum())]


@METRICS.register_module()
class FirstValue(BaseMetric):
    """What the model says."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(value=results[0])


def evaluation(tmp_path, weights, exact=True):
    """Runner of an evaluation with EMA, as test.py makes it, of a file of ``weights``."""
    torch.save(weights, tmp_path / 'c.pth')
    loader = dict(dataset=[dict(inputs=torch.zeros(2))], batch_size=1, num_workers=0,
                  sampler=dict(type='DefaultSampler', shuffle=False))
    cfg = Config(dict(
        model=dict(type='ThreeParts'), work_dir=str(tmp_path), default_scope='mmdet3d',
        test_dataloader=loader, test_cfg=dict(), test_evaluator=dict(type='FirstValue'),
        custom_hooks=[dict(type='EMAHook', ema_type='WarmupEMA')], log_level='ERROR',
        load_from=str(tmp_path / 'c.pth'),
        experiment_name=uuid.uuid4().hex))
    if exact:
        set_checkpoint(cfg, None)
    return build_runner(cfg)


def test_evaluation_takes_a_checkpoint_of_its_model_only(tmp_path):
    weights = ThreeParts().state_dict()
    weights['layer.weight'] = torch.full((2, 2), 2.)
    assert 'vocabulary' not in weights
    counter = weights.pop('norm.num_batches_tracked')  # as files of torch 0.x
    assert evaluation(tmp_path, dict(state_dict=weights)).test() == dict(value=8.)
    weights['norm.num_batches_tracked'] = counter
    wrapped = {f'module.{name}': value for name, value in weights.items()}
    for stored in (weights, wrapped, dict(state_dict=wrapped, meta={})):
        assert evaluation(tmp_path, stored).test() == dict(value=8.)
    many = {f'head.{index}': torch.ones(1) for index in range(4)}
    for change, text in ((dict(layer=None), r'tensors missing: 1 \(layer.weight\)'),
                         (many, r'unknown: 4 \(head.0, head.1, head.2, ...\)'),
                         ({'layer.weight': torch.ones(3, 2)}, r'of another shape: 1 '
                          r'\(layer.weight \(3, 2\) in place of \(2, 2\)\)')):
        other = {**weights, **change}
        if other.pop('layer', 0) is None:
            del other['layer.weight'], other['norm.num_batches_tracked']
        with pytest.raises(CheckpointError, match=f'c.pth is not of this model: {text}. '
                           'Expected') as refusal:
            evaluation(tmp_path, dict(state_dict=other)).test()
        assert '\n' not in str(refusal.value)
        stored = dict(state_dict=other)
        lenient = evaluation(tmp_path, stored, exact=False)  # mmengine's own
        assert lenient.test().keys() == {'value'}


@pytest.mark.parametrize('settings, expected', [
    (None, dict(type='MMDistributedDataParallel', device_ids=None)),
    (dict(find_unused_parameters=True), dict(
        type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True)),
    (dict(type='Mine', broadcast_buffers=False), dict(
        type='Mine', device_ids=None, broadcast_buffers=False))])
def test_processes_on_cpus_are_wrapped_without_devices(settings, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    hooks = []
    monkeypatch.setattr('langocc.engine.runner.Runner.from_cfg', lambda cfg: SimpleNamespace(
        cfg=cfg, register_hook=hooks.append))
    cfg = Config(dict(model_wrapper_cfg=settings))
    for _ in range(2):  # a config may build a runner twice
        assert build_runner(cfg, 'pytorch').cfg.model_wrapper_cfg == expected
    assert build_runner(Config(dict(work_dir='x'))).cfg.get('model_wrapper_cfg') is None
    assert [type(hook) for hook in hooks] == [SetupCheckHook] * 3


def test_mixed_precision_is_for_gpus(monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.))))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(RuntimeError, match='--amp needs a GPU'):
        set_amp(cfg)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    set_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        set_amp(cfg)


def test_the_process_group_is_left_and_none_is_needed(tmp_path):
    close_process_group()
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0,
                                         world_size=1)
    close_process_group()
    assert not torch.distributed.is_initialized()
