"""Resuming mmengine checkpoints under ``torch.load(weights_only=True)``."""
from typing import Callable

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

_STATISTICS = ('min', 'max', 'current', 'mean')


def _history_statistic(owner: type, name: str) -> Callable:
    """``getattr`` for the one thing a checkpoint may ask it for: HistoryBuffer's statistics."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(f'a checkpoint asks for attribute {name!r} of {owner!r}; expected one of '
                         f'{_STATISTICS} of HistoryBuffer')
    return getattr(owner, name)


def allow_mmengine_checkpoints() -> None:
    """Declare what an mmengine checkpoint holds beside tensors as safe to load.

    torch >= 2.6 unpickles nothing else than tensors and plain containers unless told; mmengine
    stores the history of its log in a checkpoint. Only these harmless classes are added, and
    ``getattr`` stands for a function that gives HistoryBuffer's statistics only; the protection
    stays on.
    """
    multiarray = np.core.multiarray
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32,
                                                np.uint8, np.bool_)]
    torch.serialization.add_safe_globals(
        [HistoryBuffer, multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype,
         (_history_statistic, 'builtins.getattr')] + dtypes)
