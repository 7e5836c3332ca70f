"""BEVOccHead2D: BEV features -> classes of whole columns, trained with voxel labels (FlashOcc).

FlashOcc (Yu et al., arXiv 2311.12058) keeps everything in the plane up to the last layer, whose
channels are then read as heights x classes: no 3D convolution anywhere.

Legend: B batch, D channels of the BEV feature, C feature channels, K classes, (Z, Y, X) grid of the
labels, U voxels and W columns chosen. Volumes are flat over (Z, Y, X), columns over (Y, X).
"""
from typing import Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from voxelrender import VoxelGrid, gather_voxels, in_chunks

from ...occ3d import NUM_CLASSES
from ...structures import OccData
from .voxel_labels import VoxelLabels

# Columns classified at a time.
_CHUNK = 16384


@MODELS.register_module()
class BEVOccHead2D(BaseModule):
    """Classifier of columns: channels to heights and classes.

    3x3 convolution D -> C with ReLU, then ``predicter``: Linear C -> 2C, Softplus, Linear
    2C -> Z * K, a height's classes side by side. Labels, masks, class weights and prediction are
    those of :class:`BEVOccHead`, in three dimensions. In training only columns with a voxel of the
    mask are classified.

    Args:
        in_channels: D; Z' * C' where a volume (B, C', Z', Y, X) is given, whose layers are stacked.
        grid: ``dict(point_cloud_range=..., voxel_size=...)`` of the labels.
        feat_channels: C (FlashOcc: 256).
        num_classes: K; the last one is free.
        upsample: factor by which features are upsampled, bilinearly, behind the convolution, for
            BEV features coarser than ``grid``.
        loss_occ, mask, class_counts: see :class:`VoxelLabels`.
        with_cp: recompute ``predicter``'s hidden layer in the backward pass.
        chunk_size: columns classified at a time; bounds memory.
        init_cfg: see mmengine.

    Raises:
        ValueError: unknown mask, ``class_counts`` not K counts, or ``upsample`` below 1.
    """

    def __init__(self, in_channels: int, grid: dict, feat_channels: int = 256,
                 num_classes: int = NUM_CLASSES, upsample: int = 1,
                 loss_occ: Optional[dict] = None, mask: str = 'camera',
                 class_counts: Optional[Sequence[int]] = None, with_cp: bool = False,
                 chunk_size: int = _CHUNK, init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        if upsample < 1:
            raise ValueError(f'BEVOccHead2D: upsample is {upsample}, expected at least 1')
        self.grid = VoxelGrid(**grid)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.upsample = upsample
        self.final_conv = ConvModule(in_channels, feat_channels, 3, padding=1)
        self.predicter = nn.Sequential(
            nn.Linear(feat_channels, 2 * feat_channels), nn.Softplus(),
            nn.Linear(2 * feat_channels, self.grid.volume_shape[0] * num_classes))
        self.labels = VoxelLabels(self.grid, num_classes, loss_occ, mask, class_counts,
                                  type(self).__name__)
        self.with_cp = with_cp
        self.chunk_size = chunk_size

    def forward(self, bev_feats: Tensor) -> Tensor:
        """BEV features (B, D, Y, X) -> logits (B, K, Z, Y, X), float32."""
        feats = self.features(bev_feats)
        logits = torch.stack([self._classify(item.flatten(1).t()) for item in feats])
        return logits.permute(0, 3, 2, 1).unflatten(3, feats.shape[2:])

    def outputs(self, bev_feats: Tensor) -> Tuple[Tensor]:
        """What a detector's mode 'tensor' returns: the logits."""
        return self(bev_feats),

    def features(self, bev_feats: Tensor) -> Tensor:
        """BEV features (B, D, y, x), or a volume (B, D / Z', Z', y, x), -> (B, C, Y, X).

        Raises:
            ValueError: other channels than D, or a plane that does not lead to the grid's.
        """
        shape = tuple(bev_feats.shape)
        if bev_feats.dim() == 5:  # layer by layer, as collapse_z of the view transformer
            bev_feats = bev_feats.transpose(1, 2).flatten(1, 2)
        expected = tuple(self.grid.volume_shape[1:])
        plane = tuple(size * self.upsample for size in bev_feats.shape[2:])
        if bev_feats.shape[1] != self.in_channels or plane != expected:
            raise ValueError(
                f'BEVOccHead2D: features {shape} have {bev_feats.shape[1]} channels (heights '
                f'stacked) and give {plane} columns (Y, X), expected {self.in_channels} channels '
                f'(in_channels) and {expected} of the grid (upsample is {self.upsample})')
        feats = self.final_conv(bev_feats)
        if self.upsample > 1:
            feats = F.interpolate(feats, scale_factor=self.upsample, mode='bilinear')
        return feats

    def _classify(self, feats: Tensor) -> Tensor:
        """Logits (W, Z, K), float32 under any autocast, of columns (W, C)."""
        logits = in_chunks(self.predicter, feats, self.chunk_size, self.with_cp).float()
        return logits.unflatten(1, (-1, self.num_classes))

    # ------------------------------------------------------------------ train

    def loss(self, bev_feats: Tensor, batch_data_samples: list) -> Dict[str, Tensor]:
        """``loss_occ`` of a batch whose data samples carry ``gt_occ``; 0 where no voxel counts.

        Raises:
            KeyError: a sample has no labels, or not the mask.
            ValueError: labels of another shape or place than the grid, or of an unknown class.
        """
        ids, labels = self.labels.chosen(batch_data_samples, bev_feats.device)
        plane = self.grid.volume_shape[1] * self.grid.volume_shape[2]
        columns = [torch.unique(voxels % plane, return_inverse=True) for voxels in ids]
        rows = gather_voxels(self.features(bev_feats)[:, :, None],
                             [column_ids for column_ids, _ in columns])
        logits = torch.cat([
            self._classify(feats)[inverse, voxels.div(plane, rounding_mode='floor')]
            for feats, (_, inverse), voxels in zip(rows, columns, ids)])
        return dict(loss_occ=self.labels(logits, labels))

    # ---------------------------------------------------------------- predict

    @torch.no_grad()
    def predict(self, bev_feats: Tensor, batch_data_samples: Optional[list] = None
                ) -> List[OccData]:
        """Occupancy of a batch: one ``OccData`` with ``semantics`` (X, Y, Z) uint8, K - 1 = free.
        """
        predictions = []
        for feats in self.features(bev_feats):
            classes = in_chunks(self._likeliest, feats.flatten(1).t(), self.chunk_size)
            semantics = classes.view(*self.grid.volume_shape[1:], -1).transpose(0, 1)
            predictions.append(OccData(
                semantics=semantics.contiguous(),
                metainfo=dict(point_cloud_range=self.grid.point_cloud_range)))
        return predictions

    def _likeliest(self, feats: Tensor) -> Tensor:
        """Classes (W, Z) uint8 of columns (W, C)."""
        logits = self.predicter(feats).unflatten(1, (-1, self.num_classes))
        return logits.argmax(-1).to(torch.uint8)
