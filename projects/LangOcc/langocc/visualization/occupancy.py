"""Occupancy as pictures: from above, from behind the car, and on the camera images.

Legend: X, Y, Z grid cells along the key ego frame's x (forward), y (left), z (up). Pictures are
(H, W, 3) uint8 RGB arrays; nothing given is changed.
"""
from typing import Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from langocc.occ3d import FREE_CLASS
from voxelrender import VoxelGrid

from .palette import class_colors, distance_colors, similarity_colors
from .voxel_faces import Faces, look_at, paint_faces, visible_faces

BACKGROUND = (66, 70, 80)
EGO_COLOR = (245, 245, 245)


def draw_occupancy_bev(semantics: np.ndarray,
                       grid: VoxelGrid,
                       scale: int = 3,
                       background: Sequence[int] = BACKGROUND,
                       ego: bool = True) -> np.ndarray:
    """Seen from above: each column's topmost occupied voxel, brighter the higher it is.

    Args:
        semantics: (X, Y, Z) Occ3D classes, 17 = free.
        grid: ranges and voxel size.
        scale: pixels a voxel.
        background: RGB of empty columns.
        ego: mark the car.

    Returns:
        (X * scale, Y * scale, 3): x points up, y left.

    Raises:
        ValueError: shape or classes do not fit.
    """
    return draw_voxels_bev(semantics != FREE_CLASS, class_colors(semantics), grid, scale,
                           background, ego)


def draw_voxels_bev(occupied: np.ndarray,
                    colors: np.ndarray,
                    grid: VoxelGrid,
                    scale: int = 3,
                    background: Sequence[int] = BACKGROUND,
                    ego: bool = True) -> np.ndarray:
    """As :func:`draw_occupancy_bev`, for any (X, Y, Z, 3) uint8 colours of (X, Y, Z) bool voxels.
    """
    _check_shape(occupied, grid)
    top = _topmost(occupied)
    topmost = np.take_along_axis(colors, top[..., None, None], axis=2)[:, :, 0]
    shades = 0.75 + 0.25 * top / max(occupied.shape[2] - 1, 1)
    return paint_from_above(topmost * shades[..., None], occupied.any(2), grid, scale, background,
                            ego)


def draw_values_bev(values: np.ndarray,
                    occupied: np.ndarray,
                    grid: VoxelGrid,
                    low: float = 0.,
                    high: float = 1.,
                    scale: int = 3,
                    background: Sequence[int] = BACKGROUND,
                    ego: bool = True) -> np.ndarray:
    """Seen from above: the highest value (similarity, say) of each column's occupied voxels.

    Args:
        values: (X, Y, Z) numbers; NaN counts as not known and is not drawn.
        occupied: (X, Y, Z) bool.
        grid: ranges and voxel size.
        low: value of the darkest colour.
        high: value of the brightest colour.
        scale: pixels a voxel.
        background: RGB of empty columns.
        ego: mark the car.

    Returns:
        (X * scale, Y * scale, 3): x points up, y left.

    Raises:
        ValueError: shapes do not fit.
    """
    _check_shape(values, grid)
    _check_shape(occupied, grid)
    known = np.asarray(occupied, bool) & np.isfinite(values)
    highest = np.where(known, values, -np.inf).max(2)
    colors = similarity_colors(np.where(known.any(2), highest, low), low, high)
    return paint_from_above(colors, known.any(2), grid, scale, background, ego)


def points_on_bev(picture: np.ndarray,
                  points: np.ndarray,
                  grid: VoxelGrid,
                  scale: int = 3,
                  color: Optional[Sequence[int]] = (255, 255, 255)) -> np.ndarray:
    """Points over a picture from above.

    Args:
        picture: as the ``*_bev`` functions return it, with the same ``scale``.
        points: (P, 3) ego frame, m; those outside the grid are left out.
        grid: ranges and voxel size.
        scale: pixels a voxel.
        color: RGB, or None for a colour by height.

    Returns:
        A new picture.
    """
    points = np.asarray(points, dtype=np.float64)[:, :3]
    bounds = np.array(grid.point_cloud_range)
    points = points[((points >= bounds[:3]) & (points < bounds[3:])).all(1)]
    points = points[np.argsort(points[:, 2], kind='stable')]
    cells = (bounds[3:5] - points[:, :2]) / np.array(grid.voxel_size[:2]) * scale
    rows, columns = np.clip(cells.astype(int), 0, np.array(picture.shape[:2]) - 1).T
    picture = picture.copy()
    picture[rows, columns] = (distance_colors(-points[:, 2], -bounds[5], -bounds[2])
                              if color is None else np.array(color, dtype=np.uint8))
    return picture


def draw_occupancy_3d(semantics: np.ndarray, grid: VoxelGrid, **view) -> np.ndarray:
    """Voxels in class colours, seen from behind and above the car.

    Args:
        semantics: (X, Y, Z) Occ3D classes, 17 = free.
        grid: ranges and voxel size.
        **view: see :func:`draw_voxels_3d`.

    Returns:
        (height, width, 3).
    """
    return draw_voxels_3d(semantics != FREE_CLASS, class_colors(semantics), grid, **view)


def draw_values_3d(values: np.ndarray,
                   occupied: np.ndarray,
                   grid: VoxelGrid,
                   low: float = 0.,
                   high: float = 1.,
                   **view) -> np.ndarray:
    """Occupied voxels coloured by a value (a query's similarity, say), from behind the car.

    Args:
        values: (X, Y, Z); NaN is drawn grey.
        occupied: (X, Y, Z) bool.
        grid: ranges and voxel size.
        low: value of the darkest colour.
        high: value of the brightest colour.
        **view: see :func:`draw_voxels_3d`.

    Returns:
        (height, width, 3).
    """
    return draw_voxels_3d(occupied, similarity_colors(values, low, high), grid, **view)


def draw_voxels_3d(occupied: np.ndarray,
                   colors: np.ndarray,
                   grid: VoxelGrid,
                   image_size: Tuple[int, int] = (960, 640),
                   eye: Sequence[float] = (-34., 0., 27.),
                   target: Sequence[float] = (3., 0., -4.),
                   field_of_view: float = 66.,
                   background: Sequence[int] = (250, 250, 252),
                   ego: bool = True) -> np.ndarray:
    """Coloured voxels through a pinhole camera.

    Args:
        occupied: (X, Y, Z) bool.
        colors: (X, Y, Z, 3) uint8.
        grid: ranges and voxel size.
        image_size: (width, height), pixels.
        eye: camera position, key ego frame, m.
        target: point in the image centre, key ego frame, m.
        field_of_view: horizontal, degrees.
        background: RGB.
        ego: draw a box where the car is.

    Returns:
        (height, width, 3), drawn at twice the size and shrunk so that edges are smooth.

    Raises:
        ValueError: shapes do not fit.
    """
    _check_shape(occupied, grid)
    size = (2 * image_size[0], 2 * image_size[1])
    focal = size[0] / 2 / np.tan(np.deg2rad(field_of_view) / 2)
    cam2img = np.array([[focal, 0., (size[0] - 1) / 2], [0., focal, (size[1] - 1) / 2],
                        [0., 0., 1.]])
    occupied = np.array(occupied, bool)
    if ego:
        car = _car_cells(grid) & ~occupied
        occupied, colors = occupied | car, np.where(car[..., None], np.uint8(40), colors)
    faces = visible_faces(occupied, grid, cam2img, look_at(eye, target), size)
    canvas = Image.new('RGB', size, tuple(background))
    paint_faces(ImageDraw.Draw(canvas), faces, _colors_of(faces, colors))
    return np.array(canvas.resize(tuple(image_size), Image.Resampling.LANCZOS))


def overlay_occupancy(image: np.ndarray,
                      semantics: np.ndarray,
                      grid: VoxelGrid,
                      cam2img: np.ndarray,
                      cam2ego: np.ndarray,
                      alpha: float = 0.55,
                      max_depth: float = 40.) -> np.ndarray:
    """Voxels over a camera image, in class colours, hiding each other.

    Args:
        image: (H, W, 3) uint8, the original image.
        semantics: (X, Y, Z) Occ3D classes, 17 = free.
        grid: ranges and voxel size, frame of the labels (key ego).
        cam2img: (3, 3) or (4, 4), of this image.
        cam2ego: (4, 4), camera -> the labels' frame.
        alpha: opacity of the voxels.
        max_depth: m.

    Returns:
        A new picture.

    Raises:
        ValueError: shape or classes do not fit.
    """
    return overlay_voxels(image, semantics != FREE_CLASS, class_colors(semantics), grid, cam2img,
                          cam2ego, alpha, max_depth)


def overlay_voxels(image: np.ndarray, occupied: np.ndarray, colors: np.ndarray, grid: VoxelGrid,
                   cam2img: np.ndarray, cam2ego: np.ndarray, alpha: float = 0.55,
                   max_depth: float = 40.) -> np.ndarray:
    """As :func:`overlay_occupancy`, for any (X, Y, Z, 3) uint8 colours of (X, Y, Z) bool voxels."""
    height, width = image.shape[:2]
    faces = visible_faces(occupied, grid, cam2img, cam2ego, (width, height), max_depth)
    layer = Image.new('RGBA', (width, height), (0, 0, 0, 0))
    paint_faces(ImageDraw.Draw(layer), faces, _colors_of(faces, colors), outline=0.6)
    layer = np.array(layer)
    opacity = alpha * (layer[..., 3:] > 0)
    return (image * (1 - opacity) + layer[..., :3] * opacity).round().astype(np.uint8)


def _check_shape(volume: np.ndarray, grid: VoxelGrid) -> None:
    if tuple(volume.shape) != tuple(grid.grid_shape):
        raise ValueError(f'volume has shape {tuple(volume.shape)}, the grid '
                         f'{tuple(grid.grid_shape)}')


def _topmost(occupied: np.ndarray) -> np.ndarray:
    """(X, Y) index of the highest set voxel; the top where none is."""
    return occupied.shape[2] - 1 - occupied[..., ::-1].argmax(2)


def paint_from_above(colors: np.ndarray, drawn: np.ndarray, grid: VoxelGrid, scale: int = 3,
                     background: Sequence[int] = BACKGROUND, ego: bool = True) -> np.ndarray:
    """(X, Y, 3) colours of the columns that are drawn -> picture with x up and y left."""
    picture = np.where(drawn[..., None], colors, np.array(background)).round().astype(np.uint8)
    picture = picture[::-1, ::-1].repeat(scale, axis=0).repeat(scale, axis=1)
    return _mark_car(picture, grid, scale) if ego else picture


def _mark_car(picture: np.ndarray, grid: VoxelGrid, scale: int) -> np.ndarray:
    """An arrow from the rear axle (the ego frame's origin) forward, with a car's size."""
    high = np.array(grid.point_cloud_range[3:5])
    outline = np.array([[3.6, 0.], [-0.9, 1.], [0., 0.], [-0.9, -1.]])
    pixels = (high - outline) / np.array(grid.voxel_size[:2]) * scale - 0.5
    canvas = Image.fromarray(picture)
    corners = [(float(column), float(row)) for row, column in pixels]
    ImageDraw.Draw(canvas).polygon(corners, fill=EGO_COLOR, outline=(20, 20, 20))
    return np.array(canvas)


def _car_cells(grid: VoxelGrid) -> np.ndarray:
    """(X, Y, Z) bool: voxels whose centre is in a box of a car's size at the ego frame's origin."""
    low, size = np.array(grid.point_cloud_range[:3]), np.array(grid.voxel_size)
    inside = []
    for axis, (start, stop) in enumerate(((-0.9, 3.7), (-0.9, 0.9), (0., 1.6))):
        centres = low[axis] + (np.arange(grid.grid_shape[axis]) + 0.5) * size[axis]
        inside.append((centres >= start) & (centres < stop))
    return inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]


def _colors_of(faces: Faces, colors: np.ndarray) -> np.ndarray:
    """(V, 3) colours of the faces' voxels."""
    return colors[tuple(faces.cells.T)]
