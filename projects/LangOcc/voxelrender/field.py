"""A voxel field: features with their densities on a grid, decoded where they are needed.

Legend: B batch, C feature channels, V = Z * Y * X voxels, U chosen voxels.
"""
from typing import List, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from .decoding import CHUNK_SIZE, AutocastState, decoded_before, in_chunks
from .features import VoxelFeatures
from .marching import KnownDensities
from .voxel_grid import VoxelGrid, full_precision


class VoxelField:
    """Voxel features and densities of a batch.

    Densities are given, or decoded by ``density_decoder``: all of them where :attr:`densities` is
    read, else only where rays look (`FieldRenderer`), under the autocast the field was made in.

    Args:
        feats: (B, C, Z, Y, X), decoder input of every voxel; or the `VoxelFeatures` that make it.
        densities: (B, Z, Y, X), 1/m, never negative, float32; None to decode them.
        grid: the grid they live on; frame: (augmented) key ego.
        density_decoder: features (U, C) -> densities (U, 1), row by row and without randomness;
            needed without ``densities``.

    Raises:
        ValueError: If a volume is not of the grid's shape, or there is no way to densities.
    """

    def __init__(self, feats: Union[Tensor, VoxelFeatures], densities: Optional[Tensor],
                 grid: VoxelGrid, density_decoder: Optional[nn.Module] = None):
        features = VoxelFeatures(feats) if isinstance(feats, Tensor) else feats
        expected = tuple(grid.volume_shape)
        shape = expected if densities is None else tuple(densities.shape[1:])
        if features.volume_shape != expected or shape != expected:
            raise ValueError(
                f'a field on grid {grid.grid_shape} (X, Y, Z) needs volumes of shape '
                f'{expected} (Z, Y, X), got features {features.volume_shape} and densities '
                f'{None if densities is None else tuple(densities.shape)}')
        if densities is None and density_decoder is None:
            raise ValueError('a field needs densities or a density_decoder')
        self.features = features
        self.grid = grid
        self.density_decoder = density_decoder
        self._autocast = AutocastState.now(features.like.device.type)
        self._set_densities(densities, densities is not None)

    def _set_densities(self, densities: Optional[Tensor], with_gradient: bool) -> None:
        self._volume = densities
        self._volumes = None if densities is None else densities.unbind(0)
        self._with_gradient = with_gradient
        self._known: List[Optional[KnownDensities]] = [None] * len(self)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def device(self) -> torch.device:
        """Device of the field."""
        return self.features.like.device

    @property
    def feats(self) -> Tensor:
        """(B, C, Z, Y, X), features of every voxel."""
        with self._autocast.restored():
            return self.features.volume()

    @property
    def has_densities(self) -> bool:
        """Whether all densities are there, with their gradient where gradients are recorded."""
        return self._volume is not None and (self._with_gradient or not torch.is_grad_enabled())

    @property
    def densities(self) -> Tensor:
        """(B, Z, Y, X) in 1/m; where they are not there yet, every voxel is decoded now."""
        if not self.has_densities:
            chunk = 0 if torch.is_grad_enabled() else CHUNK_SIZE
            with self._autocast.restored():
                volumes = [in_chunks(self._decode, feats.t(), chunk).view(self.grid.volume_shape)
                           for feats in self.feats.flatten(2).unbind(0)]
            self._set_densities(torch.stack(volumes), torch.is_grad_enabled())
        return self._volume

    def density(self, index: int) -> Tensor:
        """Densities (Z, Y, X) of batch item ``index``; see :attr:`densities`."""
        if not self.has_densities:
            self.densities
        return self._volumes[index]

    def _decode(self, feats: Tensor) -> Tensor:
        """Densities (U,) of feature rows (U, C)."""
        return full_precision(self.density_decoder(feats)[:, 0])

    def known_densities(self, index: int) -> KnownDensities:
        """What is known of the densities of batch item ``index``; no gradient.

        Kept with the field, so several renderings decode a voxel once.
        """
        if self._known[index] is None:
            if self._volume is not None:
                known = KnownDensities.complete_volume(self.grid, self._volumes[index].detach())
            else:
                known = KnownDensities(self.grid, lambda ids: self._decode_at(index, ids),
                                       self.features.like)
            self._known[index] = known
        return self._known[index]

    def _decode_at(self, index: int, voxel_ids: Tensor) -> Tensor:
        with self._autocast.restored():
            return self._decode(full_precision(self.gather(index, voxel_ids)))

    def densities_at(self, voxel_ids: Sequence[Tensor]) -> List[Tensor]:
        """Densities (U_b,) in 1/m of distinct voxels of every batch item, with their gradient.

        Decoded there and nowhere else, unless all densities are there.
        """
        if self.has_densities:
            return [volume.flatten()[ids] for volume, ids in zip(self._volumes, voxel_ids)]
        with self._autocast.restored():
            return [self._decode(rows) for rows in self.rows(voxel_ids)]

    def connected_densities(self, index: int, voxel_ids: Tensor, rows: Tensor) -> Tensor:
        """Densities (Z, Y, X) whose gradient reaches chosen voxels, the others being constant.

        Args:
            index: batch item.
            voxel_ids: (U,) distinct voxels, whose densities are known (`known_densities`).
            rows: (U, C) their features, from `rows`.
        """
        if self.has_densities:
            return self.density(index)
        volume = self.known_densities(index).volume
        if not torch.is_grad_enabled():
            return volume
        flat = volume.flatten()
        with self._autocast.restored():
            values = decoded_before(self._decode, flat[voxel_ids], rows,
                                    self.density_decoder.parameters())
        return flat.index_copy(0, voxel_ids, values).view_as(volume)

    def gather(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Features (U, C) of voxels ``voxel_ids`` (flat over Z, Y, X) of batch item ``index``."""
        with self._autocast.restored():
            return self.features.gather(index, voxel_ids)

    def rows(self, voxel_ids: Sequence[Tensor]) -> List[Tensor]:
        """Features (U_b, C), in full precision, of distinct voxels of every batch item at once."""
        with self._autocast.restored():
            return [full_precision(rows) for rows in self.features.rows(voxel_ids)]

    def sample_densities(self, points: Sequence[Tensor]) -> List[Tensor]:
        """Densities (...,) in 1/m at points (..., 3) in metres of every batch item; 0 outside.

        Voxels that points lie between are decoded and no others, unless all densities are there.
        """
        if self.has_densities:
            volumes = self._volumes
        else:
            ids = [self.grid.touched(places).flatten().nonzero()[:, 0] for places in points]
            volumes = [values.new_zeros(self.grid.num_voxels).index_copy(0, chosen, values)
                       .view(self.grid.volume_shape)
                       for chosen, values in zip(ids, self.densities_at(ids))]
        return [self.grid.sample(volume[None, None], places[None])[0, ..., 0]
                for volume, places in zip(volumes, points)]

    def occupied(self, index: int, threshold: float) -> Tensor:
        """Flat ids (U,) of the voxels whose density is at least ``threshold`` (1/m)."""
        return torch.nonzero(self.density(index).flatten() >= threshold).squeeze(1)
