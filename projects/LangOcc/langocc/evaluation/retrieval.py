"""Open-vocabulary retrieval at LiDAR points: a field's average precision beside its teacher's.

The protocol is that of POP-3D's benchmark (protocols.md), whose files
:mod:`langocc.datasets.retrieval_benchmark` reads. Functions of arrays here, which
``RetrievalMetric`` and ``tools/eval_retrieval.py`` share.

Two variants. ``langocc``: points strictly inside the grid's range count, each once; its visible
ones are those that a camera sees. ``pop3d``: every point counts, one outside at the nearest place
inside, and a visible one as often as the benchmark's file lists it (POP-3D lists a point once a
camera). POP-3D's own grid is +-51.2 m; ours is the model's, whatever that is.

Legend: P points, E embedding.
"""
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from ..datasets.ray_sources import read_lidar
from ..datasets.retrieval_benchmark import SPLITS, Query, seen_by
from ..teachers import DenseTeacher, Teacher

VARIANTS = ('langocc', 'pop3d')
# Groups of queries that means are taken over; 'val+test' is the headline of POP-3D and LangOcc.
GROUPS: Dict[str, Tuple[str, ...]] = {
    'train': ('train', ), 'val': ('val', ), 'test': ('test', ), 'val+test': ('val', 'test'),
    'all': SPLITS}
# Columns of the means.
COLUMNS = ('visible', 'teacher', 'chance', 'all', 'chance_all')


def teacher_features(teacher: Teacher, info: dict, cameras: Sequence[str],
                     device: Optional[torch.device] = None) -> Tensor:
    """The 2D teacher's features at LiDAR points, looked up where :func:`seen_by` has them.

    A point that several cameras see gets the mean of their features, normalised; one that none sees
    gets zeros.

    Args:
        teacher: the teacher.
        info: the key frame.
        cameras: names.
        device: where a teacher that computes maps does so; None leaves it.

    Returns:
        (P, E) float32, unit or zero rows.
    """
    if device is not None and isinstance(teacher, DenseTeacher):
        teacher.to(device)
    points = read_lidar(info)
    total = torch.zeros(len(points), teacher.embed_dims)
    for camera in cameras:
        seen, pixels = seen_by(info, camera, points)
        total[torch.from_numpy(seen)] += teacher.features(info, camera, torch.from_numpy(pixels))
    return torch.nn.functional.normalize(total, dim=-1)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> Optional[float]:
    """sklearn's average precision x 100; None without a positive (reported, left out of means)."""
    if not labels.any():
        return None
    return 100 * float(average_precision_score(labels, scores))


def counted_points(query: Query, in_range: np.ndarray, variant: str
                   ) -> Tuple[np.ndarray, np.ndarray]:
    """Indices of the points that count, all and visible ones, by the variant's rule."""
    if variant == 'pop3d':
        return np.arange(len(in_range)), query.matching
    return np.flatnonzero(in_range), np.flatnonzero(in_range & query.visible)


def score_query(query: Query, in_range: np.ndarray, cosines: np.ndarray,
                teacher_cosines: Optional[np.ndarray] = None,
                variant: str = 'langocc') -> Dict[str, Any]:
    """Average precisions of one query.

    Args:
        query: the query.
        in_range: (P,) bool, points strictly inside the grid's range.
        cosines: (P,) of the field's features and the words.
        teacher_cosines: (P,) likewise of the 2D teacher; its average precision is at the visible
            points, the only ones it sees.
        variant: see the module.

    Returns:
        query, split, token; average precision of the field at ``all`` and ``visible`` points, of
        the ``teacher`` at visible ones; ``chance`` (share of positives) at visible ones and
        ``chance_all``; ``positives`` at visible ones and ``positives_all``. Times 100 but for the
        counts; None where there is no positive, or no point.

    Raises:
        ValueError: labels and predictions are of different numbers of points.
    """
    if len(query.labels) != len(in_range) or len(cosines) != len(in_range):
        raise ValueError(f"query '{query.words}' labels {len(query.labels)} points, the LiDAR file "
                         f'of sample {query.token} has {len(in_range)} and {len(cosines)} are '
                         'predicted')
    kept, visible = counted_points(query, in_range, variant)
    scores, labels = (np.asarray(cosines) + 1) / 2, query.labels
    row = dict(query=query.words, split=query.split, token=query.token,
               positives=int(labels[visible].sum()), positives_all=int(labels[kept].sum()),
               chance=_share(labels[visible]), chance_all=_share(labels[kept]),
               all=average_precision(labels[kept], scores[kept]),
               visible=average_precision(labels[visible], scores[visible]))
    if teacher_cosines is not None:
        row['teacher'] = average_precision(labels[visible], np.asarray(teacher_cosines)[visible])
    return row


def _share(labels: np.ndarray) -> Optional[float]:
    return 100 * float(labels.mean()) if len(labels) else None


def mean_of(rows: Sequence[dict], key: str) -> Optional[float]:
    """Unweighted mean over queries that have a value."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else None


def means_of(rows: Sequence[dict]) -> Dict[str, Optional[float]]:
    """Means of all :data:`COLUMNS`, and over how many queries.

    ``chance`` is over the queries that ``visible`` is over, ``chance_all`` over those of ``all``:
    a query without a positive would lower it and nothing else.

    Returns:
        The columns, ``queries`` (that have a positive among the visible points) and
        ``queries_all``.
    """
    visible = [row for row in rows if row['visible'] is not None]
    anywhere = [row for row in rows if row['all'] is not None]
    means = {key: mean_of(anywhere if key in ('all', 'chance_all') else visible, key)
             for key in COLUMNS}
    return dict(means, queries=len(visible), queries_all=len(anywhere))


def means_by_group(rows: Sequence[dict]) -> Dict[str, Dict[str, Optional[float]]]:
    """:func:`means_of` of every group of :data:`GROUPS` of which there is a query, and of 'all'."""
    means = {}
    for name, splits in GROUPS.items():
        of_group = [row for row in rows if row['split'] in splits]
        present = {row['split'] for row in of_group}
        if name == 'all' or present == set(splits):
            means[name] = means_of(of_group)
    return means
