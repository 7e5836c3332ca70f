"""2D residual network over bird's-eye-view features (BEVDet's ``CustomResNet``).

Legend: B batch, C channels, (Y, X) cells.
"""
from typing import List, Sequence

from mmdet3d.registry import MODELS
from mmdet.models.backbones.resnet import BasicBlock
from torch import Tensor, nn

from .custom_resnet3d import StagedResNet, check_grid_shape


@MODELS.register_module()
class CustomResNet(StagedResNet):
    """Residual network over BEV features (B, C, Y, X): see :class:`StagedResNet`.

    Blocks are ResNet's basic ones; the first of each stage projects its shortcut by a 3x3
    convolution without norm, as BEVDet's. A volume's layers are stacked in the channels, the lowest
    first, as a view transformer with ``collapse_z=True`` does: ``numC_input`` is then Z x C.
    """

    def make_block(self, in_channels: int, channels: int, stride: int = 1, first: bool = False
                   ) -> nn.Module:
        shortcut = nn.Conv2d(in_channels, channels, 3, stride, 1) if first else None
        return BasicBlock(in_channels, channels, stride=stride, downsample=shortcut)

    def check_grid(self, grid_shape: Sequence[int]) -> None:
        """Raises ValueError if the strides do not divide the (Y, X) of a grid (..., Y, X)."""
        check_grid_shape(grid_shape[-2:], self.strides[-1], type(self).__name__)

    def forward(self, feats: Tensor) -> List[Tensor]:
        """See :meth:`StagedResNet.forward`.

        Args:
            feats: (B, numC_input, Y, X), or a volume (B, C, Z, Y, X).

        Raises:
            ValueError: the input has other channels, or a plane that the strides do not divide.
        """
        shape, expected = tuple(feats.shape), self.layers[0][0].conv1.in_channels
        if feats.dim() == 5:
            feats = feats.transpose(1, 2).flatten(1, 2)
        if feats.dim() != 4 or feats.shape[1] != expected:
            raise ValueError(
                f'CustomResNet: input of shape {shape}, expected (B, {expected}, Y, X) or (B, C, '
                f'Z, Y, X) with Z x C = {expected}: numC_input must be frames x Z x out_channels '
                'of the view transformer')
        return super().forward(feats)
