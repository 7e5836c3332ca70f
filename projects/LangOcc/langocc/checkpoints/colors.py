"""BGR or RGB: the order of colours, folded into the first convolution.

BEVDet's networks and the published LangOcc see BGR images that are normalised by statistics in RGB
order (as published); ours see RGB by default. Between the two lies an affine map of each
colour, and a convolution followed by BatchNorm takes such a map in: its weights change places and
scale, the running mean moves. That is exact wherever the convolution does not reach over the
image's border, into padding that is zero in either normalisation.

Legend: k channel of the BGR image, 2 - k that of the same colour in the RGB image.
"""
from typing import Dict

import torch
from torch import Tensor

# Of [0, 255], RGB order: OccDataPreprocessor's defaults.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CONV, _MEAN_NAME = 'conv1.weight', 'bn1.running_mean'


def fold_colors(tensors: Dict[str, Tensor], to_rgb: bool, prefix: str = 'img_backbone.'
                ) -> Dict[str, Tensor]:
    """The network that sees the other order of colours and gives the same.

    Args:
        tensors: with a ResNet's ``conv1.weight`` (C, 3, h, w) and ``bn1.running_mean`` (C,) under
            ``prefix``.
        to_rgb: from a network that sees BGR to one that sees RGB; False: the other way.
        prefix: of the backbone's names.

    Returns:
        A new dict; two tensors of it are new.

    Raises:
        ValueError: the backbone has no such convolution or norm.
    """
    names = prefix + _CONV, prefix + _MEAN_NAME
    missing = [name for name in names if name not in tensors]
    if missing or tensors[names[0]].shape[1] != 3:
        raise ValueError(f'colours cannot be folded: missing {missing}' if missing else
                         f'colours cannot be folded: {names[0]} is {tuple(tensors[names[0]].shape)}'
                         ', expected three input channels')
    weight, mean = (tensors[name].double() for name in names)
    std = torch.tensor(_STD, dtype=torch.float64)
    # Same formula both ways: a weight of one colour times the spread that colour is divided by.
    other = (weight * (std.flip(0) / std).view(1, 3, 1, 1)).flip(1)
    bgr = weight if to_rgb else other
    center = torch.tensor(_MEAN, dtype=torch.float64)
    offset = (bgr.sum((2, 3)) * ((center.flip(0) - center) / std)).sum(1)
    mean = mean - offset if to_rgb else mean + offset
    return {**tensors, names[0]: other.to(tensors[names[0]]), names[1]: mean.to(tensors[names[1]])}
