"""Differentiable rendering of voxel volumes, on torch alone.

It knows nothing of language, OpenMMLab or datasets. Volumes are (B, C, Z, Y, X), points are
(x, y, z) in metres, distances are metres along a ray of unit direction.
"""
from .compositing import (
    accumulate, alphas_from_densities, expected_distances, opacities, transmittance,
    transmittance_from_alphas, weights_from_densities
)
from .marching import MarchConfig, RaySamples, march_rays
from .ops import lift_splat, resolve_backend, sparse_product, stereo_cost_volume
from .rays import RayBundle, pixels_to_rays, project_points
from .sampling import edges_from_mids, importance_samples, uniform_edges
from .sparse import RayVoxelWeights, ray_voxel_weights, render_features
from .voxel_grid import VoxelGrid

__all__ = [
    'MarchConfig', 'RayBundle', 'RaySamples', 'RayVoxelWeights', 'VoxelGrid', 'accumulate',
    'alphas_from_densities', 'edges_from_mids', 'expected_distances', 'importance_samples',
    'lift_splat', 'march_rays', 'opacities', 'pixels_to_rays', 'project_points',
    'ray_voxel_weights', 'render_features', 'resolve_backend', 'sparse_product',
    'stereo_cost_volume', 'transmittance', 'transmittance_from_alphas', 'uniform_edges',
    'weights_from_densities',
]
