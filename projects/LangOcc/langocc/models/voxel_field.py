"""What a head predicts for one batch: voxel features with their densities on a grid.

Legend: B batch, C feature channels, V = Z * Y * X voxels, U chosen voxels.
"""
from dataclasses import dataclass

import torch
from torch import Tensor

from voxelrender import VoxelGrid


@dataclass
class VoxelField:
    """Voxel features and densities of a batch.

    Attributes:
        feats: (B, C, Z, Y, X), decoder input of every voxel.
        densities: (B, Z, Y, X), 1/m, never negative, float32.
        grid: the grid they live on; frame: (augmented) key ego.
    """
    feats: Tensor
    densities: Tensor
    grid: VoxelGrid

    def __post_init__(self):
        expected = tuple(self.grid.volume_shape)
        if tuple(self.feats.shape[2:]) != expected or tuple(self.densities.shape[1:]) != expected:
            raise ValueError(
                f'a field on grid {self.grid.grid_shape} (X, Y, Z) needs volumes of shape '
                f'{expected} (Z, Y, X), got features {tuple(self.feats.shape)} and densities '
                f'{tuple(self.densities.shape)}')

        # Batch items as views made at once: the gradient of feats[index] would fill a whole batch
        # of zeros each time.
        self._feats = self.feats.flatten(2).unbind(0)
        self._densities = self.densities.unbind(0)

    def __len__(self) -> int:
        return len(self.feats)

    def density(self, index: int) -> Tensor:
        """Densities (Z, Y, X) of batch item ``index``."""
        return self._densities[index]

    def gather(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Features (U, C) of voxels ``voxel_ids`` (flat over Z, Y, X) of batch item ``index``."""
        return self._feats[index].index_select(1, voxel_ids).t()

    def sample_densities(self, index: int, points: Tensor) -> Tensor:
        """Densities (...,) in 1/m at ``points`` (..., 3) in metres; 0 outside the grid."""
        volume = self.density(index)[None, None]
        return self.grid.sample(volume, points[None])[0, ..., 0]

    def occupied(self, index: int, threshold: float) -> Tensor:
        """Flat ids (U,) of the voxels whose density is at least ``threshold`` (1/m)."""
        return torch.nonzero(self.density(index).flatten() >= threshold).squeeze(1)
