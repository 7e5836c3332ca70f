"""Lift-splat view transformer (Philion and Fidler, ECCV 2020; BEVDet's ``LSSViewTransformer``).

Legend: B batch, N cameras, C channels, D depth bins, h/w feature height and width, (Z, Y, X) cells
of the voxel grid in the (BEV-augmented) key ego frame.
"""
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from langocc.structures import CameraRig
from voxelrender import VoxelGrid, lift_splat

from .frustum import depth_edges, frustum_to_ego, lift_matrices, make_frustum


@MODELS.register_module()
class LSSViewTransformer(BaseModule):
    """Spreads each feature over its depth distribution and sums what falls into each voxel.

    Geometry is computed in float64 from the configuration at each call: it needs no buffers, so
    neither half precision nor the averaging of buffers can touch it. The softmax over depth and the
    splat are float32 under autocast.

    Args:
        grid_config: dict(x=, y=, z=, depth=), each (low, high, step) in metres.
        input_size: (H, W) of the network's images, pixels.
        downsample: image pixels a feature cell.
        in_channels: of the image features.
        out_channels: C of the volume.
        collapse_z: give (B, Z * C, Y, X), the layers of height stacked in the channels, in place
            of a volume. (BEVDet's default is True; here volumes are the rule.)
        sid: depth bins spaced evenly in log depth.
        truncate: parity switch, cells by truncation towards zero: points up to one cell below the
            low faces fall into the first cell. Default: floor.
        backend: of the splat kernel, 'auto', 'torch' or 'triton'.
    """

    def __init__(self,
                 grid_config: Dict[str, Sequence[float]],
                 input_size: Sequence[int],
                 downsample: int = 16,
                 in_channels: int = 512,
                 out_channels: int = 64,
                 collapse_z: bool = False,
                 sid: bool = False,
                 truncate: bool = False,
                 backend: str = 'auto',
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.grid = VoxelGrid.from_grid_config(grid_config)
        self.depth_edges = depth_edges(grid_config['depth'], sid)
        self.num_depths = len(self.depth_edges) - 1
        self.input_size = tuple(input_size)
        self.downsample = downsample
        self.feature_size = tuple(-(-size // downsample) for size in input_size)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.collapse_z = collapse_z
        self.truncate = truncate
        self.backend = backend
        self.depth_net = nn.Conv2d(in_channels, self.num_depths + out_channels, 1)

    def forward(self,
                img_feats: Tensor,
                rig: CameraRig,
                bev_aug_matrix: Tensor,
                key_rig: Optional[CameraRig] = None,
                stereo: Optional[Any] = None) -> Tuple[Tensor, Tensor]:
        """Lifts one frame.

        Args:
            img_feats: (B, N, in_channels, h, w).
            rig: of this frame, matrices (B, N, 4, 4).
            bev_aug_matrix: (B, 4, 4), key ego frame -> augmented key ego frame.
            key_rig: of the key frame, for the depth net of an earlier frame; ``rig`` by default.
            stereo: :class:`StereoReference` for a stereo transformer; ignored by the others.

        Returns:
            volume (B, C, Z, Y, X) float32 and depth probabilities (B, N, D, h, w) float32.

        Raises:
            ValueError: the features do not have the shape that the configuration implies.
        """
        feats = self.reduce(img_feats, rig)
        matching = self.match(feats, rig, stereo)
        return self.lift(feats, matching, rig, bev_aug_matrix, key_rig)

    def reduce(self, img_feats: Tensor, rig: CameraRig) -> Tensor:
        """(BN, C', h, w): the part of :meth:`forward` that looks at this frame's images alone."""
        self._check(img_feats, rig)
        return self.depth_net(img_feats.flatten(0, 1))

    def match(self, feats: Tensor, rig: CameraRig, stereo: Optional[Any]) -> Optional[Tensor]:
        """(BN, D, h, w): the part that compares with the frame before. None: no stereo here.

        Args:
            feats: of :meth:`reduce`.
            rig, stereo: as in :meth:`forward`.
        """
        return None

    def lift(self, feats: Tensor, matching: Optional[Tensor], rig: CameraRig,
             bev_aug_matrix: Tensor, key_rig: Optional[CameraRig] = None) -> Tuple[Tensor, Tensor]:
        """The part that depends on the key frame: a stream runs it anew for a frame it has seen.

        Args:
            feats, matching: of :meth:`reduce` and :meth:`match`.
            rig, bev_aug_matrix, key_rig: as in :meth:`forward`.

        Returns:
            As :meth:`forward`.
        """
        logits, context = self._decode(feats, matching, rig, bev_aug_matrix, key_rig)
        shape = rig.cam2img.shape[:2]
        depth = logits.float().softmax(dim=1).unflatten(0, shape)
        return self.splat(depth, context.float().unflatten(0, shape), rig, bev_aug_matrix), depth

    def _decode(self, feats: Tensor, matching: Optional[Tensor], rig: CameraRig,
                bev_aug_matrix: Tensor, key_rig: Optional[CameraRig]) -> Tuple[Tensor, Tensor]:
        """Depth logits (BN, D, h, w) and context (BN, C, h, w)."""
        return feats[:, :self.num_depths], feats[:, self.num_depths:]

    def points(self, rig: CameraRig, bev_aug_matrix: Tensor) -> Tensor:
        """(B, N, D, h, w, 3) float32 metres: the frustum in the augmented key ego frame."""
        depths = self.depth_edges[:-1].to(rig.device)
        frustum = make_frustum(depths, self.input_size, self.feature_size)
        return frustum_to_ego(frustum, lift_matrices(rig, bev_aug_matrix)).float()

    def splat(self, depth: Tensor, context: Tensor, rig: CameraRig,
              bev_aug_matrix: Tensor) -> Tensor:
        """Sums depth-weighted context into the grid.

        Args:
            depth: (B, N, D, h, w) probabilities.
            context: (B, N, C, h, w).
            rig, bev_aug_matrix: as in :meth:`forward`.

        Returns:
            (B, C, Z, Y, X), or (B, Z * C, Y, X) with ``collapse_z``.
        """
        points = self.points(rig, bev_aug_matrix).to(depth.device)
        with torch.autocast(depth.device.type, enabled=False):
            volume = lift_splat(depth, context, points, self.grid, truncate=self.truncate,
                                backend=self.backend)
        return volume.transpose(1, 2).flatten(1, 2) if self.collapse_z else volume

    def _check(self, img_feats: Tensor, rig: CameraRig) -> None:
        check_image_features(self, img_feats, rig)


def check_image_features(transformer: nn.Module, img_feats: Tensor, rig: CameraRig) -> None:
    """Raises ValueError where features do not fit a view transformer's configuration and the rig.
    """
    batch, cameras = rig.cam2img.shape[:2]
    expected = (batch, cameras, transformer.in_channels, *transformer.feature_size)
    if rig.has_frames or tuple(img_feats.shape) != expected:
        raise ValueError(
            f'{type(transformer).__name__}: image features have shape {tuple(img_feats.shape)}, '
            f'expected {expected} from a rig of {tuple(rig.cam2img.shape)} (one frame), '
            f'input_size {transformer.input_size}, downsample {transformer.downsample}')
