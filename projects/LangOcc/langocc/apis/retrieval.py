"""Retrieval at LiDAR points run on an inferencer: a benchmark's queries, or a user's own words.

Both go the way of the evaluation loop: the head answers at the points, ``score_query`` scores.

Legend: P points, Q words.
"""
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Union

import torch
from mmdet3d.registry import TASK_UTILS

from ..datasets.retrieval_benchmark import SPLITS
from ..datasets.transforms.queries import ask_at_lidar
from ..evaluation.lidarseg_queries import lidarseg_queries
from ..evaluation.retrieval import means_of, score_query, teacher_features
from ..evaluation.retrieval_metric import RetrievalMetric
from ..teachers import Teacher
from .inferencer import OccInferencer


def score_retrieval(inferencer: OccInferencer, benchmark: str, splits: Sequence[str] = SPLITS,
                    variant: str = 'langocc') -> Dict[str, Any]:
    """Field and teacher on every query whose key frame is in the inferencer's data set.

    The numbers are :class:`RetrievalMetric`'s, which scores here too; to the last digit where the
    inferencer was made with ``optimize=False``. The network runs once for each key frame. The
    teacher is ``cfg.teacher`` (none: its column is empty).

    Returns:
        See :meth:`RetrievalMetric.summarize`.
    """
    metric = RetrievalMetric(benchmark, inferencer.cfg.get('teacher'), variant, splits)
    for token, words in metric.words.items():
        if inferencer.has(token):
            metric.process(None, [_answered(inferencer, token, words)])
    return metric.summarize(metric.results)


def score_words(inferencer: OccInferencer, classes: Mapping[str, Sequence[int]],
                samples: Optional[Iterable[Union[int, str]]] = None) -> Dict[str, Any]:
    """A user's words against the LiDAR labels of key frames (nuScenes-lidarseg's format).

    Args:
        inferencer: with a data set whose infos have ``pts_semantic_mask_path``.
        classes: word -> indices of the categories that it should find (see
            :func:`~langocc.evaluation.lidarseg_queries.parse_words`).
        samples: tokens or indices; the whole data set by default.

    Returns:
        ``queries``: a row for each frame and word; ``words``: word -> means over the frames that
        have a positive; ``means``: ``all``, the unweighted means over words.
    """
    config = inferencer.cfg.get('teacher')
    teacher: Optional[Teacher] = None if config is None else TASK_UTILS.build(config)
    samples = range(len(inferencer.dataset)) if samples is None else samples
    rows: List[dict] = []
    for sample in samples:
        answered = _answered(inferencer, sample, list(classes))
        asked, answer = answered['point_queries'], answered['pred_occ']
        in_range = answer['point_in_range'].cpu().numpy()
        seen = None
        if teacher is not None:
            seen = teacher_features(teacher, answered, answered['camera_names'],
                                    answer['point_in_range'].device)
        for column, query in enumerate(lidarseg_queries(answered, classes)):
            cosines = answer['point_similarity'][:, column].cpu().numpy()
            reference = None if seen is None else (
                seen @ asked.text_embeds[column].cpu()).numpy()
            rows.append(score_query(query, in_range, cosines, reference))
    words = {word: means_of([row for row in rows if row['query'] == word]) for word in classes}
    return dict(queries=rows, words=words, means=dict(all=means_of(list(words.values()))))


@torch.no_grad()
def _answered(inferencer: OccInferencer, sample: Union[int, str], words: Sequence[str]) -> dict:
    """The sample's info with ``point_queries`` and their answers, as a metric is given them."""
    field, info = inferencer.field(sample)
    asked = ask_at_lidar(info, words, inferencer.embed(words)).to(field.device)
    answer = inferencer.model.occ_head.answer(field, 0, asked)
    return dict(info, point_queries=asked, pred_occ=answer)
