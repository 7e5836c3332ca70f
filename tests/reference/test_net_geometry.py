"""Geometry of the lift, depth loss and stereo warps against naive float64 computations."""
import math

import numpy as np
import pytest
import torch

from langocc.models.view_transforms import (
    LSSViewTransformerBEVStereo, StereoReference, camera_parameters, depth_edges, frustum_to_ego,
    lift_matrices, make_frustum, stereo_warps
)
from langocc.models.view_transforms.depth_loss import (
    depth_bins, depth_distribution_loss, downsample_depth
)
from langocc.structures import CameraRig
from voxelrender import pixels_to_rays

FLIP_X = np.diag([-1., 1, 1, 1])


def rigid(rng, spread):
    """Random 4x4 rotation and translation."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    matrix[:3, 3] = rng.normal(size=3) * spread
    return matrix


def image_augmentation(rng):
    """Scale, rotation, flip and shift of (u, v, depth, 1)."""
    angle, scale = rng.uniform(-0.1, 0.1), rng.uniform(0.4, 0.6)
    matrix = np.eye(4)
    matrix[:2, :2] = scale * np.array([[-math.cos(angle), math.sin(angle)],
                                       [math.sin(angle), math.cos(angle)]])
    matrix[:2, 3] = rng.uniform(-50, 50, size=2)
    return matrix


def random_rig(batch=1, cameras=2, seed=0):
    """Rig of one frame, far from the global origin."""
    rng = np.random.default_rng(seed)
    shape = (batch, cameras)
    cam2img = np.tile(np.eye(4), (*shape, 1, 1))
    cam2img[..., 0, 0] = rng.uniform(300, 400, shape)
    cam2img[..., 1, 1] = rng.uniform(300, 400, shape)
    cam2img[..., 0, 2] = rng.uniform(150, 170, shape)
    cam2img[..., 1, 2] = rng.uniform(80, 100, shape)
    cells = [[(rigid(rng, 1), rigid(rng, 1000), image_augmentation(rng)) for _ in range(cameras)]
             for _ in range(batch)]
    matrices = np.array(cells)
    key = np.array([rigid(rng, 1000) for _ in range(batch)])
    key[:, :3, 3] = matrices[:, 0, 1, :3, 3] + 1
    return CameraRig(torch.tensor(cam2img), *(torch.tensor(matrices[:, :, i]) for i in range(3)),
                     key_ego2global=torch.tensor(key))


def test_frustum_points_against_a_naive_loop():
    rig = random_rig(batch=2)
    bev = torch.tensor(np.stack([np.eye(4), FLIP_X]), dtype=torch.float32)
    height, width = 20, 33
    frustum = make_frustum(torch.tensor([1., 7.5]), (height, width), (3, 4))
    points = frustum_to_ego(frustum, lift_matrices(rig, bev))
    assert points.shape == (2, 2, 2, 3, 4, 3) and points.dtype == torch.float64
    for index in np.ndindex(*points.shape[:-1]):
        b, n, d, i, j = index
        cell, depth = (b, n), (1., 7.5)[d]
        pixel = np.array([j * (width - 1) / 3, i * (height - 1) / 2, depth, 1])
        u, v = (np.linalg.inv(rig.img_aug_matrix[cell].numpy()) @ pixel)[:2]
        cam = np.linalg.inv(rig.cam2img[cell].numpy()[:3, :3]) @ [u * depth, v * depth, depth]
        point = rig.ego2global[cell].numpy() @ rig.cam2ego[cell].numpy() @ [*cam, 1]
        point = np.linalg.inv(rig.key_ego2global[b].numpy()) @ point
        expected = (bev[b].numpy() @ point)[:3]
        np.testing.assert_allclose(points[index].numpy(), expected, atol=1e-8)


def test_points_project_back_to_their_pixels():
    rig, bev = random_rig(batch=1), torch.tensor(FLIP_X)[None]
    frustum = make_frustum(torch.tensor([2., 40.]), (256, 704), (4, 5))
    points = frustum_to_ego(frustum, lift_matrices(rig, bev))[0]
    for camera in range(2):
        ones = torch.ones_like(points[camera][..., :1])
        ego = torch.cat([points[camera], ones], -1) @ torch.linalg.inv(bev[0]).T
        cam = ego @ torch.linalg.inv(rig.cam2key()[0, camera]).T
        image = cam @ rig.cam2img[0, camera].T
        original = torch.cat([image[..., :2] / image[..., 2:3], image[..., 2:3], ones], -1)
        augmented = original @ rig.img_aug_matrix[0, camera].T
        torch.testing.assert_close(augmented[..., :3], frustum, atol=1e-7, rtol=0)


def test_points_lie_on_the_rays_of_their_pixels():
    rig, bev = random_rig(), torch.eye(4)[None]
    frustum = make_frustum(torch.tensor([2., 9.]), (64, 96), (2, 3))
    points = frustum_to_ego(frustum, lift_matrices(rig, bev))[0, 1]
    origins, directions = pixels_to_rays(
        frustum[0, ..., :2].reshape(-1, 2), rig.cam2img[0, 1], rig.cam2key()[0, 1],
        img_aug_matrix=rig.img_aug_matrix[0, 1])
    offsets = points.reshape(2, -1, 3) - origins
    along = (offsets * directions).sum(-1, keepdim=True)
    assert (along > 0).all()
    torch.testing.assert_close(offsets, along * directions, atol=1e-6, rtol=0)


def test_frustum_of_the_published_model():
    edges = depth_edges([1.0, 45.0, 0.5])
    frustum = make_frustum(edges[:-1], (256, 704), (16, 44))
    assert frustum.shape == (88, 16, 44, 3)
    assert frustum[0, 0, 0].tolist() == [0, 0, 1]
    assert frustum[-1, -1, -1].tolist() == [703, 255, 44.5]
    assert frustum[1, 0, 1].tolist() == pytest.approx([703 / 43, 0, 1.5])


def test_depth_edges():
    assert depth_edges([1, 60, 1]).tolist() == list(range(1, 61))  # 59 bins
    sid = depth_edges([1, 16, 3.75], sid=True)
    assert sid.tolist() == pytest.approx([1, 2, 4, 8, 16])
    for depth in ([1, 45, 0.7], [45, 1, 0.5], [0, 10, 1]):
        with pytest.raises(ValueError, match='grid_config'):
            depth_edges(depth)


def test_camera_parameters_against_a_hand_written_example():
    eye = torch.eye(4, dtype=torch.float64)
    cam2img = torch.tensor([[500., 0, 320, 0], [0, 510, 180, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    img_aug = torch.tensor([[.4, -.1, 0, 7], [.2, .5, 0, 8], [0, 0, 1, 0], [0, 0, 0, 1]])
    cam2ego = torch.tensor([[0., 0, 1, 1.5], [-1, 0, 0, .25], [0, -1, 0, 1.75], [0, 0, 0, 1]])
    moved = eye.clone()
    moved[0, 3] = -2.  # the earlier frame was 2 m behind
    key = CameraRig(*(m[None, None] for m in (cam2img, cam2ego, eye, img_aug)), eye[None])
    before = CameraRig(*(m[None, None] for m in (cam2img, cam2ego, moved, img_aug)), eye[None])
    bev = torch.diag(torch.tensor([-1., 1, 1, 1]))[None]
    first = [500, 510, 320, 180, .4, -.1, 7, .2, .5, 8, -1, 0, 0, 1, 1]
    matrix = [0, 0, 1, 1.5, -1, 0, 0, .25, 0, -1, 0, 1.75]
    numbers = camera_parameters(key, bev)
    assert numbers.shape == (1, 1, 27) and numbers.dtype == torch.float32
    assert numbers[0, 0].tolist() == pytest.approx(first + matrix)
    assert camera_parameters(before, bev, key)[0, 0].tolist() == pytest.approx(first + matrix)
    matrix[3] = -.5
    assert camera_parameters(before, bev)[0, 0].tolist() == pytest.approx(first + matrix)


def test_downsample_depth_keeps_the_nearest_and_ignores_unknown():
    gt = torch.zeros(1, 1, 4, 5)
    gt[0, 0, 0, :2] = torch.tensor([9., 3.])
    gt[0, 0, 3, 4] = 6.  # the last patch is cut by the border
    original = gt.clone()
    assert downsample_depth(gt, 2)[0, 0].tolist() == [[3, 0, 0], [0, 0, 6]]
    assert torch.equal(gt, original)


def test_depth_bins_at_the_edges():
    edges = depth_edges([1, 3, 0.5])
    depth = torch.tensor([0., .99, 1., 1.49, 1.5, 2.99, 3., 50.])
    assert depth_bins(depth, edges).tolist() == [-1, -1, 0, 0, 1, 3, -1, -1]


def test_depth_loss_against_a_naive_loop():
    edges = depth_edges([1, 4, 1])
    gt = torch.where(torch.rand(2, 2, 8, 12) < 0.1, torch.rand(2, 2, 8, 12) * 5, 0.)
    logits = torch.randn(2, 2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    depth = logits.softmax(2)
    total, count = 0., 0
    for b, n, i, j in np.ndindex(2, 2, 2, 3):
        patch = gt[b, n, i * 4:i * 4 + 4, j * 4:j * 4 + 4]
        if (patch > 0).any() and 1 <= patch[patch > 0].min() < 4:
            count += 1
            for k in range(3):
                p = depth[b, n, k, i, j].item()
                hit = int(patch[patch > 0].min()) == k + 1
                total -= math.log(p) if hit else math.log(1 - p)
    assert 0 < count < 24
    loss = depth_distribution_loss(gt, depth, edges, 4)
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_depth_loss_without_any_depth_is_zero_and_connected():
    logits = torch.randn(1, 1, 3, 2, 3, requires_grad=True)
    loss = depth_distribution_loss(torch.zeros(1, 1, 8, 12), logits.softmax(2),
                                   depth_edges([1, 4, 1]), 4)
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))
    with pytest.raises(ValueError, match='gt_depth .1, 1, 9, 12. at stride 4'):
        depth_distribution_loss(torch.zeros(1, 1, 9, 12), logits, depth_edges([1, 4, 1]), 4)


def test_stereo_warps_against_naive_projection():
    rig, prev = random_rig(seed=1), random_rig(seed=1)
    prev.ego2global = prev.ego2global.clone()
    prev.ego2global[..., 0, 3] -= 0.7
    prev.img_aug_matrix = random_rig(seed=2).img_aug_matrix
    warps = stereo_warps(rig, prev)
    u, v, d = 37., 21., 12.
    for camera in range(2):
        q = warps[0, camera] @ torch.tensor([u * d, v * d, d, 1.], dtype=torch.float64)
        pixel = torch.tensor([u, v, d, 1.], dtype=torch.float64)
        pixel = torch.linalg.inv(rig.img_aug_matrix[0, camera]) @ pixel
        cam = torch.linalg.inv(rig.cam2img[0, camera]) @ torch.tensor(
            [pixel[0] * d, pixel[1] * d, d, 1.], dtype=torch.float64)
        world = rig.cam2global()[0, camera] @ cam
        there = prev.cam2img[0, camera] @ torch.linalg.inv(prev.cam2global()[0, camera]) @ world
        seen = torch.stack([there[0] / there[2], there[1] / there[2], there[2], there[3]])
        seen = prev.img_aug_matrix[0, camera] @ seen
        torch.testing.assert_close(torch.stack([q[0] / q[2], q[1] / q[2], q[2]]), seen[:3])


def plane_features(rig, plane, size, input_size, channels=12):
    """Stride-4 features of a textured wall ``plane`` metres ahead: (1, N, C, h4, w4).

    The wall stands in the world and all cameras look along its normal; the key ego frame is the
    world's, so a camera elsewhere sees the texture displaced.
    """
    frustum = make_frustum(torch.tensor([plane]), input_size, size)
    scaled = torch.cat([frustum[..., :2] * plane, frustum[..., 2:], torch.ones(1, *size, 1)], -1)
    to_plane = lift_matrices(rig, torch.eye(4)[None])
    points = torch.einsum('bnij,dhwj->bnhwi', to_plane, scaled)
    waves = torch.linspace(0.3, 1.2, channels, dtype=torch.float64)
    return torch.stack([10 * torch.sin(k * points[..., 0] + k * points[..., 1] + 25 * k)
                        for k in waves], dim=2).float()


def moving_rigs(shift, cameras=2):
    """Two forward-looking frames whose ego moved sideways and up by ``shift`` metres."""
    eye = torch.eye(4, dtype=torch.float64).expand(1, cameras, 4, 4)
    cam2img, img_aug, before = eye.clone(), eye.clone(), eye.clone()
    cam2img[..., 0, 0] = cam2img[..., 1, 1] = 200.
    cam2img[..., 0, 2], cam2img[..., 1, 2] = 130., 70.
    img_aug[:, 0, 0, 0], img_aug[:, 0, 0, 3] = -0.5, 125.  # flipped and halved
    img_aug[:, 0, 1, 1] = 0.5
    before[..., 0, 3], before[..., 1, 3] = -shift, 0.5 * shift
    return (CameraRig(cam2img, eye, eye, img_aug, eye[:, 0]),
            CameraRig(cam2img, eye, before, img_aug, eye[:, 0]))


def stereo_transformer():
    return LSSViewTransformerBEVStereo(
        grid_config=dict(x=[-4, 4, 1], y=[-4, 4, 1], z=[0, 2, 1], depth=[2., 8., 0.5]),
        input_size=(64, 128), downsample=16, in_channels=8, out_channels=4,
        depthnet_cfg=dict(aspp_mid_channels=4, bias=5.))


def test_stereo_at_the_same_place_matches_everywhere():
    net = stereo_transformer()
    rig, _ = moving_rigs(0.)
    feats = torch.randn(1, 2, 12, 16, 32)
    volume = net._cost_volume(rig, StereoReference(feats, feats, rig))
    assert volume.shape == (2, 12, 16, 32)
    torch.testing.assert_close(volume, torch.full_like(volume, 1 / 12), atol=1e-4, rtol=0)


def test_stereo_peaks_at_the_depth_of_a_plane():
    net = stereo_transformer()
    rig, prev_rig = moving_rigs(0.4)
    plane = 4.5  # lower edge of bin 5
    current = plane_features(rig, plane, (16, 32), (64, 128)).requires_grad_()
    before = plane_features(prev_rig, plane, (16, 32), (64, 128))
    volume = net._cost_volume(rig, StereoReference(before, current, prev_rig))
    assert not volume.requires_grad
    inner = volume[:, :, 5:-5, 9:-9]
    assert (inner.argmax(1) == 5).float().mean() > 0.95
    swapped = net._cost_volume(rig, StereoReference(before, current, rig))  # motion ignored
    assert (swapped[:, :, 5:-5, 9:-9].argmax(1) == 5).float().mean() < 0.5
