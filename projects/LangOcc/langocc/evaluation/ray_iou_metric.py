"""RayIoU metric of the evaluation loop (SparseOcc); rules in :mod:`langocc.evaluation.ray_iou`.

Legend: X, Y, Z grid cells; T thresholds. Rows kept in ``results`` are (T + 2, 17) counts a sample.
"""
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from ..occ3d import FREE_CLASS, NUM_CLASSES, OCC3D_CLASSES, OCC3D_RANGE
from .grid_shape import VOXEL_SIZE, grid_shape
from .occ_confusion import VARIANTS, mean_iou
from .ray_iou import THRESHOLDS, cast_rays, count_rays, ray_directions, ray_ious, select_origins
from .sample_metric import SampleMetric, same_shape

# name of the mean -> classes left out, those of OccMetric's variants
MEANS = {'RayIoU': (), 'rayiou15': VARIANTS['occ15'][0]}


@METRICS.register_module()
class RayIoUMetric(SampleMetric):
    """Scores ``pred_occ`` by the rays of a simulated LiDAR against Occ3D labels.

    Truth as :class:`OccMetric` finds it, no mask. The origins of rays are the metainfo
    ``lidar_origins``, (n, 3) metres in the key ego frame, which :class:`NuScenesOccDataset` gives
    and PackOccInputs packs: the LiDAR at all key frames of the scene. Counts are summed over
    samples and processes before any ratio; a sample that a sampler repeats counts once.

    Keys, all times 100: ``RayIoU`` (17 classes) and ``rayiou15`` (without others and other_flat),
    means over thresholds; ``RayIoU@<metres>``, ``rayiou15@<metres>``; ``RayIoU_<class>``, means
    over thresholds. A class that no ray meets in truth or prediction is NaN and in no mean.

    Args:
        thresholds: distances in metres by which a ray may be off.
        point_cloud_range: of the grid, metres.
        voxel_size: edge of its cubic cells, metres.
        data_root: folder that ``occ_path`` is relative to; default none: NuScenesOccDataset gives
            whole paths.
        collect_device, prefix, collect_dir: see mmengine's BaseMetric.

    Raises:
        ValueError: no threshold, or one that is not positive; or a range that is not a whole number
            of cells.
    """

    def __init__(self,
                 thresholds: Sequence[float] = THRESHOLDS,
                 point_cloud_range: Sequence[float] = OCC3D_RANGE,
                 voxel_size: float = VOXEL_SIZE,
                 data_root: Optional[str] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None,
                 collect_dir: Optional[str] = None) -> None:
        super().__init__(data_root, collect_device, prefix, collect_dir)
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        if not self.thresholds or min(self.thresholds) <= 0:
            raise ValueError(f'RayIoUMetric: thresholds={list(thresholds)}, expected distances '
                             'above 0 m')
        self.point_cloud_range = tuple(float(edge) for edge in point_cloud_range)
        self.voxel_size = float(voxel_size)
        self.grid_shape = grid_shape(self.point_cloud_range, self.voxel_size)
        self._directions = ray_directions()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Adds one row a sample: its token and counts.

        Args:
            data_batch: not read.
            data_samples: dicts with ``pred_occ.semantics`` (X, Y, Z), ``token``,
                ``lidar_origins`` and the truth.

        Raises:
            KeyError: prediction, truth, origins or token is missing.
            ValueError: prediction, truth and grid differ in shape or place, a predicted class is
                unknown, or the origins are no positions.
            TypeError: labels are not integers.
        """
        for sample in data_samples:
            token = self.required(sample, 'token', 'a data sample')
            prediction = self.prediction_of(sample, token)
            truth = self.truth_of(sample, token)['semantics']
            self._check(prediction, truth, token)
            origins = self._origins(sample, token)
            ends = [cast_rays(labels, origins, self._directions, self.point_cloud_range,
                              self.voxel_size) for labels in (truth, prediction)]
            self.results.append(dict(token=token, counts=count_rays(*ends, self.thresholds)))

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Sums the counts and reads the scores from the sums.

        Args:
            results: rows of all processes; a token may occur more than once.

        Returns:
            Scores times 100 by name; see the class.
        """
        rows = self.rows_by_token(results)
        counts = np.zeros((len(self.thresholds) + 2, FREE_CLASS), dtype=np.int64)
        for row in rows.values():
            counts += row['counts']
        ious = 100 * ray_ious(counts)
        MMLogger.get_current_instance().info(
            f'RayIoU, {len(rows)} samples\n{self._table(counts, ious)}')
        scores = {}
        for name, left_out in MEANS.items():
            of_threshold = [mean_iou(np.delete(row, left_out)) for row in ious]
            scores[name] = float(np.mean(of_threshold))
            scores.update({f'{name}@{threshold:g}': value
                           for threshold, value in zip(self.thresholds, of_threshold)})
        scores.update({f'RayIoU_{OCC3D_CLASSES[c]}': float(ious[:, c].mean())
                       for c in range(FREE_CLASS)})
        return scores

    def _check(self, prediction: np.ndarray, truth: np.ndarray, token: str) -> None:
        same_shape(prediction, truth, token)
        if truth.shape != self.grid_shape:
            raise ValueError(f'sample {token}: labels have shape {truth.shape}; the grid '
                             f'{list(self.point_cloud_range)} m in cells of {self.voxel_size:g} m '
                             f'has {self.grid_shape}: set point_cloud_range and voxel_size of '
                             'RayIoUMetric')
        for name, labels in (('truth', truth), ('prediction', prediction)):
            if labels.dtype.kind not in 'iu':
                raise TypeError(f'sample {token}: {name} must hold integers, got {labels.dtype}')
        low, high = prediction.min(), prediction.max()
        if low < 0 or high >= NUM_CLASSES:
            raise ValueError(f'sample {token}: prediction holds classes from {low} to {high}, '
                             f'expected [0, {NUM_CLASSES})')

    def _origins(self, sample: Mapping, token: str) -> np.ndarray:
        if sample.get('lidar_origins') is None:
            raise KeyError(f"RayIoUMetric: sample {token} has no 'lidar_origins': rays start where "
                           "the scene's LiDAR stood. NuScenesOccDataset gives them where the infos "
                           'have lidar_points; the packing transform must keep them (meta_keys)')
        try:
            return select_origins(sample['lidar_origins'])
        except ValueError as error:
            raise ValueError(f'sample {token}: {error}') from error

    def _table(self, counts: np.ndarray, ious: np.ndarray) -> str:
        columns = [f'{threshold:g} m' for threshold in self.thresholds]
        rows = [['class', *columns, 'RayIoU', 'true rays', 'predicted rays']]
        for index, name in enumerate(OCC3D_CLASSES[:FREE_CLASS]):
            values = [*ious[:, index], ious[:, index].mean()]
            rows.append([name, *(f'{value:.2f}' for value in values), *counts[-2:, index]])
        for name, left_out in MEANS.items():
            values = [mean_iou(np.delete(row, left_out)) for row in ious]
            rows.append([name, *(f'{value:.2f}' for value in (*values, np.mean(values))), '', ''])
        table = AsciiTable(rows)
        table.justify_columns = {column: 'right' for column in range(1, len(rows[0]))}
        return table.table
