"""Geometry of the lift: depth bins, frustum, and the matrices between pixels and the ego frame.

Everything here is float64 and free of parameters: global poses lie kilometres from their origin,
and the whole frustum of six cameras is a third of a million points, so precision costs nothing.

Legend: B batch, N cameras, D depth bins, h/w feature height and width. An *augmented* pixel is one
of the image the network sees (``img_aug_matrix`` applied); integer = pixel centre.
The published frustum puts the outermost feature cells on the outermost pixels,
``u = linspace(0, W - 1, w)``.
"""
from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from langocc.structures import CameraRig

NUM_CAMERA_PARAMETERS = 27


def depth_edges(depth: Sequence[float], sid: bool = False) -> Tensor:
    """Edges of the depth bins.

    Args:
        depth: ``grid_config['depth']`` = (low, high, step) in metres.
        sid: spacing-increasing discretisation (DORN, Fu et al. 2018): as many bins, their edges
            spaced evenly in log depth.

    Returns:
        (D + 1,) float64 metres, increasing; the frustum's points lie on the first D, the lower
        edges.

    Raises:
        ValueError: the range is empty, not positive, or not a whole number of steps.
    """
    low, high, step = (float(value) for value in depth)
    if not 0 < low < high or step <= 0:
        raise ValueError(f"grid_config['depth'] = {list(depth)}: expected 0 < low < high, step > 0")
    bins = round((high - low) / step)
    if abs(low + bins * step - high) > 1e-6 * high:
        raise ValueError(f"grid_config['depth'] = {list(depth)}: {high - low:g} m is not a whole "
                         f'number of {step:g} m steps')
    index = torch.arange(bins + 1, dtype=torch.float64, device='cpu')
    return low * (high / low)**(index / bins) if sid else low + index * step


def make_frustum(depths: Tensor, input_size: Sequence[int],
                 feature_size: Sequence[int]) -> Tensor:
    """Where each feature cell looks, at each depth.

    Args:
        depths: (D,) metres.
        input_size: (H, W) of the network's image, pixels.
        feature_size: (h, w).

    Returns:
        (D, h, w, 3) float64: augmented pixel u, v and z-depth in metres.
    """
    device = depths.device
    rows = torch.linspace(0, input_size[0] - 1, feature_size[0], dtype=torch.float64, device=device)
    cols = torch.linspace(0, input_size[1] - 1, feature_size[1], dtype=torch.float64, device=device)
    d, v, u = torch.meshgrid(depths.double(), rows, cols, indexing='ij')
    return torch.stack([u, v, d], dim=-1)


def _scaled_augmentation(img_aug_matrix: Tensor) -> Tensor:
    """Image augmentation for scaled pixels.

    ``img_aug_matrix`` acts on (u, v, d, 1), its translation in column 3. What is projected is
    (u d, v d, d, 1), where the translation is multiplied by depth: it moves to column 2.
    """
    scaled = torch.eye(4, dtype=torch.float64, device=img_aug_matrix.device)
    scaled = scaled.expand(img_aug_matrix.shape).clone()
    scaled[..., :2, :2] = img_aug_matrix[..., :2, :2]
    scaled[..., :2, 2] = img_aug_matrix[..., :2, 3]
    return scaled


def _camera_to_augmented(rig: CameraRig) -> Tensor:
    """(B, N, 4, 4): camera frame -> (u d, v d, d, 1) with (u, v) an augmented pixel."""
    return _scaled_augmentation(rig.img_aug_matrix) @ rig.cam2img


def lift_matrices(rig: CameraRig, bev_aug_matrix: Tensor) -> Tensor:
    """Scaled augmented pixels -> augmented key ego frame.

    Args:
        rig: of one frame, matrices (B, N, 4, 4).
        bev_aug_matrix: (B, 4, 4).

    Returns:
        (B, N, 4, 4) float64; acts on (u d, v d, d, 1) and gives metres.
    """
    bev_aug = bev_aug_matrix.to(rig.cam2img)[:, None]
    return bev_aug @ rig.cam2key() @ torch.linalg.inv(_camera_to_augmented(rig))


def ego_to_pixels(rig: CameraRig, bev_aug_matrix: Tensor) -> Tensor:
    """Augmented key ego frame -> scaled augmented pixels: :func:`lift_matrices` the other way.

    What mmdet3d calls ``lidar2img``.

    Args:
        rig: of one frame, matrices (B, N, 4, 4).
        bev_aug_matrix: (B, 4, 4).

    Returns:
        (B, N, 4, 4) float64; metres -> (u d, v d, d, 1) with (u, v) an augmented pixel.
    """
    undo = torch.linalg.inv(bev_aug_matrix.to(rig.cam2img))
    return _scaled_augmentation(rig.img_aug_matrix) @ rig.key2img() @ undo[:, None]


def frustum_to_ego(frustum: Tensor, matrices: Tensor) -> Tensor:
    """Points of the frustum in the augmented key ego frame.

    Args:
        frustum: (D, h, w, 3) of :func:`make_frustum`.
        matrices: (B, N, 4, 4) of :func:`lift_matrices`.

    Returns:
        (B, N, D, h, w, 3) float64 metres.
    """
    depth = frustum[..., 2:]
    scaled = torch.cat([frustum[..., :2] * depth, depth, torch.ones_like(depth)], dim=-1)
    points = scaled.reshape(-1, 4).double() @ matrices[..., :3, :].transpose(-1, -2)
    return points.reshape(*matrices.shape[:2], *frustum.shape)


def stereo_warps(rig: CameraRig, prev_rig: CameraRig) -> Tensor:
    """Scaled augmented pixels of one frame -> those of the previous frame of the same camera.

    Each camera moves through its own ego poses at its own two times; BEV augmentation has no part.

    Args:
        rig: current frame, matrices (B, N, 4, 4).
        prev_rig: previous frame, likewise.

    Returns:
        (B, N, 4, 4) float64: ``q = warp @ (u d, v d, d, 1)``; the previous augmented pixel is
        ``q[:2] / q[2]`` and ``q[2]`` its z-depth in metres there.
    """
    to_previous = torch.linalg.solve(prev_rig.cam2global(), rig.cam2global())
    return (_camera_to_augmented(prev_rig) @ to_previous
            @ torch.linalg.inv(_camera_to_augmented(rig)))


def camera_parameters(rig: CameraRig, bev_aug_matrix: Tensor,
                      key_rig: Optional[CameraRig] = None) -> Tensor:
    """The 27 numbers that tell the depth net which camera it looks through.

    Args:
        rig: of the frame that is lifted, matrices (B, N, 4, 4).
        bev_aug_matrix: (B, 4, 4).
        key_rig: of the key frame; an earlier frame gets its camera-to-key-ego matrix (the
            published rule), ``rig``'s own without it.

    Returns:
        (B, N, 27) float32: fx, fy, cx, cy; image augmentation r00, r01, tx, r10, r11, ty; BEV
        augmentation 00, 01, 10, 11, 22; camera -> key ego, 3 x 4 row-wise, metres: as
        published.
    """
    cam2img, img_aug = rig.cam2img, rig.img_aug_matrix
    bev_aug = bev_aug_matrix.to(cam2img)[:, None].expand_as(cam2img)
    cam2key = (key_rig or rig).cam2key()
    numbers = _entries(cam2img, (0, 0), (1, 1), (0, 2), (1, 2))
    numbers += _entries(img_aug, (0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 3))
    numbers += _entries(bev_aug, (0, 0), (0, 1), (1, 0), (1, 1), (2, 2))
    parameters = torch.cat([torch.stack(numbers, dim=-1), cam2key[..., :3, :].flatten(-2)], dim=-1)
    return parameters.float()


def _entries(matrices: Tensor, *places: Tuple[int, int]) -> list:
    return [matrices[..., row, column] for row, column in places]
