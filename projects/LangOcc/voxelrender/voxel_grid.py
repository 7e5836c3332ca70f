"""The voxel grid: the only place that knows ranges, sizes and the alignment of values.

Volumes are (B, C, Z, Y, X), points are (x, y, z) in metres in the grid's own frame (the key ego
frame in LangOcc). Voxel i of an axis spans ``[lo + i * size, lo + (i + 1) * size)``.

Legend: B batch, C channels, P points, R rays, V voxels; X, Y, Z cells along each axis.
"""
import math
from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENTS = ('centers', 'edges')


def full_precision(tensor: Tensor) -> Tensor:
    """``tensor`` in float32, or unchanged where it is float32 or float64 already."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid of voxels.

    Args:
        point_cloud_range: (x0, y0, z0, x1, y1, z1) in metres.
        voxel_size: Extent of a voxel along x, y, z in metres.
        alignment: Where a voxel's value sits when the volume is sampled. ``'centers'``: at the
            voxel's centre. ``'edges'``: the first and last values sit on the range's faces, as in
            the published renderer (``align_corners=True``; a shift of up to half a voxel).

    Raises:
        ValueError: If the range is not increasing or not a whole number of voxels, or the
            alignment is unknown.
    """

    point_cloud_range: Tuple[float, float, float, float, float, float]
    voxel_size: Tuple[float, float, float]
    alignment: str = 'centers'

    def __post_init__(self):
        object.__setattr__(self, 'point_cloud_range', _floats(
            'point_cloud_range', self.point_cloud_range, 6))
        object.__setattr__(self, 'voxel_size', _floats('voxel_size', self.voxel_size, 3))
        if self.alignment not in ALIGNMENTS:
            raise ValueError(f'alignment is {self.alignment!r}, expected one of {ALIGNMENTS}')
        for axis, low, high, size in zip('xyz', self.lower, self.upper, self.voxel_size):
            if not (size > 0 and high > low):
                raise ValueError(f'{axis}: the range [{low}, {high}] must increase and the voxel '
                                 f'size {size} must be positive')
            cells = (high - low) / size
            if abs(cells - round(cells)) > 1e-3 or round(cells) < 1:
                raise ValueError(f'{axis}: the range [{low}, {high}] holds {cells:.6g} voxels of '
                                 f'{size} m, expected a whole number')

    @classmethod
    def from_grid_config(cls, grid_config: Dict[str, Sequence[float]],
                         alignment: str = 'centers') -> 'VoxelGrid':
        """Builds the grid from BEVDet's ``dict(x=[low, high, step], y=..., z=...)``, metres.

        Further keys (``depth``) belong to the frustum and are left alone.
        """
        missing = [axis for axis in 'xyz' if axis not in grid_config]
        if missing:
            raise ValueError(f'grid_config lacks {missing}, it has {sorted(grid_config)}')
        axes = [_floats(f'grid_config[{axis!r}]', grid_config[axis], 3) for axis in 'xyz']
        lows, highs, steps = zip(*axes)
        return cls(lows + highs, steps, alignment)

    @property
    def lower(self) -> Tuple[float, float, float]:
        """(x0, y0, z0) in metres."""
        return self.point_cloud_range[:3]

    @property
    def upper(self) -> Tuple[float, float, float]:
        """(x1, y1, z1) in metres."""
        return self.point_cloud_range[3:]

    @property
    def grid_shape(self) -> Tuple[int, int, int]:
        """Cells along (x, y, z)."""
        return tuple(round((high - low) / size) for low, high, size in
                     zip(self.lower, self.upper, self.voxel_size))

    @property
    def volume_shape(self) -> Tuple[int, int, int]:
        """Cells along (z, y, x), the order of a volume's last dimensions."""
        return self.grid_shape[::-1]

    @property
    def num_voxels(self) -> int:
        """Number of voxels V."""
        return math.prod(self.grid_shape)

    def normalize(self, points: Tensor) -> Tensor:
        """Maps points (..., 3) in metres so that the range becomes [-1, 1], order x, y, z."""
        points = full_precision(points)
        low, high = points.new_tensor(self.lower), points.new_tensor(self.upper)
        return (points - low) / (high - low) * 2 - 1

    def to_cells(self, points: Tensor) -> Tensor:
        """Continuous cell coordinates (..., 3) of points in metres: voxel i's centre is i + 0.5."""
        points = full_precision(points)
        return (points - points.new_tensor(self.lower)) / points.new_tensor(self.voxel_size)

    def to_indices(self, points: Tensor, truncate: bool = False) -> Tensor:
        """Indices (..., 3), long, x, y, z, of the voxels that hold the points.

        Points outside get indices outside ``grid_shape``; see `contains`.

        Args:
            points: (..., 3) in metres.
            truncate: Round towards zero instead of down (published lift): points up to one cell
                under the low faces then fold into index 0.
        """
        cells = self.to_cells(points)
        return (cells.trunc() if truncate else cells.floor()).long()

    def contains(self, points: Tensor, truncate: bool = False) -> Tensor:
        """Whether `to_indices` names a voxel of the grid: bool (...) for points (..., 3) in m."""
        cells = self.to_cells(points)
        low_enough = cells > -1 if truncate else cells >= 0
        return (low_enough & (cells < cells.new_tensor(self.grid_shape))).all(-1)

    def flat_indices(self, indices: Tensor) -> Tensor:
        """Flat index (...) over (Z, Y, X), x fastest, of indices (..., 3) in order x, y, z."""
        cells_x, cells_y, _ = self.grid_shape
        x, y, z = indices.unbind(-1)
        return (z * cells_y + y) * cells_x + x

    def voxel_centers(self, device: Optional[torch.device] = None,
                      dtype: Optional[torch.dtype] = None) -> Tensor:
        """Centres of all voxels, (Z, Y, X, 3), x, y, z in metres."""
        axes = [low + size * (torch.arange(cells, device=device, dtype=torch.float64) + 0.5)
                for low, size, cells in zip(self.lower, self.voxel_size, self.grid_shape)]
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing='ij')
        return torch.stack([x, y, z], dim=-1).to(dtype or torch.get_default_dtype())

    def sample(self, volume: Tensor, points: Tensor) -> Tensor:
        """Trilinear interpolation with zero padding, in float32 (or float64) even under autocast.

        Args:
            volume: (B, C, Z, Y, X).
            points: (B, ..., 3) in metres.

        Returns:
            (B, ..., C), differentiable in the volume and in the points.

        Raises:
            ValueError: If the volume is not of this grid, or the batch sizes differ.
        """
        if volume.dim() != 5 or tuple(volume.shape[2:]) != self.volume_shape:
            raise ValueError(f'volume has shape {tuple(volume.shape)}, expected (B, C, Z, Y, X) '
                             f'with (Z, Y, X) = {self.volume_shape}')
        if points.shape[0] != volume.shape[0] or points.shape[-1] != 3:
            raise ValueError(f'points have shape {tuple(points.shape)}, expected '
                             f'({volume.shape[0]}, ..., 3)')
        volume = full_precision(volume)
        places = self.normalize(points).to(volume.dtype).reshape(volume.shape[0], 1, 1, -1, 3)
        with torch.autocast(volume.device.type, enabled=False):
            values = F.grid_sample(volume, places, mode='bilinear', padding_mode='zeros',
                                   align_corners=self.alignment == 'edges')
        return values[:, :, 0, 0].transpose(1, 2).reshape(*points.shape[:-1], volume.shape[1])

    def corners(self, points: Tensor) -> Tuple[Tensor, Tensor]:
        """The eight voxels that `sample` reads at each point, and their coefficients.

        Args:
            points: (P, 3) in metres, finite.

        Returns:
            Flat voxel indices (P, 8), long, over (Z, Y, X), and coefficients (P, 8). A corner
            outside the grid has coefficient 0 and the index of its neighbour inside, so indices
            are always valid; two corners of a point may then share an index.
        """
        lows, fractions = self.low_corners(points)
        flat, inside = self.corner_ids(lows)
        return flat, corner_shares(fractions) * inside

    def low_corners(self, points: Tensor) -> Tuple[Tensor, Tensor]:
        """Where points (P, 3) in metres lie between the voxels that `sample` reads.

        Returns:
            Lowest of the eight voxels, (P, 3) whole floats x, y, z in [-2, cells], -1 and beyond
            the last being outside; and the place beyond it, (P, 3) in [0, 1).
        """
        positions = self._positions(points)
        lows = positions.floor()
        fractions = positions - lows
        # Two cells beyond is as far outside as any, and safe to convert to an integer.
        return torch.minimum(lows.clamp_min_(-2), lows.new_tensor(self.grid_shape)), fractions

    def corner_ids(self, lows: Tensor) -> Tuple[Tensor, Tensor]:
        """The eight voxels above lowest ones (P, 3): flat indices (P, 8), long, and whether each
        is of the grid (P, 8); one that is not has the index of its neighbour inside."""
        flat = inside = None
        for axis in (2, 1, 0):
            cells = self.grid_shape[axis]
            low = lows[:, axis].long()
            pair = torch.stack([low, low + 1], dim=-1)
            within = (pair >= 0) & (pair < cells)
            pair = pair.clamp_(0, cells - 1)
            if flat is None:
                flat, inside = pair, within
            else:
                flat = (flat[:, :, None] * cells + pair[:, None]).flatten(1)
                inside = (inside[:, :, None] & within[:, None]).flatten(1)
        return flat, inside

    def touched(self, points: Tensor) -> Tensor:
        """Which voxels `sample` reads at points (..., 3) in metres: bool (Z, Y, X).

        One write a point into a bitmap; no sort, nothing of size points x corners.
        """
        lows, _ = self.low_corners(points.reshape(-1, 3))
        x, y, z = (lows.long() + 1).unbind(-1)
        cells_x, cells_y, cells_z = self.grid_shape
        # Bit (z, y, x): some point lies above voxel (z - 1, y - 1, x - 1). One more bit for points
        # that read no voxel.
        size = (cells_z + 1) * (cells_y + 1) * (cells_x + 1)
        outside = (torch.minimum(torch.minimum(x, y), z) < 0) | (x > cells_x) | (y > cells_y) \
            | (z > cells_z)
        flat = ((z * (cells_y + 1) + y) * (cells_x + 1) + x).masked_fill_(outside, size)
        above = torch.zeros(size + 1, dtype=torch.bool, device=points.device)
        above[flat] = True
        above = above[:-1].view(cells_z + 1, cells_y + 1, cells_x + 1)
        for axis, cells in enumerate(self.volume_shape):
            above = above.narrow(axis, 0, cells) | above.narrow(axis, 1, cells)
        return above

    def intersect(self, origins: Tensor, directions: Tensor) -> Tuple[Tensor, Tensor]:
        """Where rays enter and leave the grid's box.

        Args:
            origins: (R, 3) in metres.
            directions: (R, 3), not zero.

        Returns:
            t_near, t_far (R,) in units of the directions' length, t_near >= 0 (0 for an origin
            inside); t_near > t_far for a ray that misses the box or has it behind.
        """
        low, high = origins.new_tensor(self.lower), origins.new_tensor(self.upper)
        parallel = directions == 0
        divisor = torch.where(parallel, torch.ones_like(directions), directions)
        first, second = (low - origins) / divisor, (high - origins) / divisor
        inside = (origins >= low) & (origins <= high)
        endless = torch.full_like(origins, math.inf)
        slab = torch.where(inside, endless, -endless)
        enters = torch.where(parallel, -slab, torch.minimum(first, second))
        leaves = torch.where(parallel, slab, torch.maximum(first, second))
        return enters.amax(-1).clamp_min(0), leaves.amin(-1)

    def _positions(self, points: Tensor) -> Tensor:
        """Coordinates (..., 3) in which voxel i's value sits at i, rounded as grid_sample does."""
        places = self.normalize(points)
        cells = places.new_tensor(self.grid_shape)
        if self.alignment == 'edges':
            return (places + 1) / 2 * (cells - 1)
        return ((places + 1) * cells - 1) / 2


def corner_shares(fractions: Tensor) -> Tensor:
    """Trilinear coefficients (P, 8), x fastest, of places (P, 3), x, y, z in [0, 1)."""
    pairs = torch.stack([1 - fractions, fractions], dim=-1)
    planes = (pairs[:, 2, :, None] * pairs[:, 1, None]).flatten(1)
    return (planes[:, :, None] * pairs[:, 0, None]).flatten(1)


def _floats(name: str, values: Sequence[float], count: int) -> Tuple[float, ...]:
    """``values`` as ``count`` finite floats; ValueError otherwise."""
    values = tuple(float(value) for value in values)
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise ValueError(f'{name} is {values}, expected {count} finite numbers')
    return values
