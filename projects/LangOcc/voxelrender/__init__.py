"""Differentiable rendering of voxel volumes, on torch alone.

It knows nothing of language, OpenMMLab or datasets. Volumes are (B, C, Z, Y, X), points are
(x, y, z) in metres, distances are metres along a ray of unit direction.
"""
from .compositing import (
    accumulate, alphas_from_densities, expected_distances, opacities, transmittance,
    transmittance_from_alphas, weights_from_densities
)
from .decoding import (
    RayDecoder, UnitFeatures, decoded_before, gather_voxels, in_chunks, unit_scales
)
from .features import ConvolvedFeatures, LayeredFeatures, UpsampledFeatures, VoxelFeatures
from .field import VoxelField
from .marching import (
    KnownDensities, MarchConfig, RaySamples, march_rays, place_samples, weigh_samples
)
from .ops import LiftGeometry, lift_splat, resolve_backend, sparse_product, stereo_cost_volume
from .rays import RayBundle, pixels_to_rays, project_points
from .rendering import FieldRenderer, RenderedRays
from .sampling import edges_from_mids, importance_samples, uniform_edges
from .sparse import PairLayout, RayVoxelWeights, pair_layout, ray_voxel_weights, render_features
from .voxel_grid import VoxelGrid

__all__ = [
    'ConvolvedFeatures', 'FieldRenderer', 'KnownDensities', 'LayeredFeatures', 'LiftGeometry',
    'MarchConfig',
    'PairLayout', 'RayBundle', 'RayDecoder', 'RaySamples', 'RayVoxelWeights', 'RenderedRays',
    'UnitFeatures', 'UpsampledFeatures', 'VoxelFeatures', 'VoxelField', 'VoxelGrid', 'accumulate',
    'alphas_from_densities', 'decoded_before', 'edges_from_mids', 'expected_distances',
    'gather_voxels', 'importance_samples', 'in_chunks', 'lift_splat', 'march_rays', 'opacities',
    'pair_layout', 'pixels_to_rays', 'place_samples', 'project_points', 'ray_voxel_weights',
    'render_features', 'resolve_backend', 'sparse_product', 'stereo_cost_volume',
    'transmittance', 'transmittance_from_alphas', 'uniform_edges', 'unit_scales',
    'weigh_samples', 'weights_from_densities',
]
