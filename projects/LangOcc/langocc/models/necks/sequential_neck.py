"""Several modules in the place of one."""
from typing import Optional, Sequence

from mmdet3d.registry import MODELS
from mmengine.model import Sequential


@MODELS.register_module()
class SequentialNeck(Sequential):
    """Modules one after another, each given what the one before returned.

    For detectors with one place for a neck where two are wanted: ``dict(type='SequentialNeck',
    stages=[dict(type='IndoorImVoxelNeck', ...), dict(type='VolumeToBEV', ...)])``. Stages are named
    by their numbers.

    Args:
        stages: configs of the modules.
        init_cfg: see mmengine.

    Raises:
        ValueError: no stages.
    """

    def __init__(self, stages: Sequence[dict], init_cfg: Optional[dict] = None):
        if not stages:
            raise ValueError('SequentialNeck needs at least one stage, got none')
        super().__init__(*(MODELS.build(stage) for stage in stages), init_cfg=init_cfg)
