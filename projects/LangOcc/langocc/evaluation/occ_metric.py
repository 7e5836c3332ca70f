"""Occupancy metric of the evaluation loop: mIoU variants and geometric IoU after Occ3D-nuScenes.

Legend: X, Y, Z grid cells; 18 classes, 17 = free. Rows kept in ``results`` are one small matrix a
mask and sample, so that memory does not grow with the grid and processes exchange counts only.
"""
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from ..occ3d import FREE_CLASS, OCC3D_CLASSES, OCC3D_RANGE
from .occ_confusion import (
    MASKS, VARIANTS, class_ious, confusion_matrix, geometric_iou, mean_iou, observed_voxels,
    variant_ious
)
from .occ_files import save_prediction
from .sample_metric import SampleMetric, same_shape


@METRICS.register_module()
class OccMetric(SampleMetric):
    """Scores ``pred_occ`` against Occ3D labels, or writes it in Occ3D's layout.

    The truth is the sample's ``gt_occ``; where none is packed it is read from the file that the
    metainfo ``occ_path`` names. Counts are summed over samples and processes before
    any ratio. A sample that a distributed sampler repeats counts once: rows are keyed by token.

    Keys, all times 100: ``<variant>_mIoU``, ``geo_IoU``, ``geo_IoU_above``, ``IoU_<class>``; with
    the suffix ``_<mask>`` for every mask but ``camera``. A class absent from truth and prediction
    is NaN and not in the mean. More than half of what cameras see is ground, and a flat floor alone
    has a high geometric IoU; ``geo_IoU_above``, our own addition, is the same over the voxels that
    lie wholly above ``above`` metres: what stands.

    Args:
        variants: named means, out of ``occ17``, ``occ15``, ``occ15_gt_ignored``.
        masks: voxels that count, out of ``camera``, ``lidar``, ``camera_lidar``, ``none``.
        data_root: folder that ``occ_path`` is relative to; default none: NuScenesOccDataset gives
            whole paths.
        format_only: write predictions and score nothing; needs ``out_dir``.
        out_dir: write predictions to ``<out_dir>/<scene_name>/<token>/labels.npz``.
        above: metres in the ego frame, whose z is 0 on the ground; None leaves its key out.
        z_range: (low, high) of the grid in metres, of which ``above`` is a part.
        collect_device: see mmengine's BaseMetric.
        prefix: put before every key.
        collect_dir: see mmengine's BaseMetric.

    Raises:
        ValueError: an unknown variant or mask, ``format_only`` without ``out_dir``, or an ``above``
            that is not within ``z_range``.
    """

    def __init__(self,
                 variants: Sequence[str] = ('occ17', 'occ15', 'occ15_gt_ignored'),
                 masks: Sequence[str] = ('camera', ),
                 data_root: Optional[str] = None,
                 format_only: bool = False,
                 out_dir: Optional[str] = None,
                 above: Optional[float] = 0.2,
                 z_range: Sequence[float] = (OCC3D_RANGE[2], OCC3D_RANGE[5]),
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None,
                 collect_dir: Optional[str] = None) -> None:
        super().__init__(data_root, collect_device, prefix, collect_dir)
        self.variants = _known('variants', variants, VARIANTS)
        self.masks = _known('masks', masks, MASKS)
        if format_only and not out_dir:
            raise ValueError('OccMetric: format_only=True needs out_dir, the folder to write to')
        if above is not None and not z_range[0] <= above < z_range[1]:
            raise ValueError(f'OccMetric: above={above} is not within z_range={tuple(z_range)}')
        self.above, self.z_range = above, tuple(z_range)
        self.format_only = format_only
        self.out_dir = out_dir

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Adds one row a sample: its token and one matrix a mask.

        Args:
            data_batch: not read.
            data_samples: dicts with ``pred_occ.semantics`` (X, Y, Z), ``token`` and the truth.

        Raises:
            KeyError: prediction, truth, mask or token is missing.
            ValueError: prediction and truth differ in shape, or a predicted class is unknown.
        """
        for sample in data_samples:
            token = self.required(sample, 'token', 'a data sample')
            prediction = self.prediction_of(sample, token)
            if self.out_dir:
                scene_name = self.required(sample, 'scene_name', f'sample {token}')
                save_prediction(self.out_dir, scene_name, token, prediction)
            row = {'token': token}
            if not self.format_only:
                truth = self.truth_of(sample, token)
                row['matrices'] = self._matrices(prediction, truth, token)
                if self.above is not None:
                    first = self._first_layer(prediction.shape[2])
                    row['above'] = self._matrices(
                        prediction[..., first:],
                        {key: values[..., first:] for key, values in truth.items()}, token)
            self.results.append(row)

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Sums the matrices and reads the scores from the sums.

        Args:
            results: rows of all processes; a token may occur more than once.

        Returns:
            Scores times 100 by name; empty with ``format_only``.
        """
        logger = MMLogger.get_current_instance()
        rows = self.rows_by_token(results)
        if self.out_dir:
            logger.info(f'OccMetric: {len(rows)} predictions written to {self.out_dir}')
        if self.format_only:
            return {}
        scores = {}
        for mask in self.masks:
            matrix = _summed([row['matrices'][mask] for row in rows.values()])
            logger.info(f'Occupancy, mask {mask}, {len(rows)} samples\n' + self._table(matrix))
            suffix = '' if mask == 'camera' else f'_{mask}'
            scores.update(self._scores(matrix, suffix))
            if self.above is not None:
                matrix = _summed([row['above'][mask] for row in rows.values()])
                scores[f'geo_IoU_above{suffix}'] = 100 * geometric_iou(matrix)
        return scores

    def _matrices(self, prediction: np.ndarray, truth: Mapping[str, np.ndarray],
                  token: str) -> Dict[str, np.ndarray]:
        semantics = truth['semantics']
        same_shape(prediction, semantics, token)
        try:
            return {
                mask: confusion_matrix(semantics, prediction, observed_voxels(truth, mask))
                for mask in self.masks
            }
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f'sample {token}: {error.args[0]}') from error

    def _first_layer(self, layers: int) -> int:
        """The lowest of the grid's layers that lies wholly above ``above``."""
        low, high = self.z_range
        return int(np.ceil((self.above - low) / (high - low) * layers - 1e-6))

    def _scores(self, matrix: np.ndarray, suffix: str) -> Dict[str, float]:
        scores = {f'{v}_mIoU{suffix}': 100 * mean_iou(variant_ious(matrix, v))
                  for v in self.variants}
        scores[f'geo_IoU{suffix}'] = 100 * geometric_iou(matrix)
        ious = 100 * class_ious(matrix)
        scores.update({f'IoU_{name}{suffix}': float(ious[index])
                       for index, name in enumerate(OCC3D_CLASSES[:FREE_CLASS])})
        return scores

    def _table(self, matrix: np.ndarray) -> str:
        ious = 100 * class_ious(matrix)
        rows = [['class', 'IoU', 'true voxels', 'predicted voxels']]
        for index, name in enumerate(OCC3D_CLASSES):
            rows.append([name, f'{ious[index]:.2f}', matrix[index].sum(), matrix[:, index].sum()])
        for variant in self.variants:
            rows.append([f'{variant} mIoU', f'{100 * mean_iou(variant_ious(matrix, variant)):.2f}'])
        rows.append(['geometric IoU', f'{100 * geometric_iou(matrix):.2f}'])
        table = AsciiTable([row + [''] * (4 - len(row)) for row in rows])
        table.justify_columns = {1: 'right', 2: 'right', 3: 'right'}
        return table.table


def _summed(matrices: List[np.ndarray]) -> np.ndarray:
    return np.sum(matrices, axis=0) if matrices else np.zeros((18, 18), dtype=np.int64)


def _known(name: str, chosen: Sequence[str], known: Mapping) -> tuple:
    """The choice as a tuple; an error names what is unknown."""
    chosen = (chosen, ) if isinstance(chosen, str) else tuple(chosen)
    unknown = [value for value in chosen if value not in known]
    if unknown or not chosen:
        raise ValueError(f'OccMetric: {name}={list(chosen)}, expected some of {list(known)}')
    return chosen
