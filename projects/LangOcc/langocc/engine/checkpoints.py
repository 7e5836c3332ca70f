"""Checkpoints: those of mmengine under ``torch.load(weights_only=True)``, those of another model.
"""
import pickle
from collections import OrderedDict
from contextlib import contextmanager
from typing import Callable, Iterator

import numpy as np
import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.runner import load_checkpoint, load_state_dict
from torch import nn

_STATISTICS = ('min', 'max', 'current', 'mean')
_MOST_LINES, _MOST_LETTERS = 4, 200  # of what torch says about a checkpoint


class CheckpointError(RuntimeError, ValueError):
    """A checkpoint that cannot be read or is not of the model; its text is one line."""


def load_exactly(model: nn.Module, checkpoint: str) -> None:
    """Weights into a model that has just their names and shapes (but for counters of BatchNorm).

    Args:
        model: what loads.
        checkpoint: file of weights.

    Raises:
        CheckpointError: it cannot be read, or has other tensors than the model (names some).
    """
    with _one_line(checkpoint):
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)


@HOOKS.register_module()
class ExactCheckpointHook(Hook):
    """Refuses what mmengine's runner would load in part: a checkpoint with other tensors.

    For evaluations (:func:`~langocc.engine.set_checkpoint` adds it), where tensors that are
    missing, too many or of another shape mean scores of a half random network. The rule is
    :func:`load_exactly`'s. A training that starts from other weights stays as lenient as mmengine.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the weights

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """CheckpointError unless the model has just these tensors.

        Bare weights, and names with a wrapper's ``module.`` before them, are made
        ``checkpoint['state_dict']`` as it should be: the runner would read both, EMAHook, whose
        copy is what is evaluated, neither.
        """
        stored = checkpoint.get('state_dict', checkpoint)
        weights = OrderedDict((name.removeprefix('module.'), value)
                              for name, value in stored.items())
        weights._metadata = getattr(stored, '_metadata', OrderedDict())
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with _one_line(runner._load_from):
            load_state_dict(model, weights, strict=True)
        checkpoint['state_dict'] = weights


@contextmanager
def _one_line(checkpoint: str) -> Iterator[None]:
    """What torch and mmengine say about a checkpoint, as a CheckpointError."""
    try:
        yield
    except pickle.UnpicklingError as error:  # torch advises to load it unsafely
        raise CheckpointError(f'checkpoint {checkpoint} is no file of weights: torch did not write '
                              f'it, or it holds more than tensors and a log') from error
    except (EOFError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = '; '.join(line if len(line) <= _MOST_LETTERS else f'{line[:_MOST_LETTERS]} ...'
                         for line in lines[:_MOST_LINES])
        raise CheckpointError(f'checkpoint {checkpoint} cannot be loaded: '
                              f'{said or "it is empty or cut short"}') from error


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
