"""Volumes of other detectors: their axes, and checks against the head that reads them.

Legend: B batch, C channels; X, Y, Z cells. Inside this project a volume is (B, C, Z, Y, X) and a
bird's eye view (B, C, Y, X); mmdet3d's ImVoxelNet has (B, C, X, Y, Z).
"""
from typing import Any, List, Optional

from torch import Tensor, nn

from voxelrender import RayBundle, VoxelGrid


def in_zyx(values: Tensor, order: str) -> Tensor:
    """``values`` (B, C, ...) with its axes in the order z, y, x; a view.

    Args:
        values: a volume, or any plane of one.
        order: what each dimension after B and C is: 'xyz' is (B, C, X, Y, Z), 'yx' (B, C, Y, X).

    Raises:
        ValueError: ``order`` is no such word, or the tensor has another number of dimensions.
    """
    check_order(order)
    if values.dim() != 2 + len(order):
        raise ValueError(f'a tensor of shape {tuple(values.shape)} has not the axes (B, C, '
                         f'{", ".join(order.upper())}) that order={order!r} says')
    return values.permute(0, 1, *(2 + order.index(axis) for axis in sorted(order, reverse=True)))


def check_order(order: str) -> None:
    """Raises ValueError where ``order`` does not name two or three different axes."""
    if not 2 <= len(order) <= 3 or not set(order) <= set('xyz') or len(set(order)) != len(order):
        raise ValueError(f"order is {order!r}, expected the axes after batch and channels, such as "
                         "'zyx', 'xyz' or 'yx'")


def check_channels(volume: Any, head: nn.Module, source: str) -> None:
    """A volume before a head's convolution meets it.

    Args:
        volume: (B, C, Z, Y, X) expected.
        head: a :class:`VoxelHead`.
        source: where the volume is from; for the message.

    Raises:
        ValueError: no volume, or of other channels.
    """
    shape = tuple(volume.shape) if isinstance(volume, Tensor) else type(volume).__name__
    if not isinstance(volume, Tensor) or volume.dim() != 5:
        hint = ': a neck such as BEVToVolume makes a volume of it' if len(shape) == 4 else ''
        raise ValueError(f'{source} gives {shape}, expected (B, C, Z, Y, X){hint}')
    if shape[1] != head.volume_channels:
        raise ValueError(f'{source} gives a volume of {shape[1]} channels, {shape} (B, C, Z, Y, '
                         f'X); {type(head).__name__} has in_channels={head.volume_channels}')


def check_cells(volume: Tensor, head: nn.Module, source: str) -> None:
    """Raises ValueError naming both shapes where a volume does not lead to the head's grid.

    Arguments as those of :func:`check_channels`.
    """
    cells = tuple(volume.shape[2:])
    factors = head.upsample or (1, 1, 1)
    expected = tuple(number / factor for number, factor in zip(head.grid.volume_shape, factors))
    if cells != expected:
        hint = ("; it would fit the other way round: order='xyz' (of a head: volume_order)?"
                if cells[::-1] == expected else '')
        raise ValueError(
            f'{source} gives a volume of {cells} cells (Z, Y, X); the head is on a grid of '
            f'{head.grid.volume_shape} with upsample={head.upsample} and expects '
            f'({", ".join(f"{number:g}" for number in expected)}){hint}')


def volume_grid_of(detector: nn.Module) -> Optional[VoxelGrid]:
    """Where a detector's volume lies, None where it does not tell.

    Its attribute ``grid``; without one what mmdet3d's ImVoxelNet has: the one range of
    ``prior_generator`` in ``n_voxels`` (X, Y, Z).
    """
    grid = getattr(detector, 'grid', None)
    ranges = getattr(getattr(detector, 'prior_generator', None), 'ranges', ())
    numbers = getattr(detector, 'n_voxels', None)
    if grid is not None or len(ranges) != 1 or numbers is None:
        return grid
    low, high = ranges[0][:3], ranges[0][3:]
    return VoxelGrid(tuple(ranges[0]), [(b - a) / n for a, b, n in zip(low, high, numbers)])


def check_same_range(volume_grid: Optional[VoxelGrid], head_grid: Optional[VoxelGrid], owner: str
                     ) -> None:
    """Raises ValueError where a volume and the head on it lie in different places.

    A grid is None where nobody knows it; then there is nothing to check.
    """
    if volume_grid is None or head_grid is None:
        return
    ours, theirs = head_grid.point_cloud_range, volume_grid.point_cloud_range
    if any(abs(a - b) > 1e-3 for a, b in zip(ours, theirs)):
        raise ValueError(f'the volume of {owner} has the range {theirs}, the grid of the head '
                         f'{ours}: they must be one place')


def rays_of(batch_data_samples: Optional[list]) -> List[RayBundle]:
    """The rays that each sample is trained by.

    Raises:
        KeyError: a sample has none; the message names it, and the transform that makes them.
    """
    missing = [sample.metainfo.get('token') for sample in batch_data_samples or []
               if 'gt_rays' not in sample]
    if batch_data_samples is None or missing:
        raise KeyError(f'training by rendering needs gt_rays, missing in samples {missing}: add '
                       'PrepareRays to the pipeline, before PackOccInputs')
    return [sample.gt_rays for sample in batch_data_samples]
