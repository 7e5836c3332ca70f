"""Rays: pixels to rays and back, and the bundle's bookkeeping."""
import math

import pytest
import torch

from voxelrender import RayBundle, pixels_to_rays, project_points


def rotation(yaw, pitch=0.):
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    about_z = torch.tensor([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]], dtype=torch.float64)
    about_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], dtype=torch.float64)
    return about_z @ about_x


def camera(yaw=0.4, pitch=-1.5):
    cam2img = torch.eye(4, dtype=torch.float64)
    cam2img[:2, :3] = torch.tensor([[800., 1.5, 790.], [0., 790., 440.]])
    cam2ego = torch.eye(4, dtype=torch.float64)
    cam2ego[:3, :3] = rotation(yaw, pitch)
    cam2ego[:3, 3] = torch.tensor([1.2, -0.3, 1.6])
    return cam2img, cam2ego


def augmentation(angle=0.08, scale=0.47, flip=True):
    matrix = torch.eye(4, dtype=torch.float64)
    turn = rotation(angle)[:2, :2] * scale
    matrix[:2, :2] = turn @ torch.diag(torch.tensor([-1. if flip else 1., 1.]).double())
    matrix[:2, 3] = torch.tensor([312.5, -70.25])
    return matrix


def bundle(count=6):
    directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return RayBundle(torch.randn(count, 3), directions, torch.arange(count),
                     torch.arange(count) - 2, dict(lang_feats=torch.randn(count, 4),
                                                   distances=torch.rand(count) * 10))


@pytest.mark.parametrize('augmented', [False, True])
def test_project_undoes_pixels_to_rays(augmented):
    cam2img, cam2ego = camera()
    matrix = augmentation() if augmented else None
    pixels = torch.rand(40, 2, dtype=torch.float64) * torch.tensor([704., 256.])
    origins, directions = pixels_to_rays(pixels, cam2img, cam2ego, matrix)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(40).double(), atol=1e-14)
    distances = torch.rand(40, 1, dtype=torch.float64) * 39 + 1
    back, depths = project_points(origins + distances * directions, cam2img, cam2ego, matrix)
    assert torch.allclose(back, pixels, atol=1e-9)
    assert (depths <= distances[:, 0] + 1e-9).all() and (depths > 0).all()


def test_per_ray_matrices_equal_single_ones():
    cameras = [camera(0.1), camera(2.0)]
    augmentations = [augmentation(0.02), augmentation(-0.05, flip=False)]
    pixels = torch.rand(2, 2, dtype=torch.float64) * 200
    stacked = pixels_to_rays(pixels, torch.stack([c[0] for c in cameras]),
                             torch.stack([c[1] for c in cameras]), torch.stack(augmentations))
    for index in range(2):
        alone = pixels_to_rays(pixels[index:index + 1], *cameras[index], augmentations[index])
        assert torch.allclose(stacked[0][index], alone[0][0], atol=1e-12)
        assert torch.allclose(stacked[1][index], alone[1][0], atol=1e-12)


def test_the_principal_point_looks_along_the_axis():
    cam2img, cam2ego = camera()
    cam2img[0, 1] = 0
    pixel = cam2img[None, :2, 2]
    _, direction = pixels_to_rays(pixel.float(), cam2img, cam2ego)
    assert torch.allclose(direction[0], cam2ego[:3, 2], atol=1e-7)
    assert direction.dtype == torch.float64


def test_points_behind_are_in_no_image():
    cam2img, cam2ego = camera()
    behind = (cam2ego[:3, 3] - 5 * cam2ego[:3, 2])[None]
    pixels, depths = project_points(behind, cam2img, cam2ego, augmentation())
    assert torch.isnan(pixels).all() and torch.allclose(depths, torch.tensor([-5.]).double())


def test_a_half_pixel_resize_keeps_the_image_extent():
    cam2img, cam2ego = camera()
    half = torch.eye(4, dtype=torch.float64)
    half[0, 0] = half[1, 1] = 0.5
    half[:2, 3] = (0.5 - 1) / 2
    edge = torch.tensor([[-0.5, -0.5]], dtype=torch.float64)
    full = pixels_to_rays(edge, cam2img, cam2ego)[1]
    assert torch.allclose(pixels_to_rays(edge, cam2img, cam2ego, half)[1], full, atol=1e-12)


def test_indexing_keeps_every_field():
    rays = bundle()
    assert len(rays[2]) == 1 and rays[2].camera_ids.tolist() == [2]
    assert rays[-1].camera_ids.tolist() == [5]
    assert rays[1:4].targets['lang_feats'].shape == (3, 4)
    mask = rays.camera_ids % 2 == 0
    assert rays[mask].frame_ids.tolist() == [-2, 0, 2]
    assert rays[torch.tensor([5, 0])].camera_ids.tolist() == [5, 0]
    with pytest.raises(IndexError):
        rays[6]
    assert len(list(rays)) == 6


def test_chunks_and_cat_are_inverse():
    rays = bundle(7)
    parts = list(rays.chunks(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    joined = RayBundle.cat(parts)
    assert torch.equal(joined.origins, rays.origins)
    assert torch.equal(joined.targets['lang_feats'], rays.targets['lang_feats'])
    assert [len(part) for part in rays[:0].chunks(3)] == [0]
    with pytest.raises(ValueError, match='chunk size'):
        list(rays.chunks(0))


def test_cat_names_different_targets():
    with pytest.raises(ValueError, match='lang_feats'):
        RayBundle.cat([bundle(), RayBundle(torch.zeros(1, 3), torch.eye(3)[:1])])
    with pytest.raises(ValueError, match='at least one'):
        RayBundle.cat([])


def test_empty_joins_with_others():
    rays = bundle()
    nothing = RayBundle.empty(targets=rays.targets).validate()
    assert nothing.num_rays == 0
    assert len(RayBundle.cat([nothing, rays])) == 6


def test_transformed_flips_and_scales():
    rays = bundle()
    matrix = torch.diag(torch.tensor([-2., 2., 2., 1.]))
    matrix[:3, 3] = torch.tensor([1., 2., 3.])
    before = rays.origins + rays.targets['distances'][:, None] * rays.directions
    moved = rays.transformed(matrix.double()).validate()
    after = moved.origins + moved.targets['distances'][:, None] * moved.directions
    assert torch.allclose(after, before @ matrix[:3, :3].T + matrix[:3, 3], atol=1e-4)
    assert moved.origins.dtype == torch.float32
    assert moved.camera_ids is rays.camera_ids
    with pytest.raises(ValueError, match=r'\(4, 4\)'):
        rays.transformed(torch.eye(3))


@pytest.mark.parametrize('change, message', [
    (dict(directions=torch.ones(6, 3)), 'unit length'),
    (dict(origins=torch.full((6, 3), math.nan)), 'origins of 6 of 6 rays not finite'),
    (dict(camera_ids=torch.zeros(5).long()), 'camera_ids has shape'),
    (dict(targets=dict(rgb=torch.zeros(5, 3))), "target 'rgb' has shape"),
])
def test_validate_names_the_field(change, message):
    rays = bundle()
    for name, value in change.items():
        setattr(rays, name, value)
    with pytest.raises(ValueError, match=message):
        rays.validate()
