"""What mmengine's runner needs beside the model: averaging, hooks, CPU routes."""
from .averaging import WarmupEMA
from .checkpoints import allow_mmengine_checkpoints
from .hooks import RayCountHook
from .initialization import BackboneInit
from .runner import build_runner, set_amp, set_auto_scale_lr, set_resume, set_work_dir

__all__ = ['BackboneInit', 'RayCountHook', 'WarmupEMA',
           'allow_mmengine_checkpoints', 'build_runner', 'set_amp', 'set_auto_scale_lr',
           'set_resume', 'set_work_dir']
