"""Hooks."""
from typing import Optional

import torch
from mmdet3d.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook


@HOOKS.register_module()
class RayCountHook(Hook):
    """Stops training on a data set that yields no rays.

    A sample without rays is legal (its losses are 0); a whole epoch, or ``patience`` iterations,
    without a single ray in any process means that calibration, LiDAR or ranges are wrong.

    Args:
        patience: iterations after which the check is made if no epoch ended before.
    """

    def __init__(self, patience: int = 1000):
        self.patience = patience
        self._rays = 0
        self._iterations = 0
        self._seen = False

    def after_train_iter(self, runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Count the rays of this batch."""
        if self._seen:
            return
        self._iterations += 1
        self._rays += sum(len(sample.gt_rays) for sample in data_batch['data_samples']
                          if 'gt_rays' in sample)
        if self._iterations >= self.patience:
            self._check(runner)

    def after_train_epoch(self, runner) -> None:
        """An epoch without a ray is an error."""
        if not self._seen:
            self._check(runner)

    def _check(self, runner) -> None:
        total = torch.tensor(float(self._rays))
        all_reduce(total)
        if total.item() == 0:
            raise RuntimeError(
                f'no sample of the last {self._iterations} iterations has a single ray: check '
                'ann_file, the LiDAR files and depth range of the ray source, and '
                'point_cloud_range of PrepareRays')
        self._seen = True
