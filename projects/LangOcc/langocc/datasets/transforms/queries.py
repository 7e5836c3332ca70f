"""Words of a retrieval benchmark, asked at the LiDAR points of the frames that have them.

Legend: P points, Q words, E text embedding.
"""
from pathlib import Path
from typing import Any, Dict, List, Sequence, Union

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TASK_UTILS, TRANSFORMS
from torch import Tensor

from ...structures import PointQueries
from ...teachers.text import TextEncoder
from ..retrieval_benchmark import SPLITS, lidar_in_ego, read_table


@TRANSFORMS.register_module()
class LoadRetrievalQueries(BaseTransform):
    """Asks a benchmark's words of the frames that they belong to; other frames stay as they are.

    Adds ``point_queries`` (PointQueries): the frame's LiDAR points in the (augmented) key ego frame
    and the words' embeddings. A head with language answers them in prediction, and
    ``RetrievalMetric`` scores the answers. Words are embedded once, when the pipeline is made.

    Args:
        benchmark: folder in the layout of the POP-3D benchmark; the metric's.
        text_encoder: config of a :class:`TextEncoder`, or one.
        splits: those wanted; the metric's.

    Raises:
        FileNotFoundError, ValueError: the table is missing or wrong.
        KeyError: the text encoder does not know a word.
    """

    def __init__(self, benchmark: Union[str, Path], text_encoder: Union[TextEncoder, dict],
                 splits: Sequence[str] = SPLITS) -> None:
        if isinstance(text_encoder, dict):
            text_encoder = TASK_UTILS.build(text_encoder)
        self.benchmark = str(benchmark)
        self.words: Dict[str, List[str]] = {}
        for line in read_table(benchmark, splits):
            words = self.words.setdefault(line.token, [])
            if line.words not in words:
                words.append(line.words)
        distinct = list(dict.fromkeys(word for words in self.words.values() for word in words))
        rows = text_encoder.encode(distinct) if distinct else []
        self._embeds: Dict[str, Tensor] = dict(zip(distinct, rows))

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Adds ``point_queries`` where the frame has a query."""
        words = self.words.get(results['token'])
        if words:
            embeds = torch.stack([self._embeds[word] for word in words])
            results['point_queries'] = ask_at_lidar(results, words, embeds)
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(benchmark={self.benchmark!r}, '
                f'{len(self.words)} frames, {len(self._embeds)} words)')


def ask_at_lidar(results: Dict[str, Any], words: Sequence[str], text_embeds: Tensor
                 ) -> PointQueries:
    """Words at the LiDAR points of a frame.

    Args:
        results: info of the frame; ``bev_aug_matrix`` is applied where it is there.
        words: Q distinct words.
        text_embeds: (Q, E) unit rows.
    """
    matrix = np.asarray(results.get('bev_aug_matrix', np.eye(4)), dtype=np.float64)
    points = lidar_in_ego(results) @ matrix[:3, :3].T + matrix[:3, 3]
    return PointQueries(torch.from_numpy(points), tuple(words), text_embeds)
