"""Between a volume and a bird's eye view.

Legend: B batch, C channels; X, Y, Z cells.
"""
from typing import List, Optional, Sequence, Union

from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from ..volumes import in_zyx

Levels = Union[Tensor, Sequence[Tensor]]


@MODELS.register_module()
class BEVToVolume(BaseModule):
    """Bird's eye view -> volume: each cell's channels become those of its column of voxels.

    A 1 x 1 convolution with BatchNorm and ReLU to Z * C channels, read as Z layers of C (the
    channel-to-height idea of FlashOcc, arXiv 2311.12058).

    Args:
        in_channels: of the bird's eye view.
        out_channels: C of the volume.
        num_layers: Z.
        level: which of several levels, where a list is given.
        order: axes of the view, 'yx' (mmdet3d's rule) or 'xy'.
        init_cfg: see mmengine.
    """

    def __init__(self, in_channels: int, out_channels: int, num_layers: int, level: int = 0,
                 order: str = 'yx', init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.num_layers = num_layers
        self.level = level
        self.order = order
        self.conv = ConvModule(in_channels, num_layers * out_channels, 1,
                               norm_cfg=dict(type='BN2d'))

    def forward(self, bev: Levels) -> Tensor:
        """(B, in_channels, Y, X), or levels of such -> (B, C, Z, Y, X)."""
        bev = in_zyx(pick_level(bev, self.level), self.order)
        _check_channels(self, bev.shape, self.in_channels, '(B, C, Y, X)')
        return self.conv(bev).unflatten(1, (self.num_layers, -1)).transpose(1, 2)


@MODELS.register_module()
class VolumeToBEV(BaseModule):
    """Volume -> bird's eye view for mmdet3d's detection heads.

    Layers are stacked in the channels, then a 3 x 3 convolution with BatchNorm and ReLU.

    Args:
        in_channels: C of the volume.
        num_layers: Z.
        out_channels: of the bird's eye view.
        level: which of several levels, where a list is given.
        order: axes of the volume, 'zyx', or 'xyz' after ImVoxelNet's necks.
        init_cfg: see mmengine.
    """

    def __init__(self, in_channels: int, num_layers: int, out_channels: int, level: int = 0,
                 order: str = 'zyx', init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.num_layers = num_layers
        self.level = level
        self.order = order
        self.conv = ConvModule(num_layers * in_channels, out_channels, 3, padding=1,
                               norm_cfg=dict(type='BN2d'))

    def forward(self, volume: Levels) -> List[Tensor]:
        """A volume, axes as ``order`` says, or levels of such -> [(B, out_channels, Y, X)]."""
        volume = in_zyx(pick_level(volume, self.level), self.order)
        _check_channels(self, volume.shape, self.in_channels, '(B, C, Z, Y, X)')
        if volume.shape[2] != self.num_layers:
            raise ValueError(f'VolumeToBEV has num_layers={self.num_layers}, the volume has '
                             f'{volume.shape[2]} layers: {tuple(volume.shape)} (B, C, Z, Y, X)')
        return [self.conv(volume.transpose(1, 2).flatten(1, 2))]


def pick_level(feats: Levels, level: int) -> Tensor:
    """``feats``, or that level of it where there are several."""
    if isinstance(feats, Tensor):
        return feats
    if not -len(feats) <= level < len(feats):
        raise ValueError(f'level {level} of {len(feats)}: {[tuple(f.shape) for f in feats]}')
    return feats[level]


def _check_channels(neck: BaseModule, shape: Sequence[int], expected: int, axes: str) -> None:
    if shape[1] != expected:
        raise ValueError(f'{type(neck).__name__} has in_channels={expected}, its input has '
                         f'{shape[1]}: {tuple(shape)} {axes}')
