"""BEVOccHead: voxel features -> softmax over classes, trained with voxel labels (BEVDet-Occ).

The supervised counterpart of :class:`LangOccHead`: same volume, grid and final convolution.

Legend: B batch, D channels of the volume, C feature channels, K classes, U chosen voxels,
V = Z * Y * X voxels in this (flat) order; labels are (X, Y, Z) as in Occ3D.
"""
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from voxelrender.decoding import CHUNK_SIZE, gather_voxels, in_chunks

from ...occ3d import NUM_CLASSES
from ...structures import OccData
from .voxel_head import VoxelHead

# Labels of voxels that nobody knows; BEVDet-Occ's ignore_index.
IGNORE_INDEX = 255
# What must be set in a voxel for it to be trained on; the names are OccMetric's.
_MASKS = dict(camera=('mask_camera',), lidar=('mask_lidar',),
              camera_lidar=('mask_camera', 'mask_lidar'), none=())


@MODELS.register_module()
class BEVOccHead(VoxelHead):
    """Per-voxel classifier of BEVDet's ``BEVStereo4DOCC``, free space being one of the classes.

    final convolution D -> C with ReLU, then ``predicter`` (BEVDet's name in checkpoints): Linear
    C -> 2C, Softplus, Linear 2C -> K. The loss is the mean over the voxels of the mask, of all
    samples of the batch together; prediction is the likeliest class.

    Args:
        in_channels: D.
        grid: ``dict(point_cloud_range=..., voxel_size=...)`` of the labels.
        feat_channels: C (BEVDet-Occ: 32).
        num_classes: K; the last one is free.
        loss_occ: config of a loss on logits (U, K) and labels (U,) that takes ``avg_factor``, such
            as mmdet's CrossEntropyLoss.
        mask: voxels trained on: 'camera' (BEVDet-Occ), 'lidar', 'camera_lidar' (both) or 'none'
            (all).
        class_counts: voxels of each class in the training set (``tools/fit_prior.py`` prints them);
            classes then weigh 1 / log(count), as MonoScene and FlashOcc have it, and the mean is a
            weighted one. None: all weigh the same.
        chunk_size: voxels classified at a time; bounds memory.
        kwargs: see :class:`VoxelHead`; with ``with_cp`` the hidden layer of ``predicter`` is
            computed again in the backward pass too.

    Raises:
        ValueError: unknown mask, or ``class_counts`` not K counts.
    """

    def __init__(self, in_channels: int, grid: dict, feat_channels: int = 32,
                 num_classes: int = NUM_CLASSES, loss_occ: Optional[dict] = None,
                 mask: str = 'camera', class_counts: Optional[Sequence[int]] = None,
                 chunk_size: int = CHUNK_SIZE, **kwargs):
        super().__init__(in_channels, grid, feat_channels, **kwargs)
        feat_channels = self.out_channels
        if mask not in _MASKS:
            raise ValueError(f"BEVOccHead: mask='{mask}', expected one of {list(_MASKS)}")
        self.predicter = nn.Sequential(
            nn.Linear(feat_channels, 2 * feat_channels), nn.Softplus(),
            nn.Linear(2 * feat_channels, num_classes))
        self.num_classes = num_classes
        self.mask = mask
        self.chunk_size = chunk_size
        loss_occ = dict(loss_occ or dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False))
        if class_counts is not None:
            loss_occ['class_weight'] = class_weights(class_counts, num_classes)
        self.class_weight = loss_occ.get('class_weight')
        self.loss_occ = MODELS.build(loss_occ)

    def forward(self, voxel_feats: Tensor) -> Tensor:
        """Volume (B, D, Z, Y, X) -> logits (B, K, Z, Y, X), float32."""
        volume = self.features(voxel_feats).volume()
        logits = [self._classify(feats) for feats in volume.flatten(2).transpose(1, 2)]
        return torch.stack(logits).transpose(1, 2).unflatten(2, volume.shape[2:])

    def outputs(self, voxel_feats: Tensor) -> Tuple[Tensor]:
        """What a detector's mode 'tensor' returns: the logits."""
        return self(voxel_feats),

    def _classify(self, feats: Tensor) -> Tensor:
        """Logits (U, K), float32 under any autocast, of features (U, C)."""
        return in_chunks(self.predicter, feats, self.chunk_size, self.with_cp).float()

    # ------------------------------------------------------------------ train

    def loss(self, voxel_feats: Tensor, batch_data_samples: list) -> Dict[str, Tensor]:
        """``loss_occ`` of a batch whose data samples carry ``gt_occ``; 0 where no voxel counts.

        Raises:
            KeyError: a sample has no labels, or not the mask.
            ValueError: labels of another shape than the grid, or of an unknown class.
        """
        truths = [self._truth(sample, voxel_feats.device) for sample in batch_data_samples]
        volume = self.features(voxel_feats).volume()
        rows = gather_voxels(volume, [ids for ids, _ in truths])
        logits = torch.cat([self._classify(feats) for feats in rows])
        labels = torch.cat([labels for _, labels in truths])
        return dict(loss_occ=self.loss_occ(logits, labels, avg_factor=self._mass(labels)))

    def _mass(self, labels: Tensor) -> Tensor:
        """What the sum over voxels is divided by: their weights. mmdet's losses add an epsilon."""
        if self.class_weight is None:
            return labels.new_tensor(len(labels), dtype=torch.float32)
        return torch.tensor(self.class_weight, device=labels.device)[labels].sum()

    def _truth(self, sample, device: torch.device) -> Tuple[Tensor, Tensor]:
        """Voxels (U,), flat over (Z, Y, X), that are trained on, and their classes (U,) int64."""
        where = f'sample {sample.metainfo.get("token")}'
        if 'gt_occ' not in sample:
            raise KeyError(f'{where} has no gt_occ: add LoadOccGTFromFile to the pipeline')
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

    # ---------------------------------------------------------------- predict

    @torch.no_grad()
    def predict(self, voxel_feats: Tensor, batch_data_samples: Optional[list] = None
                ) -> List[OccData]:
        """Occupancy of a batch: one ``OccData`` with ``semantics`` (X, Y, Z) uint8, K - 1 = free.
        """
        predictions = []
        for volume in self.features(voxel_feats).volume():
            classes = in_chunks(self._likeliest, volume.flatten(1).t(), self.chunk_size)
            semantics = classes.view(*self.grid.volume_shape).permute(2, 1, 0)
            predictions.append(OccData(semantics=semantics.contiguous()))
        return predictions

    def _likeliest(self, feats: Tensor) -> Tensor:
        """Classes (U,) uint8 of features (U, C)."""
        return self.predicter(feats).argmax(-1).to(torch.uint8)


def class_weights(counts: Sequence[int], num_classes: int) -> List[float]:
    """1 / log(count) of each class; counts below 2, whose weight would be endless, are taken as 2.

    Raises:
        ValueError: not ``num_classes`` numbers, or a negative one.
    """
    if len(counts) != num_classes or min(counts) < 0:
        raise ValueError(f'class_counts must be {num_classes} numbers of voxels, got '
                         f'{list(counts)}')
    return (1 / torch.tensor(counts, dtype=torch.float64).clamp(min=2).log()).tolist()
