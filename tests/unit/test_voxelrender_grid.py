"""VoxelGrid: shapes, coordinates, trilinear sampling and the ray-box test."""
import math

import pytest
import torch

from voxelrender import VoxelGrid

RANGE = (-4., -3., -1., 4., 3., 1.)
ALIGNMENTS = ('centers', 'edges')


def make_grid(alignment='centers'):
    return VoxelGrid(RANGE, (1., .5, .4), alignment)


def test_shapes_of_the_paper():
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (0.4, 0.4, 0.4))
    assert grid.grid_shape == (200, 200, 16)
    assert grid.volume_shape == (16, 200, 200)
    assert grid.num_voxels == 640000
    config = dict(x=[-40, 40, 0.4], y=[-40, 40, 0.4], z=[-1, 5.4, 0.4], depth=[1, 45, 0.5])
    assert VoxelGrid.from_grid_config(config) == grid
    assert hash(grid) == hash(VoxelGrid.from_grid_config(config))


@pytest.mark.parametrize('arguments, message', [
    (((0, 0, 0, 1, 1, 1), (0.3, 1, 1)), 'x: .* whole number'),
    (((0, 2, 0, 1, 1, 1), (1, 1, 1)), 'y: .* must increase'),
    (((0, 0, 0, 1, 1, 1), (1, 1, 0)), 'z: .* must be positive'),
    (((0, 0, 0, 1, 1), (1, 1, 1)), 'point_cloud_range .* expected 6'),
    (((0, 0, 0, 1, math.nan, 1), (1, 1, 1)), 'finite'),
    (((0, 0, 0, 1, 1, 1), (1, 1, 1), 'corners'), "alignment is 'corners'"),
])
def test_bad_grids_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VoxelGrid(*arguments)


def test_from_grid_config_names_what_is_missing():
    with pytest.raises(ValueError, match=r"lacks \['z'\]"):
        VoxelGrid.from_grid_config(dict(x=[0, 1, 1], y=[0, 1, 1]))


def test_indices_floor_and_truncate():
    grid = make_grid()
    points = torch.tensor([[-4.5, -2.9, -0.9], [-4., -3., -1.], [3.99, 2.99, 0.99], [4., 0., 0.]])
    assert grid.to_indices(points)[:3].tolist() == [[-1, 0, 0], [0, 0, 0], [7, 11, 4]]
    assert grid.to_indices(points, truncate=True)[0].tolist() == [0, 0, 0]
    assert grid.contains(points).tolist() == [False, True, True, False]
    assert grid.contains(points, truncate=True).tolist() == [True, True, True, False]
    assert not grid.contains(torch.full((1, 3), math.nan)).any()


def test_flat_indices_follow_the_volume():
    grid = make_grid()
    centers = grid.voxel_centers()
    assert centers.shape == (5, 12, 8, 3)
    flat = grid.flat_indices(grid.to_indices(centers))
    assert torch.equal(flat.flatten(), torch.arange(grid.num_voxels))
    assert torch.allclose(grid.to_cells(centers[0, 0, 0]), torch.full((3,), 0.5))


def test_centers_alignment_returns_voxel_values_and_ramps():
    grid = make_grid()
    centers = grid.voxel_centers(dtype=torch.float64)
    volume = torch.randn(1, 3, *grid.volume_shape, dtype=torch.float64)
    sampled = grid.sample(volume, centers[None])
    assert sampled.shape == (1, *grid.volume_shape, 3)
    assert torch.allclose(sampled, volume.permute(0, 2, 3, 4, 1), atol=1e-12)
    slope = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    ramp = (centers @ slope)[None, None]
    inner = (torch.rand(1, 50, 3, dtype=torch.float64) * 2 - 1) * torch.tensor([3.5, 2.7, 0.8])
    assert torch.allclose(grid.sample(ramp, inner)[0, :, 0], inner[0] @ slope, atol=1e-12)


def test_edges_alignment_puts_the_first_value_on_the_face():
    volume = torch.arange(4.).view(1, 1, 1, 1, 4)
    grid = VoxelGrid((0, 0, 0, 4, 1, 1), (1, 1, 1), 'edges')
    x = torch.tensor([0., 2., 4.])
    points = torch.stack([x, torch.full_like(x, .5), torch.full_like(x, .5)], -1)[None]
    assert torch.allclose(grid.sample(volume, points)[0, :, 0], torch.tensor([0., 1.5, 3.]))


@pytest.mark.parametrize('alignment', ALIGNMENTS)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_corners_agree_with_sample(alignment, dtype, tolerance):
    grid = make_grid(alignment)
    low, high = torch.tensor(RANGE[:3], dtype=dtype), torch.tensor(RANGE[3:], dtype=dtype)
    inside = low + torch.rand(200, 3, dtype=dtype) * (high - low)
    around = low + (torch.rand(300, 3, dtype=dtype) * 1.6 - 0.3) * (high - low)
    faces = torch.cat([torch.where(torch.rand(40, 3) < 0.5, low, inside[:40]),
                       torch.where(torch.rand(40, 3) < 0.5, high, inside[:40]),
                       torch.stack([low, high]), grid.voxel_centers(dtype=dtype).view(-1, 3)[:9],
                       torch.tensor([[1e9, 0, 0], [-1e9, 1e9, 0]], dtype=dtype)])
    points = torch.cat([inside, around, faces])
    volume = torch.randn(1, 4, *grid.volume_shape, dtype=dtype)
    indices, coefficients = grid.corners(points)
    assert indices.min() >= 0 and indices.max() < grid.num_voxels
    assert coefficients.min() >= 0 and coefficients.sum(-1).max() <= 1 + 1e-5
    gathered = volume.flatten(2)[0].T[indices]
    assert torch.allclose((coefficients[..., None] * gathered).sum(1),
                          grid.sample(volume, points[None])[0], atol=tolerance)


@pytest.mark.parametrize('alignment', ALIGNMENTS)
def test_corners_of_a_grid_one_voxel_thick(alignment):
    grid = VoxelGrid((0, 0, 0, 3, 1, 1), (1, 1, 1), alignment)
    points = torch.rand(50, 3, dtype=torch.float64) * torch.tensor([5., 3., 3.]) - 1
    volume = torch.randn(1, 2, 1, 1, 3, dtype=torch.float64)
    indices, coefficients = grid.corners(points)
    gathered = volume.flatten(2)[0].T[indices]
    assert torch.allclose((coefficients[..., None] * gathered).sum(1),
                          grid.sample(volume, points[None])[0], atol=1e-12)


def test_sample_is_zero_far_outside_and_takes_no_points():
    grid = make_grid()
    volume = torch.ones(2, 1, *grid.volume_shape, requires_grad=True)
    assert grid.sample(volume, torch.full((2, 1, 3), 100.)).abs().sum() == 0
    nothing = grid.sample(volume, torch.zeros(2, 0, 3))
    assert nothing.shape == (2, 0, 1)
    nothing.sum().backward()
    assert volume.grad.abs().sum() == 0


def test_sample_batch_equals_items():
    grid = make_grid()
    volume, points = torch.randn(3, 2, *grid.volume_shape), torch.randn(3, 7, 5, 3)
    batch = grid.sample(volume, points)
    for item in range(3):
        alone = grid.sample(volume[item:item + 1], points[item:item + 1])
        assert torch.equal(batch[item], alone[0])


def test_sample_stays_in_full_precision_under_autocast():
    grid = make_grid()
    volume, points = torch.rand(1, 1, *grid.volume_shape), torch.randn(1, 20, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        low = grid.sample(volume, points)
    assert low.dtype == torch.float32
    assert torch.equal(low, grid.sample(volume, points))
    assert grid.sample(volume.bfloat16(), points).dtype == torch.float32


def test_sample_names_a_wrong_shape():
    grid = make_grid()
    with pytest.raises(ValueError, match=r'\(5, 12, 8\)'):
        grid.sample(torch.zeros(1, 1, 8, 12, 5), torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match='points have shape'):
        grid.sample(torch.zeros(1, 1, 5, 12, 8), torch.zeros(2, 1, 3))


def test_intersect():
    grid = make_grid()
    origins = torch.tensor([[-6., 0, 0], [0., 0, 0], [-6., 5, 0], [6., 0, 0], [0., 0, -5],
                            [-6., 3, 0]])
    directions = torch.tensor([[1., 0, 0], [0, 0, 1.], [1., 0, 0], [1., 0, 0], [0, 0, 1.],
                               [1., 0, 0]])
    near, far = grid.intersect(origins, directions)
    assert near[0] == 2 and far[0] == 10
    assert near[1] == 0 and far[1] == 1
    assert near[2] > far[2]
    assert near[3] > far[3]
    assert near[4] == 4 and far[4] == 6
    assert near[5] == 2 and far[5] == 10
    assert not torch.isnan(near).any() and not torch.isnan(far).any()
