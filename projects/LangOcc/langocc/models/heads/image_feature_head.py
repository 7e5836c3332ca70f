"""ImageFeatureHead: vision-language features of pixels, beside those of voxels.

Legend: B batch, N cameras, C channels, h/w feature height and width, R rays, E embedding.
"""
from typing import Callable, Dict, List, Optional, Sequence

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from voxelrender import RayBundle

from ...structures import CameraRig
from ..losses import FeatureDistance
from ..view_transforms import ego_to_pixels, project_points, sample_pixels

# Metres along a ray to the point that is projected: any place before the camera will do.
_FAR = 10.


@MODELS.register_module()
class ImageFeatureHead(BaseModule):
    """Teaches the image network the teacher's features in the key frame's own pixels.

    The teacher knows what every pixel shows; rendering passes that on to the image network only
    through a geometry that is not there yet. This auxiliary loss (of training alone: prediction
    does not use it) says it directly: a two-layer MLP on the features that are lifted predicts
    the teacher's at pixels of the key frame. Not in the paper.

    The pixels are rays in data samples' ``gt_image_rays`` (``PrepareRays(name='image_rays',
    source=dict(type='CameraPixelSource', key_frame_share=1.))``); those of other frames and those
    that augmentation moved out of the image are left out.

    Args:
        in_channels: of the features that are lifted, ``image_channels`` of the view transformer.
        embed_dims: E, as of the language decoder.
        input_size: (H, W) of the network's images, pixels.
        downsample: image pixels a feature cell.
        hidden_channels: of the MLP.
        mode: see :class:`FeatureDistance`.
        loss_weight: factor of the loss.
        init_cfg: see mmengine.
    """

    def __init__(self, in_channels: int, embed_dims: int, input_size: Sequence[int],
                 downsample: int, hidden_channels: int = 64, mode: str = 'centered_cosine',
                 loss_weight: float = 1., init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        self.input_size, self.downsample = tuple(input_size), downsample
        self.layers = nn.Sequential(nn.ReLU(), nn.Linear(in_channels, hidden_channels), nn.ReLU(),
                                    nn.Linear(hidden_channels, embed_dims))
        self.distance = FeatureDistance(mode)
        self.loss_weight = loss_weight

    def forward(self, feats: Tensor) -> Tensor:
        """Features (R, C) at pixels -> unit vision-language features (R, E), float32."""
        return F.normalize(self.layers(feats).float(), dim=-1, eps=1e-12)

    def loss(self, feats: Tensor, rig: CameraRig, bev_aug_matrix: Tensor,
             rays: List[RayBundle], reduce: Callable[[Tensor], Tensor]) -> Dict[str, Tensor]:
        """``loss_image`` of a batch, connected to the graph even where no pixel is left.

        Args:
            feats: (B, N, C, h, w) of the key frame.
            rig: of the key frame, matrices (B, N, 4, 4).
            bev_aug_matrix: (B, 4, 4).
            rays: B bundles in the augmented key ego frame, with target ``lang_feats``.
            reduce: teacher's features -> the space of ``embed_dims``.

        Raises:
            KeyError: rays without the target.
            ValueError: targets of another dimension than ``embed_dims``.
        """
        to_pixels = ego_to_pixels(rig, bev_aug_matrix)
        rows, targets = [], []
        for item, bundle in enumerate(rays):
            if 'lang_feats' not in bundle.targets:
                raise KeyError("ImageFeatureHead needs the ray target 'lang_feats', the rays carry "
                               f'{sorted(bundle.targets)}: add it to targets of PrepareRays')
            for camera, image in enumerate(feats[item]):
                found, places = self._pixels(bundle, camera, to_pixels[item, camera])
                rows.append(sample_pixels(image.float(), places, self.downsample))
                targets.append(bundle.targets['lang_feats'][found])
        pred, target = self(torch.cat(rows)), reduce(torch.cat(targets))
        if pred.shape != target.shape:
            raise ValueError(f'ImageFeatureHead: embed_dims gives features {tuple(pred.shape)}, '
                             f'the teacher (reduced) {tuple(target.shape)}')
        total = self.distance(pred, target).sum()
        return dict(loss_image=self.loss_weight * total / max(len(pred), 1))

    def _pixels(self, rays: RayBundle, camera: int, matrix: Tensor):
        """Key-frame rays of a camera that the network's image shows, and their pixels (S, 2)."""
        mine = ((rays.camera_ids == camera) & (rays.frame_ids == 0)).nonzero()[:, 0]
        points = rays.origins[mine].double() + _FAR * rays.directions[mine].double()
        seen, places = project_points(points, matrix, self.input_size)
        return mine[seen], places
