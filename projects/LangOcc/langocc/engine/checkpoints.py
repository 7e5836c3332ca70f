"""Checkpoints: those of mmengine under ``torch.load(weights_only=True)``, those of another model.
"""
import pickle
from collections import OrderedDict
from contextlib import contextmanager
from typing import Callable, Iterator, List, Mapping

import numpy as np
import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, load_state_dict
from torch import Tensor, nn

_STATISTICS = ('min', 'max', 'current', 'mean')
_MOST_LINES, _MOST_LETTERS = 4, 200  # of what torch says about a checkpoint
_MOST_NAMES = 3  # of tensors in a message


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
        weights = _weights_of(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    _load_all(model, weights, checkpoint)


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
        weights = _weights_of(checkpoint)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        _load_all(model, weights, runner._load_from)
        checkpoint['state_dict'] = weights


def _weights_of(checkpoint: Mapping) -> 'OrderedDict[str, Tensor]':
    """Tensors of a checkpoint or of bare weights, by names without a wrapper's ``module.``."""
    stored = checkpoint.get('state_dict', checkpoint)
    weights = OrderedDict((name.removeprefix('module.'), value) for name, value in stored.items())
    weights._metadata = getattr(stored, '_metadata', OrderedDict())
    return weights


def _load_all(model: nn.Module, weights: Mapping[str, Tensor], checkpoint: str) -> None:
    """:func:`load_exactly` of ``weights`` that were read from the file ``checkpoint``."""
    with _one_line(checkpoint):
        try:
            load_state_dict(model, weights, strict=True)
        except RuntimeError as error:
            differences = _differences(model.state_dict(), weights)
            if not differences:
                raise
            raise CheckpointError(
                f'checkpoint {checkpoint} is not of this model: {"; ".join(differences)}. Expected '
                f'a checkpoint that was trained with this config: train.py leaves the one it used '
                f'beside the checkpoints') from error


def _differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> List[str]:
    """What a file's ``weights`` lack, have too many or of another shape than the model's ``own``.
    """
    missing = [name for name in own if name not in weights and 'num_batches_tracked' not in name]
    unknown = [name for name in weights if name not in own]
    other = [f'{name} {tuple(weights[name].shape)} in place of {tuple(value.shape)}'
             for name, value in own.items()
             if name in weights and weights[name].shape != value.shape]
    return [f'{text}: {len(names)} ({", ".join(names[:_MOST_NAMES])}'
            f'{", ..." if len(names) > _MOST_NAMES else ""})'
            for names, text in ((missing, 'tensors missing'),
                                (unknown, 'unknown'),
                                (other, 'of another shape')) if names]


@contextmanager
def _one_line(checkpoint: str) -> Iterator[None]:
    """What torch and mmengine say about a checkpoint, as a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
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
