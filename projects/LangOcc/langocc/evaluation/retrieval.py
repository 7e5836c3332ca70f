"""Open-vocabulary retrieval at LiDAR points: a field's average precision beside its teacher's.

The benchmark (POP-3D's layout, protocols.md): a table of queries, one key frame each; binary labels
of that frame's LiDAR points; the indices of the points that a camera sees. Pure functions here; the
tool ``tools/eval_retrieval.py`` runs them.

Legend: P points, E embedding.
"""
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from voxelrender import VoxelGrid

from ..datasets.geometry import homogeneous, lidar_to_camera, project
from ..datasets.ray_sources import read_lidar
from ..teachers import Teacher
from ..teachers.base import image_of

SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Query:
    """One query of the benchmark.

    Attributes:
        token: key frame.
        split: 'train', 'val' or 'test'.
        words: the query.
        labels: (P,) bool over the frame's LiDAR points.
        visible: (P,) bool, points seen by a camera.
    """
    token: str
    split: str
    words: str
    labels: np.ndarray
    visible: np.ndarray


def load_queries(root: Union[str, Path], splits: Sequence[str] = SPLITS) -> List[Query]:
    """Queries of a benchmark folder.

    Args:
        root: folder with ``retrieval_anns_all.csv``, ``annotations`` and ``matching_points``.
        splits: those wanted.

    Raises:
        FileNotFoundError: table or arrays are not there.
        ValueError: a line of the table, a split or an index is wrong; names file and line.
    """
    root = Path(root)
    table = root / 'retrieval_anns_all.csv'
    if not table.is_file():
        raise FileNotFoundError(f'no retrieval benchmark: {table} does not exist')
    queries = []
    with open(table, newline='', encoding='utf-8') as file:
        for number, row in enumerate(csv.reader(file, delimiter=';'), start=1):
            if len(row) != 5 or row[1] not in SPLITS:
                raise ValueError(f'{table}, line {number}: expected token;split;annotation file;'
                                 f'points file;query, got {row}')
            if row[1] not in splits:
                continue
            labels, points = (np.load(root / name, allow_pickle=False) for name in row[2:4])
            visible = np.zeros(len(labels), dtype=bool)
            if len(points) and points.max() >= len(labels):
                raise ValueError(f'{root / row[3]}: point {points.max()} of {len(labels)}')
            visible[points] = True
            queries.append(Query(row[0], row[1], row[4], labels.astype(bool), visible))
    return queries


def lidar_in_ego(info: dict) -> np.ndarray:
    """LiDAR points of an info in its LiDAR-time ego frame, (P, 3) float64 metres."""
    lidar2ego = homogeneous(info['lidar_points']['lidar2ego'])
    return read_lidar(info) @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]


def inside(grid: VoxelGrid, points: np.ndarray) -> np.ndarray:
    """(P,) bool: points strictly inside the grid's range."""
    low, high = np.array(grid.point_cloud_range).reshape(2, 3)
    return ((points > low) & (points < high)).all(1)


def teacher_features(teacher: Teacher, info: dict, cameras: Sequence[str]) -> Tensor:
    """The 2D teacher's features at LiDAR points.

    Each point is projected with every camera's own pose at its own time, strictly inside the image
    and at least 1 m in front. A point that several cameras see gets the mean of their features,
    normalised; one that none sees gets zeros.

    Args:
        teacher: the teacher.
        info: the key frame.
        cameras: names.

    Returns:
        (P, E) float32, unit or zero rows.
    """
    points = read_lidar(info)
    total = torch.zeros(len(points), teacher.embed_dims)
    for camera in cameras:
        image = image_of(info, camera)
        pixels, depths = project(points, lidar_to_camera(info, camera), image['cam2img'])
        size = np.array([image['width'] - 1, image['height'] - 1])
        seen = np.flatnonzero((depths > 1) & ((pixels > 0) & (pixels < size)).all(1))
        total[torch.from_numpy(seen)] += teacher.features(
            info, camera, torch.from_numpy(pixels[seen]))
    return torch.nn.functional.normalize(total, dim=-1)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> Optional[float]:
    """sklearn's average precision x 100; None without a positive (reported, left out of means)."""
    if not labels.any():
        return None
    return 100 * float(average_precision_score(labels, scores))


def score_query(query: Query, points: np.ndarray, grid: VoxelGrid, text: Tensor,
                field_feats: Tensor, teacher_cosine: Optional[Tensor] = None) -> Dict[str, object]:
    """Average precisions of one query.

    Args:
        query: the query.
        points: (P, 3) metres, key ego frame.
        grid: points strictly inside its range count.
        text: (E_field,) text embedding in the field's space.
        field_feats: (P, E_field) unit features of the field.
        teacher_cosine: (P,) cosines of the 2D teacher's features; its average precision is at the
            visible points, the only ones it sees.

    Returns:
        query, split, token, ``all`` and ``visible`` average precision of the field, ``teacher``
        at the visible points, ``chance`` (share of positives there) and ``positives``.
    """
    if len(query.labels) != len(points):
        raise ValueError(f"query '{query.words}' labels {len(query.labels)} points, the LiDAR file "
                         f'of sample {query.token} has {len(points)}')
    kept = inside(grid, points)
    visible = kept & query.visible
    cosine = (field_feats @ text).cpu().numpy()
    scores = (cosine + 1) / 2
    row = dict(query=query.words, split=query.split, token=query.token,
               positives=int(query.labels[visible].sum()),
               chance=100 * float(query.labels[visible].mean()) if visible.any() else None,
               all=average_precision(query.labels[kept], scores[kept]),
               visible=average_precision(query.labels[visible], scores[visible]))
    if teacher_cosine is not None:
        row['teacher'] = average_precision(query.labels[visible],
                                           teacher_cosine.numpy()[visible])
    return row


def mean_of(rows: Sequence[dict], key: str) -> Optional[float]:
    """Unweighted mean over queries that have a value."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else None
