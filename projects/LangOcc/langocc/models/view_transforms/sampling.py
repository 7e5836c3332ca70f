"""Lifting by sampling: every voxel reads the image features at the pixels it projects to.

Legend: B batch, N cameras, C channels, h/w feature height and width, V = Z * Y * X voxels.
Source: ImVoxelNet (Rukhovich et al., WACV 2022) and Simple-BEV (Harley et al., ICRA 2023), which
found it as good as splatting over a learned depth.
"""
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from langocc.structures import CameraRig
from voxelrender import VoxelGrid

from .frustum import ego_to_pixels
from .lss import check_image_features

# Metres along the optical axis: what is nearer lies behind the lens.
_MIN_DEPTH = 0.1


@MODELS.register_module()
class SamplingViewTransformer(BaseModule):
    """Each voxel takes the mean, over the cameras that see it, of the features at its pixel.

    There is no depth to learn before a voxel hears of its image, which short trainings from
    scratch thank; that a whole line of sight reads the same features is left to what follows. A
    last channel says whether any camera sees the voxel.

    Projection is float64 and needs no buffers. It has the interface of
    :class:`LSSViewTransformer`, but no depth distribution: no depth loss, no stereo.

    Args:
        grid_config: dict(x=, y=, z=), each (low, high, step) in metres.
        input_size: (H, W) of the network's images, pixels.
        downsample: image pixels a feature cell; cell c is centred on pixel
            ``downsample * c + (downsample - 1) / 2``.
        in_channels: of the image features.
        out_channels: C of the volume, the channel of visibility included.
        init_cfg: see mmengine.

    Raises:
        ValueError: fewer than 2 ``out_channels``.
    """

    def __init__(self, grid_config: Dict[str, Sequence[float]], input_size: Sequence[int],
                 downsample: int = 16, in_channels: int = 512, out_channels: int = 64,
                 init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        if out_channels < 2:
            raise ValueError('SamplingViewTransformer: out_channels must be at least 2 (one says '
                             f'whether a camera sees the voxel), got {out_channels}')
        self.grid = VoxelGrid.from_grid_config(grid_config)
        self.input_size = tuple(input_size)
        self.downsample = downsample
        self.feature_size = tuple(-(-size // downsample) for size in input_size)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.project = nn.Sequential(
            nn.Conv2d(in_channels, out_channels - 1, 1, bias=False),
            nn.BatchNorm2d(out_channels - 1))

    @property
    def image_channels(self) -> int:
        """Channels of what :meth:`reduce` gives."""
        return self.out_channels - 1

    def forward(self, img_feats: Tensor, rig: CameraRig, bev_aug_matrix: Tensor,
                key_rig: Optional[CameraRig] = None, stereo: Optional[Any] = None
                ) -> Tuple[Tensor, None]:
        """Lifts one frame.

        Args:
            img_feats: (B, N, in_channels, h, w).
            rig: of this frame, matrices (B, N, 4, 4).
            bev_aug_matrix: (B, 4, 4), key ego frame -> augmented key ego frame.
            key_rig, stereo: not used; see :class:`LSSViewTransformer`.

        Returns:
            volume (B, C, Z, Y, X) float32, and None: there are no depth probabilities.

        Raises:
            ValueError: the features do not have the shape that the configuration implies.
        """
        return self.lift(self.reduce(img_feats, rig), None, rig, bev_aug_matrix)

    def reduce(self, img_feats: Tensor, rig: CameraRig) -> Tensor:
        """(BN, C - 1, h, w): the part of :meth:`forward` that looks at this frame's images alone.
        """
        check_image_features(self, img_feats, rig)
        return self.project(img_feats.flatten(0, 1))

    def match(self, feats: Tensor, rig: CameraRig, stereo: Optional[Any]) -> None:
        """None: no stereo here."""
        return None

    def lift(self, feats: Tensor, matching: None, rig: CameraRig, bev_aug_matrix: Tensor,
             key_rig: Optional[CameraRig] = None) -> Tuple[Tensor, None]:
        """The part that depends on the key frame, see :meth:`forward`; ``feats`` of ``reduce``."""
        batch, cameras = rig.cam2img.shape[:2]
        feats = feats.float().unflatten(0, (batch, cameras))
        to_pixels = ego_to_pixels(rig, bev_aug_matrix)
        centers = self.grid.voxel_centers(to_pixels.device, torch.float64).reshape(-1, 3)
        with torch.autocast(feats.device.type, enabled=False):
            volumes = [self._sample(feats[item], to_pixels[item], centers)
                       for item in range(batch)]
        return torch.stack(volumes), None

    def _sample(self, feats: Tensor, to_pixels: Tensor, centers: Tensor) -> Tensor:
        """Volume (C, Z, Y, X) of one item: features (N, C - 1, h, w), places (V, 3)."""
        ids, rows = [], []
        for image, matrix in zip(feats, to_pixels):
            seen, pixels = project_points(centers, matrix, self.input_size)
            ids.append(seen)
            rows.append(sample_pixels(image, pixels, self.downsample))
        index, rows = torch.cat(ids), torch.cat(rows)
        counts = rows.new_zeros(len(centers)).index_add(0, index, rows.new_ones(len(index)))
        total = rows.new_zeros(len(centers), rows.shape[1]).index_add(0, index, rows)
        mean = total / counts.clamp(min=1)[:, None]
        volume = torch.cat([mean, (counts > 0)[:, None].to(mean)], dim=1)
        return volume.t().unflatten(1, self.grid.volume_shape)


def project_points(points: Tensor, matrix: Tensor, input_size: Sequence[int]
                   ) -> Tuple[Tensor, Tensor]:
    """Points that an image sees, and where.

    Args:
        points: (P, 3) float64 metres, augmented key ego frame.
        matrix: (4, 4) float64 of :func:`ego_to_pixels`.
        input_size: (H, W) pixels of the network's image.

    Returns:
        indices (S,) of the points before the camera whose pixel lies in the image, and their
        augmented pixels (S, 2) float64, integer = pixel centre.
    """
    scaled = points @ matrix[:3, :3].T + matrix[:3, 3]
    depth = scaled[:, 2]
    pixels = scaled[:, :2] / depth.clamp(min=_MIN_DEPTH)[:, None]
    limits = pixels.new_tensor([input_size[1] - 0.5, input_size[0] - 0.5])
    inside = (depth > _MIN_DEPTH) & ((pixels >= -0.5) & (pixels <= limits)).all(dim=1)
    index = inside.nonzero()[:, 0]
    return index, pixels[index]


def sample_pixels(feats: Tensor, pixels: Tensor, downsample: int) -> Tensor:
    """Features (P, C) of a map (C, h, w) at augmented pixels (P, 2), bilinear.

    Cell c of the map is centred on pixel ``downsample * c + (downsample - 1) / 2``; beyond the
    outermost centres their features go on.
    """
    size = pixels.new_tensor([feats.shape[2], feats.shape[1]]) * downsample
    places = ((pixels + 0.5) / size * 2 - 1).to(feats.dtype)
    sampled = F.grid_sample(feats[None], places[None, None], align_corners=False,
                            padding_mode='border')
    return sampled[0, :, 0].t()
