"""Occupancy that leaves (or enters) the model: (X, Y, Z), key ego frame, Occ3D's class indices."""
from typing import Any, Mapping, Optional, Sequence, Tuple, Type, Union

import numpy as np
import torch
from mmengine.structures import BaseDataElement

_VOXEL_FIELDS = ('semantics', 'mask_camera', 'mask_lidar')


class OccData(BaseDataElement):
    """Voxel labels of one sample.

    Index order is [x, y, z] (Occ3D), so ``semantics[i, j, k]`` is the voxel whose low corner is
    ``(x0 + i * s, y0 + j * s, z0 + k * s)`` in the key ego frame.

    Fields (all optional, all of one shape (X, Y, Z)):
        semantics: uint8 class index; 17 = free.
        mask_camera: bool, voxels some camera observes.
        mask_lidar: bool, voxels some LiDAR sweep observes.

    Further fields (scores, densities) may be added and are not checked. The metainfo
    ``point_cloud_range`` (x0, y0, z0, x1, y1, z1 in metres), where there is one, says where the
    voxels lie: heads and metrics refuse labels of another place.

    Raises:
        TypeError: one of the three is no tensor or array.
        ValueError: one of the three is not 3-D, or its shape differs from the others'.
    """

    def set_field(self,
                  value: Any,
                  name: str,
                  dtype: Optional[Union[Type, Tuple[Type, ...]]] = None,
                  field_type: str = 'data') -> None:
        """Stores a field; the three voxel fields are checked first."""
        if name in _VOXEL_FIELDS and field_type == 'data':
            self._check(name, value)
        super().set_field(value, name, dtype=dtype, field_type=field_type)

    def _check(self, name: str, value: Any) -> None:
        if not isinstance(value, (torch.Tensor, np.ndarray)):
            raise TypeError(f'OccData.{name} must be a tensor or array, got {type(value).__name__}')
        if value.ndim != 3:
            raise ValueError(f'OccData.{name} must be (X, Y, Z), got shape {tuple(value.shape)}')
        for other in set(_VOXEL_FIELDS) - {name}:
            shape = tuple(self.get(other).shape) if other in self else tuple(value.shape)
            if shape != tuple(value.shape):
                raise ValueError(f'OccData.{name} has shape {tuple(value.shape)}, '
                                 f'{other} has {shape}')


def check_one_place(places: Mapping[str, Optional[Sequence[float]]], where: str) -> None:
    """Whether grids of one shape are one grid.

    Args:
        places: whose grid -> its range, metres; None where nobody knows it.
        where: begins the message.

    Raises:
        ValueError: two ranges differ by more than 1 mm; all are named.
    """
    known = {name: [float(edge) for edge in place] for name, place in places.items()
             if place is not None}
    if any(abs(low - high) > 1e-3 for low, high in
           ((min(edges), max(edges)) for edges in zip(*known.values()))):
        raise ValueError(f'{where}: not one place: '
                         + ', '.join(f'{name} in {place} m' for name, place in known.items())
                         + '. Give all the point_cloud_range of the label files; '
                         'LoadOccGTFromFile(point_cloud_range=) says which one that is')
