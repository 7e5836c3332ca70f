"""Exponential moving average of the weights with the published warm-up."""
import math
from typing import Optional

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn


@MODELS.register_module()
class WarmupEMA(BaseAveragedModel):
    """Decay ``decay * (1 - exp(-n / warmup))`` at update n (as published).

    Args:
        model: averaged model.
        decay: limit of the decay (published 0.999).
        warmup: updates of the warm-up (published 2000).
        init_updates: n before the first update (published 10,560).
        interval, device, update_buffers: see mmengine; buffers are averaged by default, as
            published.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, warmup: float = 2000.,
                 init_updates: int = 10560, interval: int = 1,
                 device: Optional[torch.device] = None, update_buffers: bool = True):
        super().__init__(model, interval, device, update_buffers)
        self.decay, self.warmup = decay, warmup
        # mmengine copies the weights at step 0: counting from init_updates averages at once.
        self.steps.fill_(max(init_updates, 1))

    def decay_at(self, updates: int) -> float:
        """Share of the average that update number ``updates`` keeps."""
        return self.decay * (1 - math.exp(-updates / self.warmup))

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """In place: averaged = d * averaged + (1 - d) * source."""
        averaged_param.lerp_(source_param.to(averaged_param.dtype),
                             1 - self.decay_at(int(steps) + 1))
