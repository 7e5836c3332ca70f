"""A whole prediction in the published layout, written plainly in torch.

What `LangOcc.predict` is compared with, in results and in time. The layers and their weights are
the detector's own; what differs is the order and the amount of work:

- a cost volume in 64 passes of ``grid_sample``, four channels at a time at all depths;
- lift-splat pooling by sort and running sum;
- the 3D neck upsamples, concatenates 224 channels and convolves those;
- every voxel's density and language are decoded, normalised and compared with all prompts.

Legend: B batch, N cameras (folded: BN), F frames, C channels, D depth bins, h/w feature map, K
prompts, V voxels.
"""
from contextlib import nullcontext
from typing import Callable, ContextManager, Dict, Optional

import torch
import torch.nn.functional as F
from lift_cumsum import lift_splat_cumsum
from torch import Tensor, nn

from langocc.models.view_transforms import camera_parameters, stereo_warps
from langocc.structures import CameraRig

GROUP = 4  # channels a pass of the cost volume
FREE = 17
Stage = Callable[[str], ContextManager]


@torch.no_grad()
def published_prediction(model: nn.Module, inputs: dict, stage: Stage = lambda name: nullcontext(),
                         dtype: torch.dtype = torch.float32) -> Dict[str, Tensor]:
    """Predicts a batch.

    Args:
        model: a LangOcc in eval mode, with a vocabulary.
        inputs: ``imgs`` (B, F, N, 3, H, W), ``rig`` and ``bev_aug_matrix``.
        stage: name -> context that a stage of the work is done in.
        dtype: of cost volume and pooling. In float32 their roundings (of places between -1 and 1,
            of a sum that runs over all points) are the largest there are.

    Returns:
        volume (B, C, Z, Y, X) before the head, densities (B, Z, Y, X) in 1/m, scores (B, V, K)
        cosines, classes (B, Z, Y, X) uint8.
    """
    volume = published_volume(model, inputs, stage, dtype)
    return dict(volume=volume, **_head(model.occ_head, volume, stage))


def published_volume(model: nn.Module, inputs: dict, stage: Stage = lambda name: nullcontext(),
                     dtype: torch.dtype = torch.float32) -> Tensor:
    """Voxel features (B, C, Z, Y, X) before the head; the gradient passes the key frame only.

    Args:
        model, inputs, stage, dtype: see :func:`published_prediction`.
    """
    imgs, rig, bev_aug = inputs['imgs'], inputs['rig'], inputs['bev_aug_matrix']
    previous = None
    if model.stereo:
        with stage('backbone'), torch.no_grad():
            previous = _stride4(model.img_backbone, imgs[:, model.num_adj + 1].flatten(0, 1))
    volumes = []
    for index in range(model.num_adj, -1, -1):
        with torch.set_grad_enabled(torch.is_grad_enabled() and index == 0):
            with stage('backbone'):
                outputs = model.img_backbone(imgs[:, index].flatten(0, 1))
                current, outputs = (outputs[0], outputs[1:]) if model.stereo else (None, outputs)
                feats = model.img_neck(outputs)[0]
            volumes.append(_lift(model, feats, current, previous, rig, index, bev_aug, stage,
                                 dtype))
        previous = current
    with stage('3D encoder'):
        levels = model.img_bev_encoder_backbone(torch.cat(volumes, dim=1))
    with stage('3D neck'):
        return _neck(model.img_bev_encoder_neck, levels)


def _stride4(backbone: nn.Module, images: Tensor) -> Tensor:
    """Stem, max pooling and first stage of a ResNet."""
    feats = backbone.maxpool(backbone.relu(backbone.norm1(backbone.conv1(images))))
    return backbone.layer1(feats)


def _lift(model: nn.Module, feats: Tensor, current: Optional[Tensor], previous: Optional[Tensor],
          rig: CameraRig, index: int, bev_aug: Tensor, stage: Stage, dtype: torch.dtype) -> Tensor:
    """Volume (B, C, Z, Y, X) of frame ``index``."""
    net, frame, cost = model.img_view_transformer, rig.frame(index), None
    if current is not None:
        with stage('cost volume'), torch.no_grad():
            cost = cost_volume_by_groups(net, current.to(dtype), previous.to(dtype), frame,
                                         rig.frame(index + 1)).float()
    with stage('depth net'):
        parameters = camera_parameters(frame, bev_aug, rig.frame(0)).flatten(0, 1)
        logits, context = net.depth_net(feats, parameters, cost)
        shape = frame.cam2img.shape[:2]
        depth, context = logits.softmax(1).unflatten(0, shape), context.unflatten(0, shape)
    with stage('splat'):
        volume = lift_splat_cumsum(depth.to(dtype), context.to(dtype), net.points(frame, bev_aug),
                                   net.grid).float()
    with stage('pre-process'):
        return volume if model.pre_process_net is None else model.pre_process_net(volume)[0]


def cost_volume_by_groups(net: nn.Module, current: Tensor, previous: Tensor, rig: CameraRig,
                          prev_rig: CameraRig) -> Tensor:
    """Softmax (BN, D, h, w) of minus the L1 distance to the warped features, four at a time.

    Args:
        net: view transformer: depth bins, image size, bias.
        current, previous: (BN, C, h, w) stride-4 features.
        rig, prev_rig: of the two frames, matrices (B, N, 4, 4).
    """
    images, channels, height, width = current.shape
    depths = net.depth_edges[:-1].float()
    grid, invalid = _warp_grid(stereo_warps(rig, prev_rig).flatten(0, 1), depths, (height, width),
                               net.input_size)
    grid = grid.to(current)
    cost = current.new_zeros(images, len(depths), height, width)
    for start in range(0, channels, GROUP):
        part = slice(start, start + GROUP)
        warped = F.grid_sample(previous[:, part], grid, align_corners=True)
        warped = warped.view(images, -1, len(depths), height, width)
        cost += (warped - current[:, part, None]).abs().sum(1)
    cost += net.cost_bias * invalid
    return (-cost).softmax(1)


def _warp_grid(warps: Tensor, depths: Tensor, size: tuple, image_size: tuple):
    """Where to read, (BN, D * h, w, 2) in [-1, 1], and what is not there, (BN, D, h, w)."""
    v = torch.linspace(0, image_size[0] - 1, size[0], dtype=torch.float64)
    u = torch.linspace(0, image_size[1] - 1, size[1], dtype=torch.float64)
    d, v, u = torch.meshgrid(depths.double(), v, u, indexing='ij')
    points = torch.stack([u * d, v * d, d, torch.ones_like(d)], -1).view(-1, 4)
    warped = points @ warps[:, :3].transpose(1, 2)
    behind = warped[..., 2] <= 1e-3
    pixels = warped[..., :2] / torch.where(behind, 1., warped[..., 2])[..., None]
    limits = torch.tensor([image_size[1], image_size[0]])
    outside = ((pixels < -0.5) | (pixels > limits - 0.5)).any(-1)
    places = pixels / (limits - 1) * 2 - 1
    places[behind] = -4.
    invalid = (behind | outside).view(-1, *d.shape)
    return places.view(len(warps), -1, size[1], 2), invalid


def _neck(neck: nn.Module, levels: list) -> Tensor:
    """Upsamples every level to the finest grid, concatenates, convolves."""
    size = levels[0].shape[-3:]
    levels = [level if level.shape[-3:] == size else F.interpolate(
        level, size=size, mode='trilinear', align_corners=True) for level in levels]
    return neck.conv(torch.cat(levels, dim=1))


def _head(head: nn.Module, volume: Tensor, stage: Stage) -> Dict[str, Tensor]:
    """Decodes everything everywhere."""
    with stage('final conv'):
        feats = head.final_conv(volume)
    with stage('density'):
        rows = feats.permute(0, 2, 3, 4, 1).contiguous()
        densities = head.density_decoder.layers(rows)[..., 0].sigmoid()
    with stage('language'):
        language = F.normalize(head.language_decoder.layers(rows), dim=-1)
        scores = language @ head.vocabulary.text_embeds.t()
        classes = head.vocabulary.prompt_to_class[scores.argmax(-1)].to(torch.uint8)
        classes[densities < head.density_threshold] = FREE
    return dict(densities=densities, scores=scores.flatten(1, 3), classes=classes)
