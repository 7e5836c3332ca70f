"""Predictions in files, scored by the metrics of the evaluation loop.

Occupancy as ``tools/test.py --format-only`` (and Occ3D) writes it, or labels of LiDAR points:
``<name>.json`` with ``pts_semantic_mask`` (what mmdet3d's LidarSeg3DInferencer writes),
``<name>.bin`` of uint8 (nuScenes-lidarseg's layout), or ``<name>.npy``. The name is the sample's
token, its LiDAR record's token (with or without ``_lidarseg``), or the LiDAR file's name.

Legend: P points, X, Y, Z grid cells, K classes of the segmentation.
"""
import json
import os.path as osp
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np
from mmengine.evaluator import BaseMetric

from ..datasets.key_frames import KeyFrames
from ..datasets.ray_sources import read_lidar
from ..occ3d import OCC3D_RANGE
from .grid_shape import VOXEL_SIZE, grid_shape
from .occ_files import load_occupancy
from .point_segmentation import classes_of_labels, occ_classes, points_in_key_ego, vote_occupancy

_LABEL_FILES = ('.json', '.bin', '.npy')


class SavedOccupancy:
    """Occupancy of key frames in Occ3D's layout.

    Args:
        root: folder of ``<scene_name>/<token>/labels.npz``.
        frames: key frames that will be asked.

    Raises:
        FileNotFoundError: a key frame has no file; how many, and the first, are named.
    """

    def __init__(self, root: Union[str, Path], frames: KeyFrames) -> None:
        self._paths = {token: Path(root) / frames.metainfo(token)['scene_name'] / token
                       / 'labels.npz' for token in frames.tokens}
        missing = [path for path in self._paths.values() if not path.is_file()]
        if missing:
            raise FileNotFoundError(f'{len(missing)} of {len(frames)} key frames have no '
                                    f'prediction, the first is {missing[0]}')

    def __call__(self, token: str) -> np.ndarray:
        """(X, Y, Z) classes of a key frame."""
        return load_occupancy(self._paths[token])['semantics']


class SavedPointLabels:
    """Occupancy that labelled LiDAR points of key frames vote for.

    Args:
        root: folder with a file of labels a key frame, at any depth; see the module.
        frames: key frames that will be asked.
        classes: K names in the order of the labels.
        class_mapping: see :func:`occ_classes`.
        point_cloud_range: of the grid, metres, key ego frame.
        voxel_size: edge of its cubic cells, metres.

    Raises:
        FileNotFoundError: a key frame has no file; how many, and the first, are named.
        ValueError: two files are of one key frame, or a class is unknown.
    """

    def __init__(self, root: Union[str, Path], frames: KeyFrames, classes: Sequence[str],
                 class_mapping: Optional[Mapping[str, Optional[str]]] = None,
                 point_cloud_range: Sequence[float] = OCC3D_RANGE,
                 voxel_size: float = VOXEL_SIZE) -> None:
        self.frames = frames
        self._table = occ_classes(classes, class_mapping)
        self._low, self._size = tuple(point_cloud_range[:3]), voxel_size
        self._shape = grid_shape(point_cloud_range, voxel_size)
        self._paths = self._find(Path(root))

    def _find(self, root: Path) -> Dict[str, Path]:
        files: Dict[str, List[Path]] = {}
        for path in sorted(root.rglob('*')):
            if path.suffix in _LABEL_FILES:
                files.setdefault(path.stem, []).append(path)
        found, missing = {}, []
        for token in self.frames.tokens:
            names = dict.fromkeys(names_of(self.frames.metainfo(token)))
            paths = [path for name in names for path in files.get(name, ())]
            if len(paths) > 1:
                raise ValueError(f'sample {token} has several files of labels: '
                                 f'{[str(path) for path in paths]}')
            if paths:
                found[token] = paths[0]
            else:
                missing.append((token, list(names)))
        if missing:
            token, names = missing[0]
            raise FileNotFoundError(
                f'{len(missing)} of {len(self.frames)} key frames have no labels of points in '
                f'{root}; the first is {token}: expected one of {names} with {_LABEL_FILES}')
        return found

    def __call__(self, token: str) -> np.ndarray:
        """(X, Y, Z) uint8 classes of a key frame.

        Raises:
            ValueError: a damaged file, a label outside [0, K), or other numbers than of points.
        """
        info, path = self.frames.metainfo(token), self._paths[token]
        try:
            classes = classes_of_labels(read_point_labels(path), self._table)
            return vote_occupancy(points_in_key_ego(read_lidar(info), info), classes, self._low,
                                  self._size, self._shape)
        except ValueError as error:
            raise ValueError(f'{path} of sample {token}: {error}') from error


def names_of(info: Mapping[str, Any]) -> List[str]:
    """Names, without the suffix, that a key frame's file of point labels may have."""
    lidar = info.get('lidar_points') or {}
    names = [info['token']]
    if lidar.get('sample_data_token'):
        names += [lidar['sample_data_token'], f'{lidar["sample_data_token"]}_lidarseg']
    if lidar.get('lidar_path'):
        names.append(osp.splitext(osp.basename(lidar['lidar_path']))[0])
    return names


def read_point_labels(path: Path) -> np.ndarray:
    """(P,) integers of a file of labels; see the module.

    Raises:
        ValueError: the file is damaged or has another content.
    """
    if path.suffix == '.bin':
        return np.fromfile(path, dtype=np.uint8)
    if path.suffix == '.npy':
        return np.load(path, allow_pickle=False)
    content = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(content, dict) or 'pts_semantic_mask' not in content:
        raise ValueError("expected a JSON object with 'pts_semantic_mask'")
    return np.asarray(content['pts_semantic_mask'])


def score_saved(frames: KeyFrames, prediction_of: Callable[[str], np.ndarray],
                metrics: Sequence[BaseMetric], workers: int = 1,
                progress: Any = None) -> Dict[str, float]:
    """Scores of saved predictions, the same as the evaluation loop gives.

    Args:
        frames: key frames to score, whose ``occ_path`` names the truth.
        prediction_of: token -> (X, Y, Z) classes.
        metrics: metrics that read ``pred_occ``.
        workers: threads; reading and casting rays run side by side.
        progress: something with ``update(n)``, called once a key frame (a tqdm bar).

    Returns:
        Scores of all metrics by name.
    """
    def score(token: str) -> None:
        sample = dict(frames.metainfo(token), pred_occ=dict(semantics=prediction_of(token)))
        for metric in metrics:
            metric.process(None, [sample])
        if progress is not None:
            progress.update(1)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        jobs = [pool.submit(score, token) for token in frames.tokens]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    scores: Dict[str, float] = {}
    for metric in metrics:
        scores.update(metric.evaluate(len(frames)))
    return scores
