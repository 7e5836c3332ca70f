"""LangOcc: surround cameras -> voxel field of density and language (arXiv 2407.17310).

Legend: B batch, F frames, N cameras, C channels.
"""
from typing import Dict, Optional, Tuple

import torch
from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.utils import OptConfigType
from torch import Tensor

from ..structures import CameraRig
from .backbones import extract_stride4
from .streaming import FrameFeatures, StreamState
from .view_transforms import StereoReference
from .volumes import check_same_range
from .voxel_field import VoxelField

# Where the head owns what the published model owns itself. The one difference in parameter names.
PUBLISHED_PREFIXES = {
    'occ_head.final_conv': 'final_conv',
    'occ_head.density_decoder': 'density_decoder',
    'occ_head.language_decoder': 'language_decoder',
    'occ_head.predicter': 'predicter',  # BEVDet-Occ's
}


def published_name(name: str) -> str:
    """Name in the published checkpoint of our parameter or buffer ``name``."""
    for ours, theirs in PUBLISHED_PREFIXES.items():
        if name.startswith(f'{ours}.'):
            return theirs + name[len(ours):]
    return name


@MODELS.register_module()
class LangOcc(Base3DDetector):
    """Lift-splat detector with a rendering head.

    Frames of a sample come newest first: the key frame, ``num_adj`` earlier frames that are lifted
    too, and with ``stereo`` one more that serves as stereo reference of the oldest lifted frame.
    Every volume is in the key ego frame. Gradients flow through the key frame only (the paper).

    Args:
        img_backbone: image backbone; its first output must be at stride 4 when ``stereo``.
        img_neck: neck on its remaining outputs.
        img_view_transformer: lifts image features to a volume.
        pre_process: 3D network applied to each frame's volume (None: none).
        img_bev_encoder_backbone, img_bev_encoder_neck: 3D encoder on the concatenated volumes; its
            neck may be None where the backbone's first output is what the head reads.
        occ_head: the head.
        num_adj: earlier frames that are lifted (paper: 1).
        stereo: whether the view transformer takes a stereo reference.
        image_head: config of an :class:`ImageFeatureHead`, an auxiliary loss on the key frame's
            image features; None: no such loss, as in the paper.
        volume_skip: concatenate what the 3D encoder was given to what it gives, so that heads also
            read the lifted features themselves; the paper does not.
        data_preprocessor, init_cfg: see mmengine.

    Raises:
        ValueError: the view transformer's grid and the head's lie in different places, or the 3D
            encoder cannot divide the grid.
    """

    def __init__(self, img_backbone: dict, img_neck: dict, img_view_transformer: dict,
                 img_bev_encoder_backbone: dict, img_bev_encoder_neck: Optional[dict],
                 occ_head: dict, pre_process: Optional[dict] = None, num_adj: int = 1,
                 stereo: bool = True, image_head: Optional[dict] = None,
                 volume_skip: bool = False,
                 data_preprocessor: OptConfigType = None, init_cfg: OptConfigType = None):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.img_view_transformer = MODELS.build(img_view_transformer)
        self.pre_process_net = None if pre_process is None else MODELS.build(pre_process)
        self.img_bev_encoder_backbone = MODELS.build(img_bev_encoder_backbone)
        self.img_bev_encoder_neck = (
            None if img_bev_encoder_neck is None else MODELS.build(img_bev_encoder_neck))
        self.image_head = None if image_head is None else MODELS.build(image_head)
        self.volume_skip = volume_skip
        self.occ_head = MODELS.build(occ_head)
        check_same_range(getattr(self.img_view_transformer, 'grid', None),
                         getattr(self.occ_head, 'grid', None), 'img_view_transformer')
        self.num_adj = num_adj
        self.stereo = stereo
        check_grid = getattr(self.img_bev_encoder_backbone, 'check_grid', None)
        if check_grid is not None:  # at once, rather than in the first forward pass
            check_grid(self.img_view_transformer.grid.volume_shape)

    # --------------------------------------------------------------- features

    def extract_feat(self, batch_inputs_dict: dict, batch_data_samples: Optional[list] = None
                     ) -> Tensor:
        """Voxel features (B, C, Z, Y, X) of a batch, key ego frame."""
        return self.extract_volume(batch_inputs_dict)[0]

    def extract_volume(self, batch_inputs_dict: dict, stream: Optional[StreamState] = None
                       ) -> Tuple[Tensor, Optional[Tensor]]:
        """Voxel features (B, C, Z, Y, X) and key-frame depth probabilities (B, N, D, h, w).

        ``stream``: what is kept of the samples before, in prediction. Frames that it knows are
        only lifted anew, into this key ego frame; the result is the same. A view transformer that
        does without depth gives None for it.
        """
        volume, depth, _ = self._extract(batch_inputs_dict, stream)
        return volume, depth

    def _extract(self, batch_inputs_dict: dict, stream: Optional[StreamState] = None
                 ) -> Tuple[Tensor, Optional[Tensor], FrameFeatures]:
        """As :meth:`extract_volume`, and the key frame."""
        imgs, rig = batch_inputs_dict['imgs'], batch_inputs_dict['rig']
        bev_aug = batch_inputs_dict['bev_aug_matrix']
        self._check_frames(imgs)
        if stream is not None:
            stream.begin(self, imgs.device)
        reference = None
        if self.stereo:
            with torch.no_grad():
                reference = self._reference(imgs, rig, stream)
        volumes, depth = [], None
        for index in range(self.num_adj, -1, -1):  # oldest first: each refers to the one before
            with torch.set_grad_enabled(torch.is_grad_enabled() and index == 0):
                frame = self._frame(imgs, rig, index, reference, stream)
                volume, depth = self._lift(frame, rig.frame(index), rig.frame(0), bev_aug)
            volumes.append(volume)
            reference = frame if self.stereo else None
        if stream is not None:
            stream.end()
        volume = torch.cat(volumes, dim=1)  # published order: [t-1, t]
        return self._encode(volume), depth, frame

    def _check_frames(self, imgs: Tensor) -> None:
        expected = 1 + self.num_adj + int(self.stereo)
        if imgs.ndim != 6 or imgs.shape[1] != expected:
            raise ValueError(
                f'imgs must be (B, F, N, 3, H, W) with F = {expected} (key, {self.num_adj} '
                f'adjacent, {int(self.stereo)} stereo reference), got {tuple(imgs.shape)}: '
                'multi_adj_frame_id_cfg and stereo of the data set must fit num_adj and stereo of '
                'the model')

    def _reference(self, imgs: Tensor, rig: CameraRig, stream: Optional[StreamState]
                   ) -> FrameFeatures:
        """The frame that is only the stereo reference of the oldest lifted frame."""
        frame = _find(imgs, rig, self.num_adj + 1, stream)
        if frame.stride4 is None:
            feats = extract_stride4(self.img_backbone, frame.imgs.flatten(0, 1))
            frame.stride4 = feats.unflatten(0, frame.imgs.shape[:2])
        return frame

    def _frame(self, imgs: Tensor, rig: CameraRig, index: int, reference: Optional[FrameFeatures],
               stream: Optional[StreamState]) -> FrameFeatures:
        """All that :meth:`_lift` needs of frame ``index``."""
        frame = _find(imgs, rig, index, stream)
        known = frame.feats is not None
        if not known:
            self._look(frame)
        if reference is None:
            frame.matching = self.img_view_transformer.match(frame.feats, frame.rig, None)
        elif not frame.is_matched_to(reference):
            stereo = StereoReference(prev_feats=reference.stride4, cur_feats=frame.stride4,
                                     prev_rig=reference.rig)
            frame.match_to(reference, self.img_view_transformer.match(
                frame.feats, frame.rig, stereo))
        if stream is not None:
            stream.count(known)
        return frame

    def _look(self, frame: FrameFeatures) -> None:
        """What the images of a frame alone give: ``feats`` and, with stereo, ``stride4``."""
        batch_shape = frame.imgs.shape[:2]
        outputs = self.img_backbone(frame.imgs.flatten(0, 1))
        if self.stereo:
            frame.stride4 = outputs[0].unflatten(0, batch_shape).detach()
            outputs = outputs[1:]
        feats = self.img_neck(outputs)
        feats = feats[0] if isinstance(feats, (list, tuple)) else feats
        frame.feats = self.img_view_transformer.reduce(feats.unflatten(0, batch_shape), frame.rig)

    def _lift(self, frame: FrameFeatures, rig: CameraRig, key_rig: CameraRig, bev_aug: Tensor
              ) -> Tuple[Tensor, Tensor]:
        """Volume of a frame and its depth probabilities; ``rig`` knows the present key frame."""
        volume, depth = self.img_view_transformer.lift(
            frame.feats, frame.matching, rig, bev_aug, key_rig=key_rig)
        if self.pre_process_net is not None:
            volume = self.pre_process_net(volume)[0]
        return volume, depth

    def _encode(self, volume: Tensor) -> Tensor:
        feats = self.img_bev_encoder_backbone(volume)
        if self.img_bev_encoder_neck is not None:
            feats = self.img_bev_encoder_neck(feats)
        feats = feats[0] if isinstance(feats, (list, tuple)) else feats
        return torch.cat([feats, volume], dim=1) if self.volume_skip else feats

    def extract_field(self, batch_inputs_dict: dict, stream: Optional[StreamState] = None
                      ) -> VoxelField:
        """The voxel field of a batch: what text queries and renderings read."""
        return self.occ_head(self.extract_volume(batch_inputs_dict, stream)[0])

    # --------------------------------------------------------- mmdet3d's modes

    def loss(self, batch_inputs_dict: dict, batch_data_samples: list, **kwargs
             ) -> Dict[str, Tensor]:
        """Losses of the heads, and the view transformer's depth loss where it has a weight."""
        voxel_feats, depth, frame = self._extract(batch_inputs_dict)
        losses = self.occ_head.loss(voxel_feats, batch_data_samples)
        if getattr(self.img_view_transformer, 'loss_depth_weight', 0) > 0:
            losses['loss_lss_depth'] = self.img_view_transformer.get_depth_loss(
                self._gt_depth(batch_data_samples, depth.device), depth)
        if self.image_head is not None:
            losses.update(self._image_loss(frame, batch_inputs_dict, batch_data_samples))
        return losses

    def _image_loss(self, frame: FrameFeatures, batch_inputs_dict: dict,
                    batch_data_samples: list) -> Dict[str, Tensor]:
        missing = [sample.metainfo.get('token') for sample in batch_data_samples
                   if 'gt_image_rays' not in sample]
        if missing:
            raise KeyError(f'image_head needs gt_image_rays, missing in samples {missing}: add '
                           "PrepareRays(name='image_rays') to the pipeline")
        feats = frame.feats.unflatten(0, frame.imgs.shape[:2])
        return self.image_head.loss(
            feats, frame.rig, batch_inputs_dict['bev_aug_matrix'],
            [sample.gt_image_rays for sample in batch_data_samples], self.occ_head.reduce)

    @staticmethod
    def _gt_depth(batch_data_samples: list, device: torch.device) -> Tensor:
        missing = [sample.metainfo.get('token') for sample in batch_data_samples
                   if 'gt_depth' not in sample]
        if missing:
            raise KeyError(f'the LSS depth loss needs gt_depth, missing in samples {missing}: add '
                           'LoadPointsFromFile and PointToMultiViewDepth to the pipeline')
        return torch.stack([sample.gt_depth for sample in batch_data_samples]).to(device)

    def predict(self, batch_inputs_dict: dict, batch_data_samples: list,
                stream: Optional[StreamState] = None, **kwargs) -> list:
        """Data samples with ``pred_occ`` (OccData, semantics (X, Y, Z) uint8, 17 = free).

        ``stream``: see :meth:`extract_volume`.
        """
        volume, _ = self.extract_volume(batch_inputs_dict, stream)
        predictions = self.occ_head.predict(volume, batch_data_samples)
        for sample, prediction in zip(batch_data_samples, predictions):
            sample.pred_occ = prediction
        return batch_data_samples

    def _forward(self, batch_inputs_dict: dict, batch_data_samples: Optional[list] = None,
                 **kwargs) -> Tuple[Tensor, ...]:
        """Network outputs without post-processing: the head's ``outputs``."""
        return self.occ_head.outputs(self.extract_feat(batch_inputs_dict))


def _find(imgs: Tensor, rig: CameraRig, index: int, stream: Optional[StreamState]
          ) -> FrameFeatures:
    """Frame ``index`` of a batch, as the stream knows it."""
    imgs, rig = imgs[:, index], rig.frame(index)
    return FrameFeatures(imgs, rig) if stream is None else stream.frame(imgs, rig)
