"""Mixed precision where mmengine's AmpOptimWrapper refuses to go: the CPU."""
from contextlib import contextmanager

import torch
from mmdet3d.registry import OPTIM_WRAPPERS
from mmengine.optim import OptimWrapper
from torch import nn


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """bfloat16 autocast on the CPU. bfloat16 has float32's range: no loss scaling is needed.

    ``tools/train.py --amp`` uses it on machines without an accelerator, and mmengine's
    ``AmpOptimWrapper`` elsewhere.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast the forward pass."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
