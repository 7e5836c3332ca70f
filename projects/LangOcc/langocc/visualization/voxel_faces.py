"""Voxels as polygons: which faces a pinhole camera sees, in which order, and where in the image.

Legend: V faces. Cells are (i, j, k) along x, y, z. Cameras follow OpenCV: x right, y down,
z forward; integer pixel coordinates are pixel centres.
"""
from typing import NamedTuple, Sequence, Tuple

import numpy as np
from PIL import ImageDraw

from voxelrender import VoxelGrid

# Of each of the six faces: outward normal and the four corners, in cells, in drawing order.
_NORMALS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
_CORNERS = np.array([
    [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]], [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],
    [[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]], [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
    [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]],
])  # yapf: disable
_SHADES = np.array([0.72, 0.72, 0.84, 0.6, 1.0, 0.5])
_NEAR = 0.3  # m; a face that comes nearer is not drawn


class Faces(NamedTuple):
    """Faces in drawing order, farthest first.

    Attributes:
        cells: (V, 3) voxel of each face.
        polygons: (V, 4, 2) corners in pixels.
        depths: (V,) z-depth of the nearest corner, m.
        shades: (V,) brightness in [0, 1] by direction.
    """
    cells: np.ndarray
    polygons: np.ndarray
    depths: np.ndarray
    shades: np.ndarray


def look_at(eye: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Pose of a camera that looks at a point, upright.

    Args:
        eye: (3,) position, ego frame, m.
        target: (3,) point in the image centre, ego frame, m; not straight above or below.

    Returns:
        (4, 4) cam2ego.
    """
    eye, forward = np.asarray(eye, float), np.asarray(target, float) - np.asarray(eye, float)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0., 0., 1.])
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def project(points: np.ndarray, cam2img: np.ndarray,
            cam2ego: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Ego points -> pixels of the original image.

    Args:
        points: (..., 3) ego frame, m.
        cam2img: (3, 3) or (4, 4).
        cam2ego: (4, 4).

    Returns:
        (..., 2) pixels (meaningless where depth <= 0) and (...,) z-depths in m.
    """
    ego2cam = np.linalg.inv(cam2ego)
    camera = points @ ego2cam[:3, :3].T + ego2cam[:3, 3]
    image = camera @ np.asarray(cam2img)[:3, :3].T
    depths = image[..., 2]
    safe = np.where(np.abs(depths) < 1e-6, 1e-6, depths)
    return image[..., :2] / safe[..., None], depths


def visible_faces(occupied: np.ndarray, grid: VoxelGrid, cam2img: np.ndarray, cam2ego: np.ndarray,
                  image_size: Tuple[int, int], max_depth: float = np.inf) -> Faces:
    """Faces that lie against free space, turn to the camera and fall into the image.

    Drawn in the order returned they hide each other exactly (painter's algorithm): a ray from the
    camera visits cells of a regular grid in growing Manhattan distance from the camera's cell.

    Args:
        occupied: (X, Y, Z) bool.
        grid: its frame is the one ``cam2ego`` leads to.
        cam2img: (3, 3) or (4, 4).
        cam2ego: (4, 4).
        image_size: (width, height), pixels.
        max_depth: m; faces farther away are left out.

    Returns:
        The faces, farthest first.

    Raises:
        ValueError: ``occupied`` has not the grid's shape.
    """
    if tuple(occupied.shape) != tuple(grid.grid_shape):
        raise ValueError(f'occupancy has shape {tuple(occupied.shape)}, the grid '
                         f'{tuple(grid.grid_shape)}')
    low, size = np.array(grid.point_cloud_range[:3]), np.array(grid.voxel_size)
    eye = (np.asarray(cam2ego)[:3, 3] - low) / size
    cells, sides = _facing(np.asarray(occupied, bool), eye)
    corners = low + (cells[:, None] + _CORNERS[sides]) * size
    polygons, depths = project(corners, cam2img, cam2ego)
    width, height = image_size
    kept = (depths.min(1) > _NEAR) & (depths.min(1) <= max_depth)
    kept &= (polygons.min(1) <= [width, height]).all(1) & (polygons.max(1) >= -1).all(1)
    cells, sides, polygons, depths = cells[kept], sides[kept], polygons[kept], depths[kept]
    order = np.argsort(-np.abs(cells - np.floor(eye)).sum(1), kind='stable')
    return Faces(cells[order], polygons[order], depths[order].min(1), _SHADES[sides[order]])


def _facing(occupied: np.ndarray, eye: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Cells (V, 3) and sides (V,) of faces with a free neighbour that turn to the eye (cells)."""
    padded = np.pad(occupied, 1)
    inner = tuple(slice(1, n + 1) for n in occupied.shape)
    cells, sides = [], []
    for side, normal in enumerate(_NORMALS):
        neighbour = tuple(slice(1 + d, n + 1 + d) for d, n in zip(normal, occupied.shape))
        found = np.argwhere(padded[inner] & ~padded[neighbour])
        axis = int(np.abs(normal).argmax())
        plane = found[:, axis] + (normal[axis] > 0)
        found = found[(eye[axis] - plane) * normal[axis] > 0]
        cells.append(found)
        sides.append(np.full(len(found), side))
    return np.concatenate(cells), np.concatenate(sides)


def paint_faces(draw: ImageDraw.ImageDraw, faces: Faces, colors: np.ndarray,
                outline: float = 0.8) -> None:
    """Draws faces in order.

    Args:
        draw: onto an RGB or RGBA picture (RGBA gets alpha 255).
        faces: farthest first.
        colors: (V, 3) uint8, before shading.
        outline: brightness of the edges relative to the face; 1 = none.
    """
    fills = (colors * faces.shades[:, None]).round().astype(int)
    edges = (fills * outline).astype(int)
    # PIL cuts fractions off; integers are pixel centres here.
    polygons = np.floor(faces.polygons + 0.5).astype(int).tolist()
    for polygon, fill, edge in zip(polygons, fills.tolist(), edges.tolist()):
        corners = [tuple(corner) for corner in polygon]
        draw.polygon(corners, fill=tuple(fill), outline=tuple(edge) if outline < 1 else None)
