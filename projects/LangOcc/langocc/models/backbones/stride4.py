"""Stride-4 features of an image backbone without running the rest of it.

Legend: B batch (cameras folded in), C channels, H/W image height and width in pixels.
"""
from torch import Tensor, nn


def extract_stride4(backbone: nn.Module, images: Tensor) -> Tensor:
    """Runs the stem, the max pooling and the first stage of mmdet's ResNet only.

    The stereo reference frame (t-2) is never lifted; its stride-4 features are all that the cost
    volume reads (as published), so a fifth of a ResNet-50 is all that runs for it.

    Args:
        backbone: mmdet's ResNet or a class with its layout (``conv1``/``norm1``/``relu`` or
            ``stem``, ``maxpool``, ``res_layers``).
        images: (B, 3, H, W) normalised.

    Returns:
        (B, C, ceil(H/4), ceil(W/4)), what the backbone itself gives for ``out_indices=(0,)``.

    Raises:
        TypeError: the backbone does not have ResNet's layout.
    """
    missing = [name for name in ('maxpool', 'res_layers') if not hasattr(backbone, name)]
    if missing:
        raise TypeError(f'stereo features need a backbone with the layout of mmdet.ResNet; '
                        f'{type(backbone).__name__} has no {missing}')
    if getattr(backbone, 'deep_stem', False):
        feats = backbone.stem(images)
    else:
        feats = backbone.relu(backbone.norm1(backbone.conv1(images)))
    return getattr(backbone, backbone.res_layers[0])(backbone.maxpool(feats))
