"""Pictures of images, occupancy, similarity and training; pure functions on numpy arrays."""
from .curves import draw_curves, read_scalars, trailing_mean
from .occupancy import (
    draw_occupancy_3d, draw_occupancy_bev, draw_values_3d, draw_values_bev, draw_voxels_3d,
    overlay_occupancy, overlay_voxels, points_on_bev
)
from .palette import (
    CLASS_NAMES, DISTANCE_COLORMAP, OCC3D_PALETTE, SIMILARITY_COLORMAP, class_colors,
    distance_colors, map_colors, present_classes, similarity_colors
)
from .pictures import (
    class_legend, colour_bar, overlay_heat, overlay_points, picture_grid, resize_picture,
    save_picture, with_caption
)
from .ply import write_ply
from .voxel_faces import look_at, project, visible_faces

__all__ = [
    'CLASS_NAMES', 'DISTANCE_COLORMAP', 'OCC3D_PALETTE', 'SIMILARITY_COLORMAP', 'class_colors',
    'class_legend', 'colour_bar', 'distance_colors', 'draw_curves', 'draw_occupancy_3d',
    'draw_occupancy_bev', 'draw_values_3d', 'draw_values_bev', 'draw_voxels_3d', 'look_at',
    'map_colors', 'overlay_heat', 'overlay_occupancy', 'overlay_points', 'overlay_voxels',
    'picture_grid', 'points_on_bev', 'present_classes', 'project', 'read_scalars',
    'resize_picture', 'save_picture', 'similarity_colors', 'trailing_mean', 'visible_faces',
    'with_caption', 'write_ply'
]
