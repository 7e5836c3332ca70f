"""Losses on rendered rays and on the density volume."""
from .field_losses import DensitySparsityLoss, FlatRoadLoss, TotalVariationLoss
from .ray_losses import (
    DistortionLoss, GroundLoss, RenderedDepthLoss, RenderedFeatureLoss, RenderedRGBLoss,
    RenderedSemanticLoss, SkyLoss
)

__all__ = ['DensitySparsityLoss', 'DistortionLoss', 'FlatRoadLoss', 'GroundLoss',
           'RenderedDepthLoss', 'RenderedFeatureLoss', 'RenderedRGBLoss', 'RenderedSemanticLoss',
           'SkyLoss', 'TotalVariationLoss']
