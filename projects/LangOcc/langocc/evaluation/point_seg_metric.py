"""Any mmdet3d point segmentation scored as occupancy, by the metrics of occupancy.

Legend: P points, X, Y, Z grid cells, K classes of the segmentation.
"""
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..datasets.key_frames import KeyFrames
from ..occ3d import OCC3D_RANGE
from ..structures import check_one_place
from .grid_shape import VOXEL_SIZE, grid_shape
from .point_segmentation import classes_of_labels, occ_classes, points_in_key_ego, vote_occupancy
from .sample_metric import to_numpy


@METRICS.register_module()
class PointSegOccMetric(BaseMetric):
    """Turns ``pred_pts_seg.pts_semantic_mask`` into ``pred_occ`` and hands it to other metrics.

    Points are those that the pipeline packed (``data_batch['inputs']['points']``), as the LiDAR
    file has them: no augmentation at test. Rules of voting and of class names:
    :mod:`langocc.evaluation.point_segmentation`. What the metrics need of a key frame (token,
    poses, label file, LiDAR origins) is metainfo where :class:`NuScenesOccDataset` feeds the
    segmentor and Pack3DDetInputs keeps :data:`META_KEYS`; with ``ann_file``, any data set will do
    whose samples have ``token`` or ``lidar_path``.

    Keys are those of the metrics.

    Args:
        metrics: configs of metrics that read ``pred_occ``, as OccMetric and RayIoUMetric.
        classes: K names in the order of the model's labels; None takes the data set's ``classes``.
        class_mapping: name -> Occ3D's name, or None for points that do not vote.
        ann_file: infos of tools/prepare_data.py; None: metainfo has it all.
        data_root: folder that the infos' paths are relative to.
        point_cloud_range: of the grid, metres, key ego frame.
        voxel_size: edge of its cubic cells, metres.

    Raises:
        FileNotFoundError: no such infos.
        ValueError: no metric, one on another grid, a class that is not known, or a range of no
            whole number of cells.
    """
    META_KEYS = ('token', 'scene_name', 'ego2global', 'lidar_points', 'lidar_origins', 'occ_path')

    def __init__(self,
                 metrics: Sequence[Union[dict, BaseMetric]],
                 classes: Optional[Sequence[str]] = None,
                 class_mapping: Optional[Mapping[str, Optional[str]]] = None,
                 ann_file: Optional[str] = None,
                 data_root: str = '',
                 point_cloud_range: Sequence[float] = OCC3D_RANGE,
                 voxel_size: float = VOXEL_SIZE) -> None:
        super().__init__()
        metrics = [metrics] if isinstance(metrics, dict) else list(metrics)
        if not metrics:
            raise ValueError('PointSegOccMetric needs metrics, for instance '
                             "[dict(type='OccMetric'), dict(type='RayIoUMetric')]")
        self.metrics: List[BaseMetric] = [
            METRICS.build(metric) if isinstance(metric, dict) else metric for metric in metrics]
        self.class_mapping = class_mapping
        self._table = None if classes is None else occ_classes(classes, class_mapping)
        self._frames = None if ann_file is None else KeyFrames(ann_file, data_root)
        self.point_cloud_range = tuple(float(edge) for edge in point_cloud_range)
        self.voxel_size = float(voxel_size)
        self.grid_shape = grid_shape(point_cloud_range, self.voxel_size)
        for metric in self.metrics:
            self._check_grid(metric)

    def _check_grid(self, metric: BaseMetric) -> None:
        """Raises ValueError where a metric has a grid of its own, another one."""
        name = type(metric).__name__
        check_one_place({'the votes of points': self.point_cloud_range,
                         name: getattr(metric, 'point_cloud_range', None)}, 'PointSegOccMetric')
        size = getattr(metric, 'voxel_size', self.voxel_size)
        if abs(size - self.voxel_size) > 1e-6:
            raise ValueError(f'PointSegOccMetric: points vote in cells of {self.voxel_size:g} m, '
                             f'{name} has cells of {size:g} m: set voxel_size of both')

    @property
    def dataset_meta(self) -> Optional[dict]:
        """Meta information of the data set, shared with the metrics."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta
        for metric in self.metrics:
            metric.dataset_meta = dataset_meta

    def process(self, data_batch: Mapping, data_samples: Sequence[dict]) -> None:
        """Hands one sample of occupancy a point cloud to every metric.

        Args:
            data_batch: ``inputs.points``, a (P, 3 or more) tensor a sample, metres, LiDAR frame.
            data_samples: dicts with ``pred_pts_seg.pts_semantic_mask`` (P,) and metainfo.

        Raises:
            KeyError: points, labels or metainfo are missing.
            ValueError: other numbers of labels than points, or a label outside [0, K).
        """
        inputs = data_batch.get('inputs') if isinstance(data_batch, Mapping) else None
        clouds = inputs.get('points') if isinstance(inputs, Mapping) else None
        if clouds is None or len(clouds) != len(data_samples):
            raise KeyError("PointSegOccMetric reads data_batch['inputs']['points'], one cloud a "
                           f'sample; {len(data_samples)} samples came with '
                           + ('none' if clouds is None else f'{len(clouds)} clouds'))
        samples = [self._occupancy(to_numpy(cloud)[:, :3], sample)
                   for cloud, sample in zip(clouds, data_samples)]
        for metric in self.metrics:
            metric.process(data_batch, samples)

    def evaluate(self, size: int) -> Dict[str, float]:
        """Scores of all metrics; see mmengine's BaseMetric.

        Raises:
            ValueError: two metrics give one key.
        """
        scores: Dict[str, float] = {}
        for metric in self.metrics:
            of_metric = metric.evaluate(size)
            twice = sorted(set(scores) & set(of_metric))
            if twice:
                raise ValueError(f'two metrics give {twice}: set prefix in one of them')
            scores.update(of_metric)
        return scores

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Not used: :meth:`evaluate` asks the metrics, which hold the rows."""
        raise NotImplementedError

    def _occupancy(self, points: np.ndarray, sample: Mapping) -> Dict[str, Any]:
        """The sample as a model of occupancy would give it."""
        info = self._info(sample)
        where = f'PointSegOccMetric: sample {info["token"]}'
        prediction = sample.get('pred_pts_seg')
        if prediction is None or 'pts_semantic_mask' not in prediction:
            raise KeyError(f"{where} has no pred_pts_seg with 'pts_semantic_mask': is the model a "
                           'point segmentation?')
        try:
            classes = classes_of_labels(to_numpy(prediction['pts_semantic_mask']), self._classes())
            semantics = vote_occupancy(points_in_key_ego(points, info), classes,
                                       self.point_cloud_range[:3], self.voxel_size,
                                       self.grid_shape)
        except ValueError as error:
            raise ValueError(f'{where}: {error}') from error
        occupancy = dict(info, pred_occ=dict(
            semantics=semantics, point_cloud_range=self.point_cloud_range))
        if sample.get('gt_occ') is not None:
            occupancy['gt_occ'] = sample['gt_occ']
        return occupancy

    def _classes(self) -> np.ndarray:
        if self._table is None:
            names = (self.dataset_meta or {}).get('classes')
            if not names:
                raise ValueError("the data set has no 'classes' in its metainfo: give classes")
            self._table = occ_classes(names, self.class_mapping)
        return self._table

    def _info(self, sample: Mapping) -> Mapping:
        """What is known of a sample's key frame."""
        if self._frames is not None:
            if sample.get('token') in self._frames:
                return self._frames.metainfo(sample['token'])
            if not sample.get('lidar_path'):
                raise KeyError("PointSegOccMetric: a sample has neither a 'token' of the infos nor "
                               f"a 'lidar_path' to find it by; it has {sorted(sample)}")
            return self._frames.metainfo(self._frames.token_of_lidar(sample['lidar_path']))
        missing = [key for key in ('token', 'ego2global', 'lidar_points') if not _has(sample, key)]
        missing = missing or [f'lidar_points.{key}' for key in ('lidar2ego', 'ego2global')
                              if not _has(sample['lidar_points'], key)]
        if missing:
            raise KeyError(f'PointSegOccMetric: sample {sample.get("token")} has no metainfo '
                           f'{missing}: pack it (Pack3DDetInputs(meta_keys={self.META_KEYS})) or '
                           'give ann_file')
        return {key: sample[key] for key in self.META_KEYS if _has(sample, key)}


def _has(sample: Mapping, key: str) -> bool:
    """Whether a sample has a value, not None, under a key."""
    return sample.get(key) is not None
