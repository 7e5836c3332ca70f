"""From a config and a checkpoint to a model that predicts."""
import pickle
from pathlib import Path
from typing import Optional, Union

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

_MOST_LINES, _MOST_LETTERS = 4, 200  # of what torch says about a checkpoint


class CheckpointError(RuntimeError, ValueError):
    """A checkpoint that cannot be read or is not of the model; its text is one line."""


def init_model(config: Union[str, Path, Config], checkpoint: Optional[str] = None,
               device: str = 'cpu', cfg_options: Optional[dict] = None) -> nn.Module:
    """Build a model in eval mode.

    Args:
        config: config file or config.
        checkpoint: file of weights (EMA weights where the checkpoint holds them as such); None
            keeps random weights.
        device: for instance 'cpu' or 'cuda:0'.
        cfg_options: dotted keys to override in the config.

    Returns:
        The model; ``model.cfg`` is the config.

    Raises:
        FileNotFoundError: no such config or checkpoint.
        CheckpointError: it cannot be read, or is not of this model (names keys and shapes).
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    model = MODELS.build(cfg.model)
    if checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(f'checkpoint {checkpoint} does not exist')
        _load(model, str(checkpoint))
    model.cfg = cfg
    return model.to(torch.device(device)).eval()


def _load(model: nn.Module, checkpoint: str) -> None:
    try:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except pickle.UnpicklingError as error:  # torch advises to load it unsafely
        raise CheckpointError(f'checkpoint {checkpoint} is no file of weights: torch did not write '
                              f'it, or it holds more than tensors and a log') from error
    except (EOFError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = '; '.join(line if len(line) <= _MOST_LETTERS else f'{line[:_MOST_LETTERS]} ...'
                         for line in lines[:_MOST_LINES])
        raise CheckpointError(f'checkpoint {checkpoint} cannot be loaded: '
                              f'{said or "it is empty or cut short"}') from error


def build_dataset(cfg: Config):
    """The data set of ``cfg.test_dataloader``, with the test pipeline."""
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return DATASETS.build(cfg.test_dataloader.dataset)
