"""From labelled LiDAR points to occupancy, so that point segmentation is scored as occupancy.

Each voxel takes the class that most of its points have, of equally frequent ones that of the lowest
index, as :func:`fit_prior` does; a voxel without points is free. One sweep labels what its beams
met and nothing else: even perfect labels leave most voxels of Occ3D's truth, which is gathered from
all sweeps of a scene, free.

Legend: P points, X, Y, Z grid cells, K classes of the segmentation.
"""
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from ..datasets.geometry import homogeneous, lidar_to_global
from ..lidarseg import CATEGORY_TO_CLASS, LIDARSEG_CATEGORIES
from ..occ3d import FREE_CLASS, OCC3D_CLASSES

NO_VOTE = -1
# Classes that say nothing of what a point is. In the challenge's 17 classes 'noise' also stands for
# all categories that its 16 leave out; of the 32 raw ones it does not, and they are 'others'.
SILENT_CLASSES = ('noise', 'ignore', 'ignored', 'unlabeled', 'unlabelled', 'vehicle.ego')


def occ_classes(names: Sequence[str],
                class_mapping: Optional[Mapping[str, Optional[str]]] = None) -> np.ndarray:
    """Occ3D classes of a segmentation's classes, by name.

    Known without a mapping: Occ3D's own names, which nuScenes' LiDAR segmentation challenge shares;
    nuScenes-lidarseg's 32 raw categories, by the challenge's rule and 'others' for those that it
    leaves out; and :data:`SILENT_CLASSES`, whose points do not vote.

    Args:
        names: K class names, in the order of the model's labels.
        class_mapping: name -> Occ3D's name, or None for no vote; goes before what is known.

    Returns:
        (K,) int64 Occ3D classes in [0, 17), :data:`NO_VOTE` for none.

    Raises:
        ValueError: no names, an unknown one, or a mapping from or to an unknown one.
    """
    mapping, occupied = dict(class_mapping or {}), OCC3D_CLASSES[:FREE_CLASS]
    if not names:
        raise ValueError('a point segmentation needs the names of its classes, got none')
    absent = sorted(set(mapping) - set(names))
    if absent:
        raise ValueError(f'class_mapping names {absent}, the model has {list(names)}')
    wrong = {name: target for name, target in mapping.items()
             if target is not None and target not in occupied}
    if wrong:
        raise ValueError(f'class_mapping leads to unknown classes: {wrong}; expected some of '
                         f'{list(occupied)}, or None')
    known = {name: CATEGORY_TO_CLASS.get(name, 'others') for name in LIDARSEG_CATEGORIES}
    known.update({name: name for name in occupied})
    known.update(dict.fromkeys(SILENT_CLASSES))
    known.update(mapping)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'classes {unknown} are neither Occ3D\'s nor nuScenes-lidarseg\'s: give '
                         "each in class_mapping, as dict(road='driveable_surface', sky=None) "
                         '(on the command line: road=driveable_surface sky=none); '
                         f'known are {list(occupied)}, {list(SILENT_CLASSES)} and the raw '
                         'categories of nuScenes-lidarseg')
    return np.array([NO_VOTE if known[name] is None else occupied.index(known[name])
                     for name in names], dtype=np.int64)


def classes_of_labels(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Occ3D classes of a model's labels.

    Args:
        labels: (P,) integers in [0, K).
        table: (K,) of :func:`occ_classes`.

    Returns:
        (P,) int64, :data:`NO_VOTE` for none.

    Raises:
        ValueError: labels are not one row of integers, or one is outside [0, K).
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in 'iu':
        raise ValueError(f'labels of points must be one row of integers, got shape {labels.shape} '
                         f'of {labels.dtype}')
    if labels.size and not 0 <= labels.min() <= labels.max() < len(table):
        raise ValueError(f'labels of points go from {labels.min()} to {labels.max()}, the model '
                         f'has {len(table)} classes')
    return table[labels]


def points_in_key_ego(points: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
    """(P, 3) LiDAR frame -> (P, 3) float64 key ego frame, metres.

    Args:
        points: positions in the frame of the LiDAR file.
        info: ``ego2global`` and ``lidar_points`` of the key frame.
    """
    lidar2ego = np.linalg.inv(homogeneous(info['ego2global'])) @ lidar_to_global(info)
    return np.asarray(points, np.float64) @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]


def vote_occupancy(points: np.ndarray, classes: np.ndarray, low: Sequence[float],
                   voxel_size: float, grid_shape: Sequence[int]) -> np.ndarray:
    """Majority of the points in every voxel.

    Args:
        points: (P, 3) metres, key ego frame; those outside the grid are left out.
        classes: (P,) Occ3D classes in [0, 17); those below 0 do not vote.
        low: (3,) lowest corner of the grid, metres.
        voxel_size: edge of its cubic cells, metres.
        grid_shape: (X, Y, Z).

    Returns:
        (X, Y, Z) uint8; of equally frequent classes the lowest; free where none voted.

    Raises:
        ValueError: points and classes are not of one number, or a point is not finite.
    """
    points, classes = np.asarray(points, np.float64), np.asarray(classes)
    if points.shape != (len(classes), 3):
        raise ValueError(f'{len(classes)} points are labelled, positions have shape '
                         f'{points.shape}, expected ({len(classes)}, 3)')
    if not np.isfinite(points).all():
        raise ValueError(f'{(~np.isfinite(points).all(axis=1)).sum()} points are not finite')
    cells = np.floor((points - np.asarray(low, np.float64)) / voxel_size).astype(np.int64)
    votes = ((cells >= 0) & (cells < np.asarray(grid_shape))).all(axis=1) & (classes >= 0)
    voxels = np.ravel_multi_index(tuple(cells[votes].T), tuple(grid_shape))
    voxels, places = np.unique(voxels, return_inverse=True)
    counts = np.bincount(places * FREE_CLASS + classes[votes],
                         minlength=len(voxels) * FREE_CLASS).reshape(-1, FREE_CLASS)
    semantics = np.full(int(np.prod(grid_shape)), FREE_CLASS, dtype=np.uint8)
    semantics[voxels] = counts.argmax(axis=1)
    return semantics.reshape(tuple(grid_shape))
