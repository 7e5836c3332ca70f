"""A model made ready to predict: batch norms folded away, weights laid out for the kernels.

Same outputs up to rounding; for prediction only.
"""
import re
from typing import Iterator, Tuple

import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVS = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """Folds batch norms into the convolutions before them and lays weights out channels-last.

    What is folded: mmcv's ``ConvModule``, neighbours in an ``nn.Sequential``, and pairs named as in
    ResNets (``conv1`` and ``bn1``; ``atrous_conv`` and ``bn``). Other batch norms stay.

    Args:
        model: in eval mode, weights loaded; changed in place. Its parameters are no longer those
            of a checkpoint, and it is not to be trained any more.

    Returns:
        The model.

    Raises:
        RuntimeError: the model is in training mode.
    """
    if model.training:
        raise RuntimeError('optimize_for_inference is for a model in eval mode: call eval() first')
    for module in list(model.modules()):
        for conv, norm in _pairs(module):
            _fold(module, conv, norm)
    for module in model.modules():
        for kind, layout in _CONVS.items():
            if isinstance(module, kind):
                module.weight.data = module.weight.data.contiguous(memory_format=layout)
    return model


def _pairs(module: nn.Module) -> Iterator[Tuple[str, str]]:
    """Names of a convolution and the batch norm that reads its output and nothing else does."""
    children = dict(module.named_children())
    if isinstance(module, ConvModule):
        if module.with_norm and tuple(module.order[:2]) == ('conv', 'norm'):
            yield 'conv', module.norm_name
    elif isinstance(module, nn.Sequential):
        yield from zip(children, list(children)[1:])
    else:
        for name in children:
            numbered = re.fullmatch(r'conv(\d)', name)
            norm = f'bn{numbered[1]}' if numbered else 'bn' if name == 'atrous_conv' else None
            if norm in children:
                yield name, norm


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = getattr(module, conv_name), getattr(module, norm_name)
    if (isinstance(conv, tuple(_CONVS)) and isinstance(norm, _BatchNorm)
            and norm.track_running_stats):
        setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
        setattr(module, norm_name, nn.Identity())
