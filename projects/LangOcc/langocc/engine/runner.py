"""From a config to a runner, on GPUs and on machines without one."""
import os
from pathlib import Path
from typing import Optional

import torch
import torch.distributed
from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def build_runner(cfg: Config, launcher: str = 'none') -> Runner:
    """An mmengine runner for ``cfg``.

    On a machine without CUDA, ``launcher='pytorch'`` would fail in ``torch.cuda.set_device``: the
    gloo process group is made here first and the model is wrapped without device ids.

    Args:
        cfg: full config, with ``work_dir``.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
    """
    cfg.launcher = launcher
    if launcher != 'none' and not torch.cuda.is_available():
        _init_gloo(launcher)
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                                     **cfg.get('model_wrapper_cfg', {}))
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _init_gloo(launcher: str) -> None:
    if torch.distributed.is_initialized():
        return
    if launcher != 'pytorch':
        raise ValueError(f"launcher '{launcher}' on a machine without CUDA: only 'pytorch' "
                         '(torchrun) runs several processes on CPUs')
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
               if name not in os.environ]
    if missing:
        raise RuntimeError(f'launcher pytorch, but {", ".join(missing)} not set: start it with '
                           'tools/dist_train.sh or torchrun')
    torch.distributed.init_process_group('gloo')


def set_amp(cfg: Config) -> None:
    """Switch ``cfg`` to mixed precision by mmengine's AmpOptimWrapper.

    Raises:
        RuntimeError: on a machine without an accelerator. AmpOptimWrapper refuses the CPU, and the
            backward pass of bfloat16 autocast crashes there inside torch 2.13.
        ValueError: the config has an optimizer wrapper of its own.
    """
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f"--amp replaces 'OptimWrapper', the config has '{wrapper.type}'")
    if not torch.cuda.is_available():
        raise RuntimeError('--amp needs a GPU: on this machine train without it')
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def set_work_dir(cfg: Config, work_dir: Optional[str], config_file: str) -> None:
    """--work-dir, else the config's, else work_dirs/<config name>."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(
        Path('work_dirs') / Path(config_file).stem)


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the real batch size; needs ``auto_scale_lr.base_batch_size``."""
    settings = cfg.get('auto_scale_lr')
    if not isinstance(settings, (dict, ConfigDict)) or 'base_batch_size' not in settings:
        raise ValueError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the '
                         'config')
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: Optional[str]) -> None:
    """--resume: 'auto' takes the latest checkpoint of the work dir, else the named file."""
    if resume == 'auto':
        cfg.resume, cfg.load_from = True, None
    elif resume is not None:
        if not Path(resume).is_file():
            raise FileNotFoundError(f'--resume {resume}: no such checkpoint')
        cfg.resume, cfg.load_from = True, resume
