"""Voxel features that are there, or that a convolution makes where they are asked for.

Legend: B batch, C feature channels, D channels before the convolution, V = Z * Y * X voxels, U
chosen voxels.
"""
from typing import Callable, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .decoding import CHUNK_SIZE, gather_voxels, in_chunks


class VoxelFeatures:
    """Features (B, C, Z, Y, X) of every voxel.

    Args:
        volume: (B, C, Z, Y, X).
    """

    def __init__(self, volume: Tensor):
        self._volume = volume
        # Batch items as views made at once: the gradient of volume[index] would fill a whole batch
        # of zeros each time.
        self._items = volume.flatten(2).unbind(0)

    def __len__(self) -> int:
        return len(self._volume)

    @property
    def like(self) -> Tensor:
        """A tensor of the features' device and type."""
        return self._volume

    @property
    def volume_shape(self) -> Tuple[int, ...]:
        """(Z, Y, X)."""
        return tuple(self._volume.shape[2:])

    def volume(self) -> Tensor:
        """All features, (B, C, Z, Y, X)."""
        return self._volume

    def gather(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Features (U, C) of voxels (U,), flat over (Z, Y, X), of batch item ``index``."""
        return self._items[index].index_select(1, voxel_ids).t()

    def rows(self, voxel_ids: Sequence[Tensor]) -> List[Tensor]:
        """Features (U_b, C) of distinct voxels of every batch item, for training."""
        return gather_voxels(self._volume, voxel_ids)


class ConvolvedFeatures(VoxelFeatures):
    """Features that a 3 x 3 x 3 convolution makes of a volume, where they are asked for.

    Rays look at a part of the voxels only, and the convolution's output is by far the largest
    tensor of a step. Once the whole volume has been asked for, it is kept and read.

    Args:
        inputs: (B, D, Z, Y, X), what is convolved.
        convolution: D -> C with kernel 3, stride 1, zero padding 1.
        activate: What follows it, number by number.
        recompute: Convolve the whole volume, where it is asked for, again in the backward pass.
    """

    def __init__(self, inputs: Tensor, convolution: nn.Conv3d,
                 activate: Callable[[Tensor], Tensor] = torch.relu, recompute: bool = False):
        expected = dict(kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1),
                        dilation=(1, 1, 1), groups=1, padding_mode='zeros')
        found = {name: getattr(convolution, name) for name in expected}
        if found != expected:
            raise ValueError(f'the convolution has {found}, expected {expected}')
        self.inputs = inputs
        self.convolution = convolution
        self.activate = activate
        self.recompute = recompute
        self._table: Optional[Tensor] = None
        self._whole: Optional[VoxelFeatures] = None
        self._with_gradient = False

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def like(self) -> Tensor:
        """A tensor of the features' device and type."""
        return self.inputs

    @property
    def volume_shape(self) -> Tuple[int, ...]:
        """(Z, Y, X)."""
        return tuple(self.inputs.shape[2:])

    def _is_whole(self) -> bool:
        return self._whole is not None and (self._with_gradient or not torch.is_grad_enabled())

    def volume(self) -> Tensor:
        """All features, (B, C, Z, Y, X), convolved now where they are not there yet."""
        if not self._is_whole():
            self._whole = VoxelFeatures(
                checkpoint(self._convolve_all, self.inputs, use_reentrant=False)
                if self.recompute and torch.is_grad_enabled() else self._convolve_all(self.inputs))
            self._with_gradient = torch.is_grad_enabled()
        return self._whole.volume()

    def _convolve_all(self, inputs: Tensor) -> Tensor:
        return self.activate(self.convolution(inputs))

    def gather(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Features (U, C) of voxels (U,), flat over (Z, Y, X), of batch item ``index``."""
        if self._is_whole():
            return self._whole.gather(index, voxel_ids)
        return self._convolve(self._places(index, voxel_ids), recompute=False)

    def rows(self, voxel_ids: Sequence[Tensor]) -> List[Tensor]:
        """Features (U_b, C) of distinct voxels of every batch item, for training.

        The backward pass gathers the neighbourhoods again: they are 27 D numbers a voxel.
        """
        if self._is_whole():
            return self._whole.rows(voxel_ids)
        counts = [len(ids) for ids in voxel_ids]
        places = torch.cat([self._places(index, ids) for index, ids in enumerate(voxel_ids)])
        return list(self._convolve(places, recompute=True).split(counts))

    def _places(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Rows (U,) of the padded table at the first neighbour of each voxel."""
        cells_z, cells_y, cells_x = self.volume_shape
        layers = voxel_ids.div(cells_x, rounding_mode='floor')
        z = layers.div(cells_y, rounding_mode='floor') + index * (cells_z + 2)
        y, x = layers % cells_y, voxel_ids % cells_x
        return (z * (cells_y + 2) + y) * (cells_x + 2) + x

    def _convolve(self, places: Tensor, recompute: bool) -> Tensor:
        table, kernel = self._padded(), self.convolution.weight.permute(0, 2, 3, 4, 1).flatten(1)
        _, cells_y, cells_x = self.volume_shape
        steps = torch.arange(3, device=places.device)
        around = ((steps[:, None, None] * (cells_y + 2) + steps[:, None]) * (cells_x + 2)
                  + steps).flatten()

        def convolve(part: Tensor) -> Tensor:
            neighbours = F.embedding(part[:, None] + around, table).flatten(1)
            return self.activate(F.linear(neighbours, kernel, self.convolution.bias))

        return in_chunks(convolve, places, CHUNK_SIZE, recompute)

    def _padded(self) -> Tensor:
        """The inputs channels last, with a border of zeros: (B * (Z + 2) * (Y + 2) * (X + 2), D).
        """
        if self._table is None or (torch.is_grad_enabled() and not self._table.requires_grad
                                   and self.inputs.requires_grad):
            last = self.inputs.permute(0, 2, 3, 4, 1)
            self._table = F.pad(last, (0, 0, 1, 1, 1, 1, 1, 1)).flatten(0, 3)
        return self._table
