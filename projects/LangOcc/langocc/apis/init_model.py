"""From a config and a checkpoint to a model that predicts."""
from pathlib import Path
from typing import Optional, Union

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from ..engine import load_exactly


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
        load_exactly(model, str(checkpoint))
    model.cfg = cfg
    return model.to(torch.device(device)).eval()


def build_dataset(cfg: Config):
    """The data set of ``cfg.test_dataloader``, with the test pipeline."""
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return DATASETS.build(cfg.test_dataloader.dataset)
