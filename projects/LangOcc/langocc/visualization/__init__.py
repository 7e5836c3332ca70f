"""Pictures of images, occupancy, similarity and training; pure functions on numpy arrays.

:class:`OccVisualizer` puts them together in mmengine's way.
"""
from .camera_maps import CameraMaps, RigMaps, camera_rays, camera_to_ego, ring_order
from .comparison import (
    ERROR_COLORS, ERROR_NAMES, UNSEEN_CHOICES, OccupancyErrors, compare_occupancy, draw_errors_bev,
    draw_masked_3d, draw_masked_bev, voxel_colors
)
from .curves import draw_curves, read_scalars, trailing_mean
from .feature_colors import FeatureBasis, feature_colors, fit_color_basis, fit_feature_basis
from .label_views import VolumeHits, cast_rays, label_camera_views
from .occupancy import (
    draw_occupancy_3d, draw_occupancy_bev, draw_values_3d, draw_values_bev, draw_voxels_3d,
    draw_voxels_bev, overlay_occupancy, overlay_voxels, paint_from_above, points_on_bev
)
from .palette import (
    CLASS_NAMES, DISTANCE_COLORMAP, OCC3D_PALETTE, SIMILARITY_COLORMAP, class_colors,
    distance_colors, map_colors, present_classes, similarity_colors
)
from .pictures import (
    class_legend, colour_bar, legend, overlay_heat, overlay_points, picture_grid, resize_picture,
    save_picture, text_block, with_caption
)
from .ply import write_ply
from .rendered_views import has_field, render_camera_views
from .sample_pictures import OCC3D_GRID, SamplePictures
from .sheets import VIEWS, compose_sheet, draw_pictures
from .visualizer import OccVisualizer
from .voxel_faces import look_at, project, visible_faces

__all__ = [
    'CLASS_NAMES', 'CameraMaps', 'DISTANCE_COLORMAP', 'ERROR_COLORS', 'ERROR_NAMES', 'FeatureBasis',
    'OCC3D_GRID', 'OCC3D_PALETTE', 'OccVisualizer', 'OccupancyErrors', 'RigMaps',
    'SIMILARITY_COLORMAP', 'SamplePictures', 'UNSEEN_CHOICES', 'VIEWS', 'VolumeHits', 'camera_rays',
    'camera_to_ego', 'cast_rays', 'class_colors', 'class_legend', 'colour_bar', 'compare_occupancy',
    'compose_sheet', 'distance_colors', 'draw_curves', 'draw_errors_bev', 'draw_masked_3d',
    'draw_masked_bev', 'draw_occupancy_3d', 'draw_occupancy_bev', 'draw_pictures', 'draw_values_3d',
    'draw_values_bev', 'draw_voxels_3d', 'draw_voxels_bev', 'feature_colors', 'fit_color_basis',
    'fit_feature_basis', 'has_field', 'label_camera_views', 'legend', 'look_at', 'map_colors',
    'overlay_heat', 'overlay_occupancy', 'overlay_points', 'overlay_voxels', 'paint_from_above',
    'picture_grid', 'points_on_bev', 'present_classes', 'project', 'read_scalars',
    'render_camera_views', 'resize_picture', 'ring_order', 'save_picture', 'similarity_colors',
    'text_block', 'trailing_mean', 'visible_faces', 'voxel_colors', 'with_caption', 'write_ply'
]
