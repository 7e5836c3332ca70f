"""Between a volume and three perpendicular planes (TPV: TPVFormer, arXiv 2302.07817).

Legend: B batch, C channels; X, Y, Z cells.
"""
from typing import Optional, Sequence, Tuple

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..volumes import in_zyx

_AXES = 'zyx'
# The axes of each plane, after batch and channels.
PLANES = ('yx', 'zx', 'zy')


@MODELS.register_module()
class VolumeToTPV(BaseModule):
    """Volume -> three planes: the mean along each axis, then 2D convolutions of its own.

    Args:
        in_channels: of the volume.
        out_channels: of the planes.
        num_convs: 3 x 3 convolutions with BatchNorm and ReLU a plane.
        order: axes of the volume, 'zyx' or 'xyz'.
        init_cfg: see mmengine.
    """

    def __init__(self, in_channels: int, out_channels: int, num_convs: int = 2,
                 order: str = 'zyx', init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        self.order = order
        widths = [in_channels] + num_convs * [out_channels]
        self.planes = nn.ModuleList(
            nn.Sequential(*(ConvModule(a, b, 3, padding=1, norm_cfg=dict(type='BN2d'))
                            for a, b in zip(widths, widths[1:]))) for _ in PLANES)

    def forward(self, volume: Tensor) -> Tuple[Tensor, ...]:
        """Planes (B, C, Y, X), (B, C, Z, X) and (B, C, Z, Y) of a volume."""
        volume = in_zyx(volume, self.order)
        return tuple(convs(volume.mean(2 + _AXES.index(_missing(axes))))
                     for convs, axes in zip(self.planes, PLANES))


@MODELS.register_module()
class TPVToVolume(BaseModule):
    """Three planes -> volume: a voxel is the sum of the three cells that it falls on.

    Then a 1 x 1 x 1 convolution with BatchNorm and ReLU.

    Args:
        in_channels: of the planes.
        out_channels: of the volume.
        planes: the axes of each plane after batch and channels, in the order the planes come in;
            TPVFormer's are ('yx', 'zy', 'xz').
        init_cfg: see mmengine.

    Raises:
        ValueError: ``planes`` are not three with each axis missing once.
    """

    def __init__(self, in_channels: int, out_channels: int, planes: Sequence[str] = PLANES,
                 init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        if sorted(''.join(sorted(axes)) for axes in planes) != ['xy', 'xz', 'yz']:
            raise ValueError(f'TPVToVolume: planes={tuple(planes)}, expected three pairs of axes '
                             f'such as {PLANES}')
        self.in_channels = in_channels
        self.axes = tuple(planes)
        self.conv = ConvModule(in_channels, out_channels, 1, conv_cfg=dict(type='Conv3d'),
                               norm_cfg=dict(type='BN3d'))

    def forward(self, planes: Sequence[Tensor]) -> Tensor:
        """Three planes (B, in_channels, ...) -> (B, out_channels, Z, Y, X)."""
        shapes = [tuple(plane.shape) for plane in planes]
        if len(planes) != 3 or any(shape[1] != self.in_channels for shape in shapes):
            raise ValueError(f'TPVToVolume: planes of shapes {shapes}, expected three with '
                             f'{self.in_channels} channels')
        spread = [in_zyx(plane, axes).unsqueeze(2 + _AXES.index(_missing(axes)))
                  for plane, axes in zip(planes, self.axes)]
        try:
            torch.broadcast_shapes(*(plane.shape for plane in spread))
        except RuntimeError as error:
            raise ValueError(f'TPVToVolume: planes {self.axes} of shapes {shapes} are not of one '
                             'grid') from error
        return self.conv(spread[0] + spread[1] + spread[2])


def _missing(axes: str) -> str:
    """The axis that a plane has not."""
    return next(axis for axis in _AXES if axis not in axes)
