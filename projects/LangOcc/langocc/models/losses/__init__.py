"""Losses on rendered rays and on the density volume."""
from .driven_path_loss import DrivenPathLoss
from .feature_distance import FeatureDistance
from .field_losses import DensitySparsityLoss, FlatRoadLoss, TotalVariationLoss
from .ground_pixel_loss import GroundPixelLoss
from .label_losses import RenderedClassLoss, SILogDepthLoss
from .opacity_losses import DistortionLoss, GroundLoss, SilhouetteLoss, SkyLoss
from .photometric_loss import PhotometricLoss
from .ray_losses import (
    RenderedDepthLoss, RenderedFeatureLoss, RenderedRGBLoss, RenderedSemanticLoss
)

__all__ = ['DensitySparsityLoss', 'DistortionLoss', 'DrivenPathLoss', 'FeatureDistance',
           'FlatRoadLoss', 'GroundLoss', 'GroundPixelLoss', 'PhotometricLoss', 'RenderedClassLoss',
           'RenderedDepthLoss', 'RenderedFeatureLoss', 'RenderedRGBLoss', 'RenderedSemanticLoss',
           'SILogDepthLoss', 'SilhouetteLoss', 'SkyLoss', 'TotalVariationLoss']
