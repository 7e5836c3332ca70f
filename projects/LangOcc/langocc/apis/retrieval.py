"""The retrieval benchmark run on an inferencer."""
from typing import Dict, Optional, Sequence

import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS

from ..evaluation.retrieval import (
    SPLITS, lidar_in_ego, load_queries, mean_of, score_query, teacher_features
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
    rows = [_score(inferencer, query, teacher) for query in load_queries(benchmark, splits)]
    groups = {split: [row for row in rows if row['split'] == split] for split in splits}
    groups['all'] = rows
    columns = ('visible', 'teacher', 'chance', 'all')
    means = {name: {column: mean_of(group, column) for column in columns}
             for name, group in groups.items()}
    return dict(queries=rows, means=means)


def _score(inferencer: OccInferencer, query, teacher: Optional[Teacher]) -> dict:
    head = inferencer.model.occ_head
    field, info = inferencer.field(query.token)
    points = lidar_in_ego(info)
    text = inferencer.embed([query.words])
    device = field.feats.device
    feats = head.sample_language(field, 0, torch.from_numpy(points).float().to(device))
    reference = None
    if teacher is not None:
        reference = teacher_features(teacher, info, info['camera_names']) @ text[0]
    reduced = F.normalize(head.reduce(text.to(device)), dim=-1)
    return score_query(query, points, field.grid, reduced[0], feats, reference)
