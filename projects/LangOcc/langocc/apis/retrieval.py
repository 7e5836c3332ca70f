"""The retrieval benchmark run on an inferencer."""
from typing import Callable, Dict, List, Optional, Sequence

import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS

from ..evaluation.retrieval import (
    SPLITS, Query, lidar_in_ego, load_queries, mean_of, score_query, teacher_features
)
from ..teachers import Teacher
from .inferencer import OccInferencer


@torch.no_grad()
def score_retrieval(inferencer: OccInferencer, benchmark: str, splits: Sequence[str] = SPLITS
                    ) -> Dict[str, object]:
    """Field and teacher on every query whose key frame is in the inferencer's data set.

    The teacher is ``cfg.teacher`` (none: its column is empty).

    Returns:
        ``queries``: a row each (see ``score_query``); ``means``: split or 'all' -> means.
    """
    config = inferencer.cfg.get('teacher')
    teacher: Optional[Teacher] = None if config is None else TASK_UTILS.build(config)
    rows = _score_all(inferencer, load_queries(benchmark, splits), teacher)
    groups = {split: [row for row in rows if row['split'] == split] for split in splits}
    groups['all'] = rows
    columns = ('visible', 'teacher', 'chance', 'all')
    means = {name: {column: mean_of(group, column) for column in columns}
             for name, group in groups.items()}
    return dict(queries=rows, means=means)


def _score_all(inferencer: OccInferencer, queries: Sequence[Query],
               teacher: Optional[Teacher]) -> List[dict]:
    """A row for each query, in their order; the network runs once for each key frame."""
    by_frame: Dict[str, List[int]] = {}
    for place, query in enumerate(queries):
        by_frame.setdefault(query.token, []).append(place)
    rows = {}
    for token, places in by_frame.items():
        score = _frame_scorer(inferencer, token, teacher)
        rows.update({place: score(queries[place]) for place in places})
    return [rows[place] for place in range(len(queries))]


def _frame_scorer(inferencer: OccInferencer, token: str, teacher: Optional[Teacher]
                  ) -> Callable[[Query], dict]:
    """What scores queries to one key frame."""
    head = inferencer.model.occ_head
    field, info = inferencer.field(token)
    points, device = lidar_in_ego(info), field.device
    feats = head.sample_language(field, 0, torch.from_numpy(points).float().to(device))
    seen = None if teacher is None else teacher_features(teacher, info, info['camera_names'])

    def score(query: Query) -> dict:
        text = inferencer.embed([query.words])
        reduced = F.normalize(head.reduce(text.to(device)), dim=-1)
        reference = None if seen is None else seen @ text[0]
        return score_query(query, points, field.grid, reduced[0], feats, reference)

    return score
