"""Class probabilities of voxels: rendered, they say how likely a ray ends at each class.

Legend: U voxels, C feature channels, K classes.
"""
from typing import Optional, Tuple

from mmdet3d.registry import MODELS
from torch import Tensor

from .voxel_decoder import SemanticDecoder


@MODELS.register_module()
class ClassProbabilityDecoder(SemanticDecoder):
    """As :class:`SemanticDecoder`, but rays render the softmax of its logits.

    With weights w that sum to the opacity of a ray, sum w p(c) is the probability that the ray
    ends, and ends at class c. Rendered logits (RenderOcc) have no such meaning: a voxel of small
    weight and large logits outvotes the surface.

    Args:
        in_channels: C.
        num_classes: K, free space not being one of them: density says it.
        kwargs: see :class:`VoxelDecoder`.
    """

    def __init__(self, in_channels: int, num_classes: int = 17, **kwargs):
        super().__init__(in_channels, num_classes, **kwargs)

    def encode(self, feats: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """What is rendered of each voxel: probabilities (U, K), float32 under any autocast."""
        return self(feats).float().softmax(-1), None
