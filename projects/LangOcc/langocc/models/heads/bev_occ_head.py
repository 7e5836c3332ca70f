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
from .voxel_labels import VoxelLabels


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
        loss_occ, mask, class_counts: see :class:`VoxelLabels`; ``tools/fit_prior.py`` prints the
            counts, and with them the mean is a weighted one.
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
        self.predicter = nn.Sequential(
            nn.Linear(feat_channels, 2 * feat_channels), nn.Softplus(),
            nn.Linear(2 * feat_channels, num_classes))
        self.num_classes = num_classes
        self.chunk_size = chunk_size
        self.labels = VoxelLabels(self.grid, num_classes, loss_occ, mask, class_counts,
                                  type(self).__name__)

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
            ValueError: labels of another shape or place than the grid, or of an unknown class.
        """
        ids, labels = self.labels.chosen(batch_data_samples, voxel_feats.device)
        feats = self.features(voxel_feats)
        # A camera sees up to half of the grid: few enough to interpolate there alone, too many to
        # convolve one by one.
        rows = gather_voxels(feats.volume(), ids) if self.upsample is None else feats.rows(ids)
        logits = torch.cat([self._classify(feats) for feats in rows])
        return dict(loss_occ=self.labels(logits, labels))

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
            predictions.append(OccData(
                semantics=semantics.contiguous(),
                metainfo=dict(point_cloud_range=self.grid.point_cloud_range)))
        return predictions

    def _likeliest(self, feats: Tensor) -> Tensor:
        """Classes (U,) uint8 of features (U, C)."""
        return self.predicter(feats).argmax(-1).to(torch.uint8)
