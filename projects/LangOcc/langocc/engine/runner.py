"""From a config to a runner, on GPUs and on machines without one."""
import os

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .setup_check import SetupCheckHook


def build_runner(cfg: Config, launcher: str = 'none') -> Runner:
    """An mmengine runner for ``cfg``, which looks at its set-up first (:class:`SetupCheckHook`).

    A training that is resumed takes :class:`SkippingIterBasedTrainLoop` for mmengine's
    ``IterBasedTrainLoop``, which would first load all that was trained on again.

    On a machine without CUDA, ``launcher='pytorch'`` would fail in ``torch.cuda.set_device``: the
    gloo process group is made here first and the model is wrapped without device ids. What
    ``model_wrapper_cfg`` says itself stands.

    Args:
        cfg: full config, with ``work_dir``.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
    """
    cfg.launcher = launcher
    if cfg.get('resume') and (cfg.get('train_cfg') or {}).get('type') == 'IterBasedTrainLoop':
        cfg.train_cfg.type = 'SkippingIterBasedTrainLoop'
    if launcher != 'none' and not torch.cuda.is_available():
        _init_gloo(launcher)
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
        wrapper.update(cfg.get('model_wrapper_cfg') or {})
        cfg.model_wrapper_cfg = wrapper
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(SetupCheckHook())
    return runner


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


def close_process_group() -> None:
    """Leave the process group that a launcher's run made; nothing without one.

    To be called when the work is done. A process that exits with its group open may be aborted
    ("terminate called without an active exception", exit code -6): gloo's threads still hold
    tensors while the interpreter is taken down. All processes leave together, so that none
    finds its peers gone. Not for the way out of an error, where peers may never arrive.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
