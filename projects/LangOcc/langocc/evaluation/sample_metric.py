"""Base of the metrics that compare occupancy sample by sample and sum counts before any ratio.

Legend: X, Y, Z grid cells.
"""
import os
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ..occ3d import range_of_labels
from ..structures import check_one_place
from .occ_files import load_occupancy

_TRUTH_FIELDS = ('semantics', 'mask_camera', 'mask_lidar')


class SampleMetric(BaseMetric):
    """Rows keyed by token; prediction and truth of a sample.

    Predictions and labels of one shape that lie in different places are refused, where both say
    where they lie: heads do, and labels by LoadOccGTFromFile. Labels that the metric reads itself
    lie in the range that the data set's ``metainfo`` gives as ``point_cloud_range``, else in
    Occ3D's where they have its shape.

    Args:
        data_root: folder that a relative metainfo ``occ_path`` is below.
        collect_device, prefix, collect_dir: see mmengine's BaseMetric.
    """
    # Range of the metric's own grid, metres; None: it counts voxels, wherever they are.
    point_cloud_range: Optional[Sequence[float]] = None

    def __init__(self,
                 data_root: Optional[str] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None,
                 collect_dir: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.data_root = data_root

    def evaluate(self, size: int) -> dict:
        """Scores what all processes collected.

        mmengine cuts the collected rows to ``size``, which removes a sampler's repeats only if they
        come last. All rows are taken here, and repeats are removed by token.

        Args:
            size: number of samples in the data set.

        Returns:
            Scores by name (see the class), the same in every process.
        """
        self._expected_size = size
        return super().evaluate(sys.maxsize)

    def rows_by_token(self, results: List[dict]) -> Dict[str, dict]:
        """One row a sample; a warning where their number is not that of the data set."""
        rows = {row['token']: row for row in reversed(results)}
        expected = getattr(self, '_expected_size', len(rows))
        if len(rows) != expected:
            MMLogger.get_current_instance().warning(
                f'{type(self).__name__}: {len(rows)} different samples were scored, the data set '
                f'has {expected}')
        return rows

    def required(self, mapping: Mapping, key: str, owner: str) -> Any:
        """``mapping[key]``; KeyError names the metric and the owner."""
        if key not in mapping or mapping[key] is None:
            raise KeyError(f"{type(self).__name__}: {owner} has no '{key}'")
        return mapping[key]

    def prediction_of(self, sample: Mapping, token: str) -> np.ndarray:
        """``pred_occ.semantics`` of a sample; KeyError where there is none."""
        prediction = self.required(sample, 'pred_occ', f'sample {token}')
        return to_numpy(self.required(prediction, 'semantics', f'pred_occ of sample {token}'))

    def truth_of(self, sample: Mapping, token: str) -> Dict[str, np.ndarray]:
        """``gt_occ``, or what the file of ``occ_path`` holds: ``semantics`` and masks (X, Y, Z).

        Raises:
            KeyError: the sample has neither, or the truth has no ``semantics``.
            FileNotFoundError: there is no such file.
            ValueError: prediction, truth and metric are not one place.
        """
        truth, place = sample.get('gt_occ'), None
        if truth is not None:
            place = truth.get('point_cloud_range')
            truth = {key: to_numpy(truth[key]) for key in _TRUTH_FIELDS if key in truth}
        elif sample.get('occ_path') is None:
            raise KeyError(f"sample {token} has neither 'gt_occ' nor 'occ_path' to score against")
        else:
            truth = self._read_truth(os.path.join(self.data_root or '', sample['occ_path']), token)
        semantics = self.required(truth, 'semantics', f'truth of sample {token}')
        if sample.get('gt_occ') is None:
            place = self.place_of_files(semantics.shape)
        check_one_place({'the labels': place,
                         'the prediction': (sample.get('pred_occ') or {}).get('point_cloud_range'),
                         type(self).__name__: self.point_cloud_range}, f'sample {token}')
        return truth

    def place_of_files(self, shape: Sequence[int]) -> Optional[Sequence[float]]:
        """Range of labels (X, Y, Z) that are read here, metres; None where nobody knows it."""
        return (self.dataset_meta or {}).get('point_cloud_range', range_of_labels(shape))

    def _read_truth(self, path: str, token: str) -> Dict[str, np.ndarray]:
        try:
            return load_occupancy(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'sample {token}: {error}; {type(self).__name__} scores '
                                    'against them (tools/test.py --format-only DIR writes '
                                    'predictions without labels)') from error


def same_shape(prediction: np.ndarray, truth: np.ndarray, token: str) -> None:
    """Raises ValueError, naming the sample, where prediction and truth are of two shapes."""
    if prediction.shape != truth.shape:
        raise ValueError(f'sample {token}: prediction has shape {prediction.shape}, '
                         f'truth {truth.shape}')


def to_numpy(values: Any) -> np.ndarray:
    """A tensor on any device, or an array, as an array."""
    return values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)
