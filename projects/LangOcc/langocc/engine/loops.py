"""Training loops."""
from itertools import islice
from typing import Any, Iterator

from mmengine.dataset import InfiniteSampler
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator


@LOOPS.register_module()
class SkippingIterBasedTrainLoop(IterBasedTrainLoop):
    """mmengine's loop over iterations that, resumed, goes on without loading what it has seen.

    mmengine loads every batch up to the resumed iteration again and throws it away: minutes on the
    tiny recipes, hours on nuScenes. An ``InfiniteSampler`` knows its order beforehand, so only its
    indices are skipped; the samples that follow are those of a training that was never cut off.
    Random choices of workers begin as at the start. With other samplers it does as mmengine's.

    Args:
        kwargs: see mmengine's ``IterBasedTrainLoop``.
    """

    def run(self) -> Any:
        """Launch training."""
        sampler = self.dataloader.sampler
        if self._iter > 0 and type(sampler) is InfiniteSampler and self.dataloader.batch_size:
            seen = self._iter * self.dataloader.batch_size
            sampler.indices = islice(sampler._indices_of_rank(), seen, None)
            self.dataloader_iterator = _Skipping(
                _InfiniteDataloaderIterator(self.dataloader), self._iter)
        return super().run()


class _Skipping:
    """An iterator whose first ``count`` items are None and cost nothing."""

    def __init__(self, iterator: Iterator, count: int):
        self._iterator, self._count = iterator, count

    def __next__(self) -> Any:
        if self._count:
            self._count -= 1
            return None
        return next(self._iterator)
