"""What heads on a voxel volume share: the voxel features that everything is decoded from.

Legend: B batch, D channels of the volume, C feature channels.
"""
from typing import Optional, Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from voxelrender import (
    ConvolvedFeatures, LayeredFeatures, UpsampledFeatures, VoxelFeatures, VoxelGrid
)

from ..volumes import check_cells, check_channels, check_order, in_zyx
from .positions import encode_heights, encode_positions


class VoxelHead(BaseModule):
    """Volume -> features on the head's own grid: places, final convolution, upsampling.

    Args:
        in_channels: D, channels of the voxel volume.
        grid: ``dict(point_cloud_range=..., voxel_size=...)`` of what is predicted.
        feat_channels: C, channels after the final convolution.
        upsample: factors (z, y, x) by which features are upsampled, trilinearly, after the final
            convolution, for volumes coarser than ``grid``; None where the volume is on ``grid``
            already, as in the paper. (A transposed convolution learns one dense voxel of each block
            and leaves the others free: rays interpolate, so nothing tells it otherwise.)
        position_frequencies: octaves of sines and cosines of the voxel's place (NeRF, eq. 4) that
            are concatenated to the volume, beside the place itself; None adds nothing, as in the
            paper. A lifted volume tells a voxel's place only through where image features fall, and
            short trainings spend most of their time on finding the road.
        height_frequencies: octaves L of sines and cosines of a voxel's height that its decoders
            read beside its features, with the height itself: ``out_channels`` is C + 1 + 2 L. The
            road is one voxel thin, and a volume coarser than ``grid`` does not say where in a cell
            it lies. None adds nothing, as in the paper.
        image_gain: factor on the initial weights of the final convolution that read the volume.
            Below 1 the head begins with places and takes up the images as they come to mean
            something; an untrained trunk is noise that hides the road. The paper: 1.
        keep_volume: decoders read the volume itself too, beside the final convolution's features:
            ``out_channels`` grows by D. A convolution to few channels squeezes what the images say,
            and short trainings have not the time to find out how. Needs ``upsample``. The paper:
            False.
        with_cp: recompute the final convolution in the backward pass.
        volume_order: the volume's axes after batch and channels; 'xyz' after ImVoxelNet's necks.
        init_cfg: see mmengine.
    """

    def __init__(self, in_channels: int, grid: dict, feat_channels: int,
                 upsample: Optional[Sequence[int]] = None,
                 position_frequencies: Optional[int] = None,
                 height_frequencies: Optional[int] = None, image_gain: float = 1.,
                 keep_volume: bool = False, with_cp: bool = False, volume_order: str = 'zyx',
                 init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        check_order(volume_order)
        self.volume_order = volume_order
        self.grid = VoxelGrid(**grid)
        self.position_frequencies = position_frequencies
        self.volume_channels = in_channels
        if position_frequencies is not None:
            in_channels += 3 * (1 + 2 * position_frequencies)
        self.final_conv = ConvModule(in_channels, feat_channels, 3, padding=1,
                                     conv_cfg=dict(type='Conv3d'))
        if keep_volume and upsample is None:
            raise ValueError(f'{type(self).__name__}: keep_volume=True needs upsample, got None')
        self.keep_volume = keep_volume
        self.image_gain = image_gain
        self.height_frequencies = height_frequencies
        self.out_channels = feat_channels + (self.volume_channels if keep_volume else 0)
        if height_frequencies is not None:
            self.out_channels += 1 + 2 * height_frequencies
        self.upsample = None if upsample is None else tuple(upsample)
        self.with_cp = with_cp

    def init_weights(self) -> None:
        """As configured; then the weights that read the volume are scaled by ``image_gain``."""
        super().init_weights()
        with torch.no_grad():
            self.final_conv.conv.weight[:, :self.volume_channels] *= self.image_gain

    def features(self, voxel_feats: Tensor) -> VoxelFeatures:
        """Voxel volume (B, D, Z, Y, X) or as ``volume_order`` -> ``out_channels`` on ``grid``.

        Features are computed where they are read: only the convolution before an ``upsample`` is
        done here.

        Raises:
            ValueError: the volume has other channels or axes, or does not lead to ``grid``.
        """
        voxel_feats = inputs = in_zyx(voxel_feats, self.volume_order)
        check_channels(voxel_feats, self, 'the trunk')
        check_cells(voxel_feats, self, 'the trunk')
        if self.position_frequencies is not None:
            places = encode_positions(inputs.shape[2:], self.position_frequencies, inputs)
            inputs = torch.cat([inputs, places.expand(len(inputs), -1, -1, -1, -1)], dim=1)
        feats = self._convolved(inputs)
        if self.height_frequencies is not None:
            feats = LayeredFeatures(feats, encode_heights(
                self.grid.volume_shape[0], self.height_frequencies, voxel_feats))
        return feats

    def _convolved(self, inputs: Tensor) -> VoxelFeatures:
        if self.upsample is None:
            return ConvolvedFeatures(inputs, self.final_conv.conv, self.final_conv.activate,
                                     self.with_cp)
        if self.with_cp and inputs.requires_grad:
            feats = checkpoint(self.final_conv, inputs, use_reentrant=False)
        else:
            feats = self.final_conv(inputs)
        if self.keep_volume:
            feats = torch.cat([feats, inputs[:, :self.volume_channels]], dim=1)
        return UpsampledFeatures(feats, self.upsample)
