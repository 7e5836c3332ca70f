"""What mmengine's runner needs beside the model: averaging, hooks, CPU routes."""
from .averaging import WarmupEMA
from .checkpoints import (
    CheckpointError, ExactCheckpointHook, allow_mmengine_checkpoints, load_exactly
)
from .command_line import (
    add_runner_arguments, read_config, set_amp, set_auto_scale_lr, set_checkpoint, set_resume,
    set_work_dir
)
from .config_options import merge_options
from .hooks import RayCountHook
from .initialization import BackboneInit
from .loops import SkippingIterBasedTrainLoop
from .runner import build_runner, close_process_group
from .setup_check import SetupCheckHook, check_setup
from .visualization_hook import OccVisualizationHook

__all__ = ['BackboneInit', 'CheckpointError', 'ExactCheckpointHook', 'OccVisualizationHook',
           'RayCountHook', 'SetupCheckHook', 'SkippingIterBasedTrainLoop', 'WarmupEMA',
           'add_runner_arguments', 'allow_mmengine_checkpoints', 'build_runner', 'check_setup',
           'close_process_group', 'load_exactly', 'merge_options', 'read_config', 'set_amp',
           'set_auto_scale_lr', 'set_checkpoint', 'set_resume', 'set_work_dir']
