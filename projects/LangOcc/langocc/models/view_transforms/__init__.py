"""Image features -> voxel volumes in the key ego frame (lift-splat family, and sampling)."""
from .depth_net import ASPP, DepthNet, Mlp, SELayer
from .frustum import (
    camera_parameters, depth_edges, ego_to_pixels, frustum_to_ego, lift_matrices, make_frustum,
    stereo_warps
)
from .lss import LSSViewTransformer
from .lss_depth import LSSViewTransformerBEVDepth, LSSViewTransformerBEVStereo, StereoReference
from .sampling import SamplingViewTransformer, project_points, sample_pixels

__all__ = [
    'ASPP', 'DepthNet', 'LSSViewTransformer', 'LSSViewTransformerBEVDepth',
    'LSSViewTransformerBEVStereo', 'Mlp', 'SELayer', 'SamplingViewTransformer', 'StereoReference',
    'camera_parameters', 'depth_edges', 'ego_to_pixels', 'frustum_to_ego', 'lift_matrices',
    'make_frustum', 'project_points', 'sample_pixels', 'stereo_warps'
]
