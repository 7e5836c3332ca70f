"""Retrieval metric of the evaluation loop: average precision of words at LiDAR points (POP-3D).

Legend: P points, Q words of one frame, E text embedding. Rows kept in ``results`` are a few numbers
a query, so that processes exchange no features.
"""
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np
from mmdet3d.registry import METRICS, TASK_UTILS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from ..datasets.retrieval_benchmark import SPLITS, load_queries
from ..files import write_json
from ..structures import PointQueries
from ..teachers import Teacher
from .retrieval import COLUMNS, VARIANTS, means_by_group, score_query, teacher_features
from .sample_metric import to_numpy


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """Scores what a head with language answered at LiDAR points, in POP-3D's benchmark.

    The test pipeline needs ``LoadRetrievalQueries`` of the same benchmark before ``PackOccInputs``:
    it asks, for the few frames that have a query, and the head answers in ``pred_occ``. Other
    frames cost nothing. Every query has one row; a sample that a distributed sampler repeats counts
    once. A query without a positive among the points that count has no average precision; it is
    reported and left out of the means, and so are queries whose key frame the data set has not.

    Keys, all times 100, with the prefix 'retrieval': ``<group>_mAP``, ``<group>_mAP_visible``,
    ``<group>_chance``, ``<group>_chance_visible`` and, with a teacher,
    ``<group>_teacher_mAP_visible``; groups are train, val, test, val+test (the headline) and all,
    those of which queries were asked.

    Args:
        benchmark: folder in the layout of the POP-3D benchmark.
        teacher: config of the 2D teacher (or one) whose own average precision stands beside; None:
            none. It is asked once for each frame, however often is evaluated.
        variant: 'langocc' or 'pop3d', see :mod:`langocc.evaluation.retrieval`.
        splits: those wanted.
        out_file: JSON file for all rows and means.
        collect_device, prefix, collect_dir: see mmengine's BaseMetric.

    Raises:
        FileNotFoundError: table or arrays of the benchmark are not there.
        ValueError: the benchmark is wrong (file and line are named), or ``variant`` is unknown.
    """
    default_prefix = 'retrieval'

    def __init__(self,
                 benchmark: Union[str, Path],
                 teacher: Union[Teacher, dict, None] = None,
                 variant: str = 'langocc',
                 splits: Sequence[str] = SPLITS,
                 out_file: Optional[str] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None,
                 collect_dir: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if variant not in VARIANTS:
            raise ValueError(f'RetrievalMetric: variant={variant!r}, expected one of '
                             f'{list(VARIANTS)}')
        self.variant = variant
        self.out_file = out_file
        self.queries = load_queries(benchmark, splits)
        self.teacher = TASK_UTILS.build(teacher) if isinstance(teacher, dict) else teacher
        self._of_token: Dict[str, List[int]] = {}
        for place, query in enumerate(self.queries):
            self._of_token.setdefault(query.token, []).append(place)
        self._teacher_cosines: Dict[int, np.ndarray] = {}

    @property
    def words(self) -> Dict[str, List[str]]:
        """Key frame -> its words, each once."""
        return {token: list(dict.fromkeys(self.queries[place].words for place in places))
                for token, places in self._of_token.items()}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Adds one row for each query of the samples' key frames.

        Args:
            data_batch: not read.
            data_samples: dicts with ``token``; those of frames with a query also with
                ``point_queries`` (PointQueries) and ``pred_occ`` with ``point_similarity`` (P, Q)
                and ``point_in_range`` (P,); with a teacher also the info's ``images``,
                ``lidar_points`` and ``camera_names``.

        Raises:
            KeyError: a frame with a query was not asked or has no answer.
            ValueError: other numbers of points than labels.
        """
        for sample in data_samples:
            for place in self._of_token.get(sample['token'], ()):
                self.results.append(dict(self._row(place, sample), place=place))

    def _row(self, place: int, sample: Mapping) -> Dict[str, Any]:
        query, asked = self.queries[place], sample.get('point_queries')
        where = f"RetrievalMetric: sample {query.token} has the query '{query.words}'"
        if asked is None:
            raise KeyError(f'{where} and was not asked: add LoadRetrievalQueries to the test '
                           'pipeline')
        if query.words not in asked.words:
            raise KeyError(f'{where} and was asked {list(asked.words)}: LoadRetrievalQueries and '
                           'RetrievalMetric need one benchmark and the same splits')
        answer = sample.get('pred_occ')
        if answer is None or 'point_similarity' not in answer:
            raise KeyError(f"{where} and pred_occ has no 'point_similarity': only a head with "
                           "the decoder 'lang' (LangOccHead) answers")
        column = asked.words.index(query.words)
        similarity = answer['point_similarity']
        return score_query(
            query, to_numpy(answer['point_in_range']), to_numpy(similarity[:, column]),
            self._cosines_of_teacher(place, sample, asked, similarity), self.variant)

    def _cosines_of_teacher(self, place: int, sample: Mapping, asked: PointQueries,
                            like: Any) -> Optional[np.ndarray]:
        """(P,) float32, from memory where the frame was evaluated before; None without teacher."""
        if self.teacher is None:
            return None
        if place not in self._teacher_cosines:
            feats = teacher_features(self.teacher, sample, sample['camera_names'],
                                     getattr(like, 'device', None))
            for other in self._of_token[sample['token']]:
                words = self.queries[other].words
                if words in asked.words:
                    text = asked.text_embeds[asked.words.index(words)].cpu().to(feats)
                    self._teacher_cosines[other] = (feats @ text).numpy()
        return self._teacher_cosines[place]

    def evaluate(self, size: int) -> dict:
        """Scores what all processes collected; see ``OccMetric.evaluate``.

        All rows are taken, and repeats are removed by query: mmengine would cut rows to ``size``,
        the number of samples.
        """
        return super().evaluate(sys.maxsize)

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Means of the groups; see the class. The rows are logged, and written to ``out_file``."""
        summary = self.summarize(results)
        logger = MMLogger.get_current_instance()
        logger.info(f'Retrieval at LiDAR points, variant {self.variant}\n{_table(summary)}')
        for line in report_of(summary):
            logger.warning(f'RetrievalMetric: {line}')
        if self.out_file:
            write_json(self.out_file, summary, indent=2)
        scores = {}
        for group, means in summary['means'].items():
            values = dict(mAP='all', mAP_visible='visible', chance='chance_all',
                          chance_visible='chance')
            if self.teacher is not None:
                values['teacher_mAP_visible'] = 'teacher'
            scores.update({f'{group}_{name}': float('nan') if means[key] is None else means[key]
                           for name, key in values.items()})
        return scores

    def summarize(self, results: Sequence[dict]) -> Dict[str, Any]:
        """Rows in the benchmark's order, means, and what is left out of them.

        Args:
            results: rows of all processes; a query may occur more than once.

        Returns:
            ``variant``; ``queries``: rows of :func:`score_query`; ``means``: group -> means;
            ``left_out``: queries without a positive among the visible points or among all;
            ``missing``: queries whose key frame was not evaluated.
        """
        by_place = {row['place']: row for row in reversed(results)}
        rows = [{key: value for key, value in by_place[place].items() if key != 'place'}
                for place in sorted(by_place)]
        absent = [query for place, query in enumerate(self.queries) if place not in by_place]
        return dict(
            variant=self.variant, queries=rows, means=means_by_group(rows),
            left_out=[dict(query=row['query'], token=row['token'], points=name)
                      for row in rows for name in ('visible', 'all') if row[name] is None],
            missing=[dict(query=query.words, token=query.token, split=query.split)
                     for query in absent])


def report_of(summary: Mapping) -> List[str]:
    """What a summary leaves out, a line each."""
    lines = [f"query '{item['query']}' of sample {item['token']} has no positive among "
             f'{item["points"]} points that count and is left out of their mean'
             for item in summary['left_out']]
    missing = summary['missing']
    if missing:
        words = sorted({item['query'] for item in missing})
        lines.append(f'{len(missing)} queries are left out, their key frames were not evaluated: '
                     + ', '.join(words[:8]) + (' ...' if len(words) > 8 else ''))
    return lines


def _table(summary: Mapping) -> str:
    def cells(values: Mapping) -> List[str]:
        return ['-' if values.get(key) is None else f'{values[key]:.1f}' for key in COLUMNS]
    rows = [['query', 'split', 'visible', 'teacher', 'chance', 'all', 'chance, all']]
    rows += [[row['query'], row['split'], *cells(row)] for row in summary['queries']]
    rows += [[f'mean of {means["queries"]}', group, *cells(means)]
             for group, means in summary['means'].items()]
    return AsciiTable(rows).table
