"""Voxel features that are there, or that are made where they are asked for.

Legend: B batch, C feature channels, D channels of what they are made of, V = Z * Y * X voxels, U
chosen voxels.
"""
from abc import ABC, abstractmethod
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


class DeferredFeatures(VoxelFeatures, ABC):
    """Features made of another volume where they are asked for.

    Once the whole volume has been asked for, it is kept and read.

    Args:
        source: (B, D, z, y, x), what they are made of.
        volume_shape: (Z, Y, X) of the features.
    """

    def __init__(self, source: Tensor, volume_shape: Sequence[int]):
        self.source = source
        self._shape = tuple(volume_shape)
        self._table: Optional[Tensor] = None
        self._whole: Optional[VoxelFeatures] = None
        self._with_gradient = False

    def __len__(self) -> int:
        return len(self.source)

    @property
    def like(self) -> Tensor:
        """A tensor of the features' device and type."""
        return self.source

    @property
    def volume_shape(self) -> Tuple[int, ...]:
        """(Z, Y, X)."""
        return self._shape

    def _is_whole(self) -> bool:
        return self._whole is not None and (self._with_gradient or not torch.is_grad_enabled())

    def volume(self) -> Tensor:
        """All features, (B, C, Z, Y, X), made now where they are not there yet."""
        if not self._is_whole():
            self._whole = VoxelFeatures(self._make_all())
            self._with_gradient = torch.is_grad_enabled()
        return self._whole.volume()

    def gather(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Features (U, C) of voxels (U,), flat over (Z, Y, X), of batch item ``index``."""
        if self._is_whole():
            return self._whole.gather(index, voxel_ids)
        return self._make([(index, voxel_ids)], recompute=False)[0]

    def rows(self, voxel_ids: Sequence[Tensor]) -> List[Tensor]:
        """Features (U_b, C) of distinct voxels of every batch item, for training."""
        if self._is_whole():
            return self._whole.rows(voxel_ids)
        return self._make(list(enumerate(voxel_ids)), recompute=True)

    def _source_rows(self) -> Tensor:
        """What `_as_rows` makes of the source, once; again where a gradient is wanted first now."""
        # A view that was made without gradient says that it requires one, and passes none on.
        if self._table is None or (torch.is_grad_enabled() and self._table.grad_fn is None
                                   and self.source.requires_grad):
            self._table = self._as_rows(self.source.permute(0, 2, 3, 4, 1))
        return self._table

    def _as_rows(self, channels_last: Tensor) -> Tensor:
        """The source (B, z, y, x, D) -> rows (T, D)."""
        return channels_last.reshape(-1, channels_last.shape[-1])

    @abstractmethod
    def _make_all(self) -> Tensor:
        """All features, (B, C, Z, Y, X)."""

    @abstractmethod
    def _make(self, chosen: Sequence[Tuple[int, Tensor]], recompute: bool) -> List[Tensor]:
        """Features (U, C) for each pair of a batch item and voxels (U,) of it."""


class UpsampledFeatures(DeferredFeatures):
    """Features of a coarser volume, interpolated where they are asked for.

    As ``nn.Upsample(scale_factor=factors, mode='trilinear', align_corners=False)``.

    Args:
        coarse: (B, C, Z / f_z, Y / f_y, X / f_x).
        factors: (f_z, f_y, f_x), whole numbers.

    Raises:
        ValueError: other factors.
    """

    def __init__(self, coarse: Tensor, factors: Sequence[int]):
        if len(factors) != 3 or any(int(factor) != factor or factor < 1 for factor in factors):
            raise ValueError(f'factors must be three whole numbers of at least 1, got {factors}')
        self.factors = tuple(int(factor) for factor in factors)
        super().__init__(coarse, [f * n for f, n in zip(self.factors, coarse.shape[2:])])

    def _make_all(self) -> Tensor:
        return F.interpolate(self.source, size=self.volume_shape, mode='trilinear',
                             align_corners=False)

    def _make(self, chosen: Sequence[Tuple[int, Tensor]], recompute: bool) -> List[Tensor]:
        return [self._interpolate(index, ids) for index, ids in chosen]

    def _interpolate(self, index: int, voxel_ids: Tensor) -> Tensor:
        """One weighted sum over eight rows of the coarse volume for each voxel."""
        rows = torch.zeros_like(voxel_ids)[:, None] + index * self.source[0, 0].numel()
        shares = rows.new_ones(rows.shape, dtype=torch.float64)  # exact, whatever the features are
        stride, rest = 1, voxel_ids
        for factor, cells in zip(self.factors[::-1], self.source.shape[:1:-1]):  # x, y, z
            place = ((rest % (factor * cells)).to(shares.dtype) + 0.5) / factor - 0.5
            rest = rest.div(factor * cells, rounding_mode='floor')
            place = place.clamp(0, cells - 1)  # beyond the outermost centres features are constant
            low = place.floor().clamp(max=max(cells - 2, 0))
            share, low = (place - low)[:, None], low.long()[:, None]
            high = (low + 1).clamp(max=cells - 1)
            rows = torch.cat([rows + stride * low, rows + stride * high], dim=1)
            shares = torch.cat([shares * (1 - share), shares * share], dim=1)
            stride *= cells
        return F.embedding_bag(rows, self._source_rows(), mode='sum',
                               per_sample_weights=shares.to(self.source.dtype))


class LayeredFeatures(VoxelFeatures):
    """Features with numbers appended that are the same all over a layer of the grid.

    Args:
        features: (B, C, Z, Y, X).
        layers: (Z, P), what is appended, C first.
    """

    def __init__(self, features: VoxelFeatures, layers: Tensor):
        if len(layers) != features.volume_shape[0]:
            raise ValueError(f'{len(layers)} layers for features of {features.volume_shape} '
                             '(Z, Y, X)')
        self.features, self.layers = features, layers

    def __len__(self) -> int:
        return len(self.features)

    @property
    def like(self) -> Tensor:
        """A tensor of the features' device and type."""
        return self.features.like

    @property
    def volume_shape(self) -> Tuple[int, ...]:
        """(Z, Y, X)."""
        return self.features.volume_shape

    def volume(self) -> Tensor:
        """All features, (B, C + P, Z, Y, X)."""
        feats = self.features.volume()
        layers = self.layers.t()[None, :, :, None, None].to(feats.dtype)
        return torch.cat([feats, layers.expand(len(feats), -1, -1, *feats.shape[3:])], dim=1)

    def gather(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Features (U, C + P) of voxels (U,), flat over (Z, Y, X), of batch item ``index``."""
        return self._append(self.features.gather(index, voxel_ids), voxel_ids)

    def rows(self, voxel_ids: Sequence[Tensor]) -> List[Tensor]:
        """Features (U_b, C + P) of distinct voxels of every batch item, for training."""
        return [self._append(rows, ids)
                for rows, ids in zip(self.features.rows(voxel_ids), voxel_ids)]

    def _append(self, rows: Tensor, voxel_ids: Tensor) -> Tensor:
        _, cells_y, cells_x = self.volume_shape
        layer = voxel_ids.div(cells_y * cells_x, rounding_mode='floor')
        return torch.cat([rows, self.layers.to(rows.dtype)[layer]], dim=1)


class ConvolvedFeatures(DeferredFeatures):
    """Features that a 3 x 3 x 3 convolution makes of a volume, where they are asked for.

    Rays look at a part of the voxels only, and the convolution's output is by far the largest
    tensor of a step. The backward pass gathers the neighbourhoods again: they are 27 D numbers a
    voxel.

    Args:
        inputs: (B, D, Z, Y, X), what is convolved.
        convolution: D -> C with kernel 3, stride 1, zero padding 1.
        activate: What follows it, number by number.
        recompute: Convolve the whole volume, where it is asked for, again in the backward pass.

    Raises:
        ValueError: another convolution.
    """

    def __init__(self, inputs: Tensor, convolution: nn.Conv3d,
                 activate: Callable[[Tensor], Tensor] = torch.relu, recompute: bool = False):
        expected = dict(kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1),
                        dilation=(1, 1, 1), groups=1, padding_mode='zeros')
        found = {name: getattr(convolution, name) for name in expected}
        if found != expected:
            raise ValueError(f'the convolution has {found}, expected {expected}')
        super().__init__(inputs, inputs.shape[2:])
        self.convolution = convolution
        self.activate = activate
        self.recompute = recompute

    def _make_all(self) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._convolve_all, self.source, use_reentrant=False)
        return self._convolve_all(self.source)

    def _convolve_all(self, inputs: Tensor) -> Tensor:
        return self.activate(self.convolution(inputs))

    def _make(self, chosen: Sequence[Tuple[int, Tensor]], recompute: bool) -> List[Tensor]:
        places = torch.cat([self._places(index, ids) for index, ids in chosen])
        return list(self._convolve(places, recompute).split([len(ids) for _, ids in chosen]))

    def _places(self, index: int, voxel_ids: Tensor) -> Tensor:
        """Rows (U,) of the padded table at the first neighbour of each voxel."""
        cells_z, cells_y, cells_x = self.volume_shape
        layers = voxel_ids.div(cells_x, rounding_mode='floor')
        z = layers.div(cells_y, rounding_mode='floor') + index * (cells_z + 2)
        y, x = layers % cells_y, voxel_ids % cells_x
        return (z * (cells_y + 2) + y) * (cells_x + 2) + x

    def _convolve(self, places: Tensor, recompute: bool) -> Tensor:
        table = self._source_rows()
        kernel = self.convolution.weight.permute(0, 2, 3, 4, 1).flatten(1)
        _, cells_y, cells_x = self.volume_shape
        steps = torch.arange(3, device=places.device)
        around = ((steps[:, None, None] * (cells_y + 2) + steps[:, None]) * (cells_x + 2)
                  + steps).flatten()

        def convolve(part: Tensor) -> Tensor:
            neighbours = F.embedding(part[:, None] + around, table).flatten(1)
            return self.activate(F.linear(neighbours, kernel, self.convolution.bias))

        return in_chunks(convolve, places, CHUNK_SIZE, recompute)

    def _as_rows(self, channels_last: Tensor) -> Tensor:
        """With a border of zeros: (B * (Z + 2) * (Y + 2) * (X + 2), D)."""
        return F.pad(channels_last, (0, 0, 1, 1, 1, 1, 1, 1)).flatten(0, 3)
