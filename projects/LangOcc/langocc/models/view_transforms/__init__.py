"""Image features -> voxel volumes in the key ego frame (lift-splat family)."""
from .depth_net import ASPP, DepthNet, Mlp, SELayer
from .frustum import (
    camera_parameters, depth_edges, frustum_to_ego, lift_matrices, make_frustum, stereo_warps
)
from .lss import LSSViewTransformer
from .lss_depth import LSSViewTransformerBEVDepth, LSSViewTransformerBEVStereo, StereoReference

__all__ = [
    'ASPP', 'DepthNet', 'LSSViewTransformer', 'LSSViewTransformerBEVDepth',
    'LSSViewTransformerBEVStereo', 'Mlp', 'SELayer', 'StereoReference', 'camera_parameters',
    'depth_edges', 'frustum_to_ego', 'lift_matrices', 'make_frustum', 'stereo_warps'
]
