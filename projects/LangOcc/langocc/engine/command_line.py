"""What train.py and test.py take from the command line, written into a config."""
import argparse
import os
import sys
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config, ConfigDict, DictAction

from ..files import existing_file, one_line_errors
from .config_options import check_image_sizes, merge_options


def add_runner_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that runs a config; :func:`read_config` reads them."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go '
                        '(default: work_dirs/<config name>)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override config values, for instance train_cfg.max_iters=100')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def read_config(args: argparse.Namespace) -> Config:
    """The config that the arguments of :func:`add_runner_arguments` describe.

    Sets LOCAL_RANK, which mmengine reads, where the launcher gave the rank as an argument. As
    argparse does with wrong arguments, says in a line which option nothing reads or which image
    sizes differ, and exits with status 2.

    Raises:
        FileNotFoundError: no such config.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    with one_line_errors(Path(sys.argv[0]).stem, ValueError, KeyError):
        merge_options(cfg, args.cfg_options)
        check_image_sizes(cfg)
    set_work_dir(cfg, args.work_dir, args.config)
    return cfg


def set_amp(cfg: Config) -> None:
    """Switch ``cfg`` to mixed precision by mmengine's AmpOptimWrapper.

    Raises:
        RuntimeError: on a machine without an accelerator. AmpOptimWrapper refuses the CPU, and on
            CPUs with AMX torch 2.13 crashes in bfloat16 in the backward pass of some 3D
            convolutions (16 -> 16 channels, 3 x 3 x 3, of two samples or more).
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
        cfg.resume, cfg.load_from = True, existing_file(resume, 'checkpoint to resume from')


def set_checkpoint(cfg: Config, checkpoint: Optional[str]) -> None:
    """CHECKPOINT of an evaluation, else the config's ``load_from``.

    :class:`ExactCheckpointHook` is added: the runner raises CheckpointError where it is not of the
    config's model.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: none is given and the model needs one (``needs_checkpoint = False``: the slab).
    """
    if checkpoint is not None:
        cfg.load_from = existing_file(checkpoint, 'checkpoint')
    elif not cfg.get('load_from') and cfg.get('needs_checkpoint', True):
        raise ValueError(f'{cfg.filename} needs a CHECKPOINT')
    exact = dict(type='ExactCheckpointHook')
    hooks = cfg.get('custom_hooks') or []
    if exact not in hooks:
        cfg.custom_hooks = [*hooks, exact]
