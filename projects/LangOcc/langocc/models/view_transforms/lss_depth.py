"""Lift-splat with a camera-aware depth net (BEVDepth) and with stereo over time (BEVStereo).

Legend: B batch, N cameras, C channels, D depth bins, h/w feature height and width (stride 16),
h4/w4 those of stride 4.
"""
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from langocc.structures import CameraRig
from voxelrender import stereo_cost_volume

from .depth_loss import depth_distribution_loss
from .depth_net import DepthNet
from .frustum import camera_parameters, stereo_warps
from .lss import LSSViewTransformer

STEREO_STRIDE = 4


@dataclass
class StereoReference:
    """What a frame is matched against.

    Attributes:
        prev_feats: (B, N, C4, h4, w4) stride-4 features of the frame before, or None: no match.
        cur_feats: (B, N, C4, h4, w4) stride-4 features of the frame that is lifted.
        prev_rig: of the frame before, matrices (B, N, 4, 4).
    """
    prev_feats: Optional[Tensor]
    cur_feats: Tensor
    prev_rig: CameraRig


@MODELS.register_module()
class LSSViewTransformerBEVDepth(LSSViewTransformer):
    """Lift-splat whose depth net knows the camera and can be supervised by measured depth.

    Args:
        loss_depth_weight: factor of :meth:`get_depth_loss`.
        depthnet_cfg: further arguments of :class:`DepthNet`.
        kwargs: of :class:`LSSViewTransformer`.
    """

    def __init__(self,
                 loss_depth_weight: float = 3.0,
                 depthnet_cfg: Optional[Dict[str, Any]] = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_depth_weight = loss_depth_weight
        self.depth_net = DepthNet(self.in_channels, self.in_channels, self.out_channels,
                                  self.num_depths, **(depthnet_cfg or {}))

    def reduce(self, img_feats: Tensor, rig: CameraRig) -> Tensor:
        self._check(img_feats, rig)
        return self.depth_net.reduce_conv(img_feats.flatten(0, 1))

    def match(self, feats: Tensor, rig: CameraRig, stereo: Optional[StereoReference]
              ) -> Optional[Tensor]:
        return self.depth_net.match(feats, self._cost_volume(rig, stereo))

    def _decode(self, feats: Tensor, matching: Optional[Tensor], rig: CameraRig,
                bev_aug_matrix: Tensor, key_rig: Optional[CameraRig]) -> Tuple[Tensor, Tensor]:
        parameters = camera_parameters(rig, bev_aug_matrix, key_rig).to(feats.device)
        return self.depth_net.decode(feats, matching, parameters.flatten(0, 1))

    def _cost_volume(self, rig: CameraRig, stereo: Optional[StereoReference]) -> Optional[Tensor]:
        """None: no stereo here."""
        return None

    def get_depth_loss(self, gt_depth: Tensor, depth: Tensor) -> Tensor:
        """Weighted loss of the depth distributions.

        Args:
            gt_depth: (B, N, H, W) z-depth of the network's images in metres; 0 = unknown.
            depth: (B, N, D, h, w) probabilities, as :meth:`forward` returns them.

        Returns:
            Scalar; zero and graph-connected where no depth is known. Source: BEVDepth, eq. 1
            (binary cross-entropy), nearest depth of each patch.
        """
        return self.loss_depth_weight * depth_distribution_loss(
            gt_depth, depth, self.depth_edges, self.downsample)


@MODELS.register_module()
class LSSViewTransformerBEVStereo(LSSViewTransformerBEVDepth):
    """BEVDepth whose depth net also sees how well the previous frame matches at each depth.

    The cost volume has no gradient; without a previous frame it is zeros (as published).

    Args:
        published_invalid: parity switch, the published test for positions that the warp sends
            outside: the first channel of the last group of four is exactly 0.
        depthnet_cfg: as for BEVDepth; ``bias`` is the cost added where the warp is invalid.
        kwargs: of :class:`LSSViewTransformerBEVDepth`.

    Raises:
        ValueError: ``downsample`` is not 4 times a power of two, or ``depthnet_cfg`` says
            ``stereo=False``.
    """

    def __init__(self,
                 depthnet_cfg: Optional[Dict[str, Any]] = None,
                 published_invalid: bool = False,
                 downsample: int = 16,
                 **kwargs: Any) -> None:
        cfg = dict(depthnet_cfg or {})
        cost_bias = cfg.pop('bias', 5.0)
        halvings = max(0, (downsample // STEREO_STRIDE).bit_length() - 1)
        if STEREO_STRIDE << halvings != downsample:
            raise ValueError(f'{type(self).__name__}: downsample={downsample} must be 4 times a '
                             'power of two; the cost volume is at stride 4')
        if not cfg.setdefault('stereo', True):
            raise ValueError(f'{type(self).__name__}: depthnet_cfg has stereo=False; use '
                             'LSSViewTransformerBEVDepth without stereo')
        cfg['num_cost_stages'] = halvings
        super().__init__(depthnet_cfg=cfg, downsample=downsample, **kwargs)
        self.cost_bias = cost_bias
        self.published_invalid = published_invalid

    @torch.no_grad()
    def _cost_volume(self, rig: CameraRig, stereo: Optional[StereoReference]) -> Optional[Tensor]:
        """(BN, D, h4, w4) matching probabilities, or None without a previous frame."""
        if stereo is None or stereo.prev_feats is None:
            return None
        current, previous = stereo.cur_feats, stereo.prev_feats
        if current.shape != previous.shape or current.shape[:2] != rig.cam2img.shape[:2]:
            raise ValueError(f'stereo features: current {tuple(current.shape)}, previous '
                             f'{tuple(previous.shape)}, expected (B, N, C, h4, w4) with '
                             f'(B, N) = {tuple(rig.cam2img.shape[:2])}')
        warps = stereo_warps(rig, stereo.prev_rig).flatten(0, 1).to(current.device)
        with torch.autocast(current.device.type, enabled=False):
            return stereo_cost_volume(
                current.flatten(0, 1).float(), previous.flatten(0, 1).float(), warps,
                self.depth_edges[:-1].to(current.device), self.input_size, bias=self.cost_bias,
                published_invalid=self.published_invalid)
