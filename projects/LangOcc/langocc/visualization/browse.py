"""One picture of one sample: what the network gets, and that its matrices undo what was done.

The pictures are made from the packed sample alone, so that they show what a model would be given.
Labels and LiDAR that the pipeline does not load are read from the files the sample names, where
they are: both are optional.

Legend: N cameras, P points; X, Y, Z grid cells.
"""
from typing import List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from PIL import Image

from langocc.evaluation.occ_files import load_occupancy
from voxelrender import VoxelGrid, project_points

from .occupancy import draw_occupancy_3d, draw_occupancy_bev, overlay_occupancy, points_on_bev
from .palette import DISTANCE_COLORMAP
from .pictures import (
    class_legend, colour_bar, overlay_points, picture_grid, resize_picture, with_caption
)
from .sample_pictures import OCC3D_GRID, optional_file

_FAR = 40.  # m, last colour of depths and farthest voxel drawn into a camera
_COLUMNS = 3  # cameras side by side


class CameraView(NamedTuple):
    """The key frame's image of one camera.

    Attributes:
        name: channel.
        network_image: (h, w, 3) uint8, augmented.
        original: (H, W, 3) uint8, the file.
        cam2img: (4, 4).
        cam2ego: (4, 4), camera -> the labels' ego frame (the key sample's LiDAR time).
        img_aug_matrix: (4, 4), original -> augmented pixel.
    """
    name: str
    network_image: np.ndarray
    original: np.ndarray
    cam2img: torch.Tensor
    cam2ego: torch.Tensor
    img_aug_matrix: torch.Tensor


def draw_sample(packed: dict, grid: VoxelGrid = OCC3D_GRID, width: int = 600) -> np.ndarray:
    """Everything about one packed sample.

    Per camera: the network's image with LiDAR by depth, moved with the augmentation; the original
    image, dimmed, with the network's image laid back into it and LiDAR over both; the original
    image with the occupancy. Below: the occupancy from above with LiDAR, as packed (BEV-augmented)
    and undone, and from behind the car. What there is no file for is left out.

    Args:
        packed: ``inputs`` and ``data_samples`` of ``PackOccInputs``.
        grid: of the labels.
        width: of one picture, pixels; three lie side by side.

    Returns:
        (H, W, 3) uint8.
    """
    sample = packed['data_samples']
    views = camera_views(packed)
    points = lidar_points(packed)
    semantics = original_semantics(packed, grid)
    stacks = [_camera_stack(view, points, semantics, grid, width) for view in views]
    rows = []
    for start in range(0, len(stacks), _COLUMNS):
        rows += [list(row) for row in zip(*stacks[start:start + _COLUMNS])]
    total = _COLUMNS * (width + 6) - 6
    title = (f"{sample.metainfo.get('scene_name', '')}  {sample.metainfo.get('token', '')}  "
             f"sample {sample.metainfo.get('sample_idx', '?')}")
    rows.insert(0, [with_caption(np.zeros((0, total, 3), dtype=np.uint8), title, 20)])
    if points is not None or semantics is not None:
        rows.append(_occupancy_row(packed, points, semantics, grid, width))
    if points is not None:
        rows.append([colour_bar(total, 0., _FAR, 'm  depth of LiDAR points', DISTANCE_COLORMAP)])
    if semantics is not None:
        rows.append([class_legend(semantics, total)])
    return picture_grid(rows)


def camera_views(packed: dict) -> List[CameraView]:
    """The N views of the key frame.

    Args:
        packed: ``inputs`` (``imgs``, ``rig``) and ``data_samples`` (``camera_names``, ``images``,
            ``ego2global``).

    Returns:
        One view a camera.

    Raises:
        KeyError: the sample's metainfo lacks a key.
    """
    inputs, metainfo = packed['inputs'], packed['data_samples'].metainfo
    missing = [k for k in ('camera_names', 'images', 'ego2global') if k not in metainfo]
    if missing:
        raise KeyError(f'sample {metainfo.get("token")}: metainfo lacks {missing}; add them to '
                       'meta_keys of PackOccInputs')
    rig = inputs['rig'].frame(0)
    global2ego = torch.linalg.inv(torch.as_tensor(np.array(metainfo['ego2global'], dtype=float)))
    cam2ego = global2ego @ rig.cam2global()
    views = []
    for index, name in enumerate(metainfo['camera_names']):
        with Image.open(metainfo['images'][name]['img_path']) as file:
            original = np.array(file.convert('RGB'))
        image = inputs['imgs'][0, index].permute(1, 2, 0).numpy()
        views.append(CameraView(name, image, original, rig.cam2img[index], cam2ego[index],
                                rig.img_aug_matrix[index]))
    return views


def lidar_points(packed: dict) -> Optional[np.ndarray]:
    """LiDAR in the labels' ego frame.

    Args:
        packed: with ``points`` (LiDAR frame) among its inputs, or else ``lidar_points`` in its
            metainfo, whose file is read.

    Returns:
        (P, 3) float64 m; None where the sample has no LiDAR, or (with a warning) its file is not
        there.
    """
    metainfo = packed['data_samples'].metainfo
    info = metainfo.get('lidar_points')
    if info is None:
        return None
    if 'points' in packed['inputs']:
        points = packed['inputs']['points'].numpy()[:, :3]
    else:
        path = optional_file(info['lidar_path'], 'LiDAR points', metainfo)
        if path is None:
            return None
        points = np.fromfile(path, np.float32)
        points = points.reshape(-1, info.get('num_pts_feats', 5))[:, :3]
    global2ego = np.linalg.inv(np.array(metainfo['ego2global'], dtype=float))
    lidar2ego = global2ego @ np.array(info['ego2global']) @ np.array(info['lidar2ego'])
    return points.astype(np.float64) @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]


def original_semantics(packed: dict, grid: VoxelGrid) -> Optional[np.ndarray]:
    """Labels with the BEV augmentation undone.

    Args:
        packed: with ``gt_occ`` (augmented), or else ``occ_path``, whose file is read.
        grid: of the labels.

    Returns:
        (X, Y, Z) uint8 in the key ego frame; None where the sample has no labels, or (with a
        warning) their file is not there.
    """
    sample = packed['data_samples']
    if 'gt_occ' in sample:
        return undo_bev_augmentation(sample.gt_occ.semantics.numpy(),
                                     packed['inputs']['bev_aug_matrix'], grid)
    path = optional_file(sample.metainfo.get('occ_path'), 'occupancy labels', sample.metainfo)
    return None if path is None else load_occupancy(path)['semantics']


def undo_bev_augmentation(semantics: np.ndarray, bev_aug_matrix: torch.Tensor,
                          grid: VoxelGrid) -> np.ndarray:
    """Labels of the augmented frame, looked up at each original voxel's place.

    Args:
        semantics: (X, Y, Z), augmented ego frame.
        bev_aug_matrix: (4, 4), ego -> augmented ego.
        grid: of both.

    Returns:
        (X, Y, Z), ego frame; exact for flips, the nearest voxel otherwise, 17 (free) outside.

    Raises:
        ValueError: the labels have not the grid's shape.
    """
    if tuple(semantics.shape) != grid.grid_shape:
        raise ValueError(f'labels have shape {tuple(semantics.shape)}, the grid {grid.grid_shape}')
    centres = grid.voxel_centers(dtype=torch.float64).permute(2, 1, 0, 3)
    matrix = bev_aug_matrix.to(torch.float64)
    moved = centres @ matrix[:3, :3].T + matrix[:3, 3]
    inside = grid.contains(moved).numpy()
    indices = grid.to_indices(moved).numpy()
    indices = np.clip(indices, 0, np.array(grid.grid_shape) - 1)
    return np.where(inside, semantics[tuple(np.moveaxis(indices, -1, 0))], 17).astype(np.uint8)


def undo_image_augmentation(image: np.ndarray, img_aug_matrix: torch.Tensor,
                            size: Tuple[int, int]) -> Tuple[np.ndarray, np.ndarray]:
    """The network's image, laid back over the original's area.

    Args:
        image: (h, w, 3) uint8, augmented.
        img_aug_matrix: (4, 4), original -> augmented pixel.
        size: (W, H) of the original.

    Returns:
        (H, W, 3) uint8 and (H, W) bool, where the augmented image reaches.
    """
    matrix = np.asarray(img_aug_matrix, dtype=np.float64)
    block = matrix[:2, :2]
    # PIL counts from pixel corners, img_aug_matrix from pixel centres.
    shift = matrix[:2, 3] + 0.5 - block @ [0.5, 0.5]
    data = (*block[0], shift[0], *block[1], shift[1])
    covered = Image.new('L', image.shape[1::-1], 255)
    affine = Image.Transform.AFFINE
    picture = Image.fromarray(image).transform(size, affine, data, Image.Resampling.BILINEAR)
    covered = covered.transform(size, affine, data, Image.Resampling.NEAREST)
    return np.array(picture), np.array(covered) > 0


def _camera_stack(view: CameraView, points: Optional[np.ndarray],
                  semantics: Optional[np.ndarray], grid: VoxelGrid,
                  width: int) -> List[np.ndarray]:
    """The three pictures of one camera."""
    size = view.original.shape[1::-1]
    undone, covered = undo_image_augmentation(view.network_image, view.img_aug_matrix, size)
    undone = np.where(covered[..., None], undone, view.original // 2)
    augmented, occupancy = view.network_image, view.original
    if points is not None:
        calibration = (view.cam2img, view.cam2ego)
        ego_points = torch.from_numpy(points)
        moved, depths = project_points(ego_points, *calibration, view.img_aug_matrix)
        augmented = overlay_points(augmented, moved.numpy(), depths.numpy(), 1, _FAR)
        pixels, depths = project_points(ego_points, *calibration)
        radius = max(round(size[0] / 600), 1)
        undone = overlay_points(undone, pixels.numpy(), depths.numpy(), radius, _FAR)
    if semantics is not None:
        occupancy = overlay_occupancy(occupancy, semantics, grid, view.cam2img.numpy(),
                                      view.cam2ego.numpy(), max_depth=_FAR)
    captions = (f'{view.name}: network input', 'augmentation undone',
                'no occupancy labels' if semantics is None else 'occupancy')
    return [with_caption(resize_picture(picture, width), text)
            for picture, text in zip((augmented, undone, occupancy), captions)]


def _occupancy_row(packed: dict, points: Optional[np.ndarray], semantics: Optional[np.ndarray],
                   grid: VoxelGrid, width: int) -> List[np.ndarray]:
    """From above, augmented and undone, and in 3D; without labels LiDAR alone, from above."""
    matrix = packed['inputs']['bev_aug_matrix'].to(torch.float64)
    labelled = semantics is not None
    if not labelled:
        semantics = np.full(grid.grid_shape, 17, dtype=np.uint8)
    augmented = undo_bev_augmentation(semantics, torch.linalg.inv(matrix), grid)
    if 'gt_occ' in packed['data_samples']:
        augmented = packed['data_samples'].gt_occ.semantics.numpy()
    before = draw_occupancy_bev(semantics, grid, ego=False)
    after = draw_occupancy_bev(augmented, grid, ego=False)
    if points is not None:
        before = points_on_bev(before, points, grid)
        moved = points @ matrix[:3, :3].numpy().T + matrix[:3, 3].numpy()
        after = points_on_bev(after, moved, grid)
    signs = ' '.join(f'{number:g}' for number in matrix[:2, :2].flatten().tolist())
    pictures = [after, before]
    if labelled:
        pictures.append(draw_occupancy_3d(semantics, grid, image_size=before.shape[1::-1],
                                          field_of_view=74.))
    captions = (f'BEV as given to the network ({signs}), LiDAR white',
                'BEV augmentation undone, LiDAR white', 'occupancy from behind the car')
    return [with_caption(resize_picture(picture, width), text)
            for picture, text in zip(pictures, captions)]
