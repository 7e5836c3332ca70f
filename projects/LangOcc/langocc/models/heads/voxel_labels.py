"""Supervision by voxel labels: which voxels are trained on, what they are, how classes weigh.

Legend: K classes, U chosen voxels of all samples together, V = Z * Y * X voxels in this (flat)
order; labels are (X, Y, Z) as in Occ3D.
"""
from typing import List, Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from voxelrender import VoxelGrid

from ...structures import OccData, check_one_place

# Labels of voxels that nobody knows; BEVDet-Occ's ignore_index.
IGNORE_INDEX = 255
# What must be set in a voxel for it to be trained on; the names are OccMetric's.
_MASKS = dict(camera=('mask_camera',), lidar=('mask_lidar',),
              camera_lidar=('mask_camera', 'mask_lidar'), none=())


class VoxelLabels(nn.Module):
    """The loss of a supervised occupancy head; it has no parameters.

    Args:
        grid: of the labels.
        num_classes: K; the last one is free.
        loss_occ: config of a loss on logits (U, K) and labels (U,) that takes ``avg_factor``, such
            as mmdet's CrossEntropyLoss, which is the default.
        mask: voxels trained on: 'camera' (BEVDet-Occ), 'lidar', 'camera_lidar' (both) or 'none'
            (all).
        class_counts: voxels of each class in the training set; see :func:`class_weights`. None: all
            weigh the same.
        owner: name of the head, for errors.

    Raises:
        ValueError: unknown mask, or ``class_counts`` not K counts.
    """

    def __init__(self, grid: VoxelGrid, num_classes: int, loss_occ: Optional[dict] = None,
                 mask: str = 'camera', class_counts: Optional[Sequence[int]] = None,
                 owner: str = 'VoxelLabels'):
        super().__init__()
        if mask not in _MASKS:
            raise ValueError(f"{owner}: mask='{mask}', expected one of {list(_MASKS)}")
        self.grid = grid
        self.num_classes = num_classes
        self.mask = mask
        loss_occ = dict(loss_occ or dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False))
        if class_counts is not None:
            loss_occ['class_weight'] = class_weights(class_counts, num_classes)
        self.class_weight = loss_occ.get('class_weight')
        self.loss_occ = MODELS.build(loss_occ)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss, weighted where classes are, of logits (U, K) and labels (U,); 0 for U = 0."""
        return self.loss_occ(logits, labels, avg_factor=self._mass(labels))

    def _mass(self, labels: Tensor) -> Tensor:
        """What the sum over voxels is divided by: their weights. mmdet's losses add an epsilon."""
        if self.class_weight is None:
            return labels.new_tensor(len(labels), dtype=torch.float32)
        return torch.tensor(self.class_weight, device=labels.device)[labels].sum()

    def chosen(self, batch_data_samples: list, device: torch.device
               ) -> Tuple[List[Tensor], Tensor]:
        """Voxels of each sample, flat, that are trained on, and the classes (U,) int64 of all.

        Raises:
            KeyError: a sample has no labels, or not the mask.
            ValueError: labels of another shape or place than the grid, or of an unknown class.
        """
        truths = [self._truth(sample, device) for sample in batch_data_samples]
        return [ids for ids, _ in truths], torch.cat([labels for _, labels in truths])

    def _truth(self, sample, device: torch.device) -> Tuple[Tensor, Tensor]:
        where = f'sample {sample.metainfo.get("token")}'
        if 'gt_occ' not in sample:
            raise KeyError(f'{where} has no gt_occ: add LoadOccGTFromFile to the pipeline')
        check_one_place({'gt_occ': sample.gt_occ.get('point_cloud_range'),
                         'the grid of the head': self.grid.point_cloud_range}, where)
        labels = self._flat(sample.gt_occ, 'semantics', where).to(device).long()
        counts = labels != IGNORE_INDEX
        for name in _MASKS[self.mask]:
            counts = counts & self._flat(sample.gt_occ, name, where).to(device).bool()
        ids = counts.nonzero()[:, 0]
        labels = labels[ids]
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise ValueError(f'{where}: gt_occ.semantics holds classes from {labels.min()} to '
                             f'{labels.max()}, expected [0, {self.num_classes}) or {IGNORE_INDEX} '
                             '(ignored)')
        return ids, labels

    def _flat(self, occ: OccData, name: str, where: str) -> Tensor:
        """A voxel field (X, Y, Z) of the labels as (V,)."""
        if name not in occ:
            raise KeyError(f"{where}: gt_occ has no '{name}', it has {sorted(occ.keys())}")
        values = torch.as_tensor(getattr(occ, name))
        if tuple(values.shape) != tuple(self.grid.volume_shape)[::-1]:
            raise ValueError(f'{where}: gt_occ.{name} has shape {tuple(values.shape)}, expected '
                             f'{tuple(self.grid.volume_shape)[::-1]} (X, Y, Z) of the head\'s grid')
        return values.permute(2, 1, 0).flatten()


def class_weights(counts: Sequence[int], num_classes: int) -> List[float]:
    """1 / log(count) of each class, as MonoScene and FlashOcc weigh them.

    Counts below 2, whose weight would be endless, are taken as 2.

    Raises:
        ValueError: not ``num_classes`` numbers, or a negative one.
    """
    if len(counts) != num_classes or min(counts) < 0:
        raise ValueError(f'class_counts must be {num_classes} numbers of voxels, got '
                         f'{list(counts)}')
    return (1 / torch.tensor(counts, dtype=torch.float64).clamp(min=2).log()).tolist()
