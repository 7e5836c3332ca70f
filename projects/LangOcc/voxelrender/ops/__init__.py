"""Operations with one definition in torch and one dispatcher for faster backends."""
from .bev_pool import LiftGeometry, lift_splat
from .cost_volume import stereo_cost_volume
from .dispatch import BACKENDS, resolve_backend
from .ray_marching import composite, importance_samples, point_corners, sample_volume
from .sparse_product import sparse_product

__all__ = [
    'BACKENDS', 'LiftGeometry', 'composite', 'importance_samples', 'lift_splat', 'point_corners',
    'resolve_backend', 'sample_volume', 'sparse_product', 'stereo_cost_volume',
]
