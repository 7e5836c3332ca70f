"""Operations with one definition in torch and one dispatcher for faster backends."""
from .bev_pool import lift_splat
from .cost_volume import stereo_cost_volume
from .dispatch import BACKENDS, resolve_backend
from .sparse_product import sparse_product

__all__ = ['BACKENDS', 'lift_splat', 'resolve_backend', 'sparse_product', 'stereo_cost_volume']
