"""Triton kernels against naive float64 loops and against torch, forward and backward.

Interpreted on a CPU, compiled on a GPU (`triton_device`).
"""
import pytest
import torch
import torch.nn.functional as F
from naive_ops import (
    DTYPE, naive_cost_volume, naive_lift_splat, naive_product, naive_samples, naive_trilinear,
    naive_weights
)

from voxelrender import (
    MarchConfig, RayBundle, VoxelGrid, edges_from_mids, lift_splat, march_rays, ops, sparse_product,
    stereo_cost_volume, uniform_edges
)
from voxelrender.ops import LiftGeometry

ALIGNMENTS = pytest.mark.parametrize('alignment', ['centers', 'edges'])


def close(got, expected, atol=1e-4):
    """Whether single precision on any device agrees with float64 on the CPU."""
    return got.dtype == torch.float32 and torch.allclose(got.cpu().double(), expected.double(),
                                                         atol=atol, rtol=1e-4)


def single(tensor, device):
    """A leaf in float32 on a device, with gradient."""
    return tensor.detach().float().to(device).requires_grad_()


@pytest.mark.parametrize('count, num_rows, num_cols, channels', [
    (40, 7, 5, 3), (1, 1, 1, 1), (9, 30, 4, 2), (70, 2, 40, 130), (0, 3, 2, 4), (5, 2, 3, 0)])
def test_sparse_product(triton_device, count, num_rows, num_cols, channels):
    rows, cols = torch.randint(0, num_rows, (count,)), torch.randint(0, num_cols, (count,))
    values = torch.randn(count, dtype=DTYPE, requires_grad=True)
    feats = torch.randn(num_cols, channels, dtype=DTYPE, requires_grad=True)
    grad = torch.randn(num_rows, channels, dtype=DTYPE)
    naive = naive_product(rows, cols, values, feats, num_rows)
    naive = naive + 0 * (values.sum() + feats.sum())  # connected without an entry, too
    leaves = single(values, triton_device), single(feats, triton_device)
    got = sparse_product(rows.to(triton_device), cols.to(triton_device), *leaves, num_rows,
                         'triton')
    assert close(got, naive)
    got.backward(grad.float().to(triton_device))
    expected = torch.autograd.grad(naive, (values, feats), grad)
    assert all(close(leaf.grad, right) for leaf, right in zip(leaves, expected))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sparse_product_reads_half_precision_as_it_is(triton_device, dtype):
    rows, cols = torch.arange(6).repeat(5).to(triton_device), torch.arange(30).to(triton_device)
    values, feats = torch.randn(30), torch.randn(30, 20).to(dtype)
    expected = sparse_product(rows.cpu(), cols.cpu(), values, feats.float(), 6)
    leaf = feats.to(triton_device).requires_grad_()
    got = sparse_product(rows, cols, values.to(triton_device), leaf, 6, 'triton')
    assert close(got, expected)
    got.sum().backward()
    assert leaf.grad.dtype == dtype
    assert torch.allclose(leaf.grad.cpu().float(), values[:, None].expand(30, 20), rtol=0.01)


@pytest.mark.parametrize('truncate', [False, True])
def test_lift_splat(triton_device, truncate):
    grid = VoxelGrid((-2, -1, 0, 2, 2, 1), (0.5, 1., 0.5))
    depth = torch.rand(2, 3, 5, 3, 2, dtype=DTYPE, requires_grad=True)
    context = torch.randn(2, 3, 7, 3, 2, dtype=DTYPE, requires_grad=True)
    points = torch.rand(2, 3, 5, 3, 2, 3) * 6 - 3
    naive = naive_lift_splat(depth, context, points, grid, truncate)
    grad = torch.randn(naive.shape, dtype=DTYPE)
    expected = torch.autograd.grad(naive, (depth, context), grad)
    geometry = LiftGeometry.from_points(points, grid, truncate).to(triton_device)
    for how in ((points.to(triton_device), grid, truncate), (geometry,)):
        leaves = single(depth, triton_device), single(context, triton_device)
        got = lift_splat(*leaves, *how, backend='triton')
        assert got.is_contiguous() and close(got, naive)
        got.backward(grad.float().to(triton_device))
        assert all(close(leaf.grad, right) for leaf, right in zip(leaves, expected))


def test_lift_splat_of_points_outside(triton_device):
    grid = VoxelGrid((0, 0, 0, 2, 2, 1), (1, 1, 1))
    depth = torch.rand(1, 1, 2, 2, 2, device=triton_device, requires_grad=True)
    context = torch.rand(1, 1, 3, 2, 2, device=triton_device, requires_grad=True)
    points = torch.full((1, 1, 2, 2, 2, 3), 9., device=triton_device)
    volume = lift_splat(depth, context, points, grid, backend='triton')
    assert volume.shape == (1, 3, 1, 2, 2) and volume.abs().sum() == 0
    volume.sum().backward()
    assert depth.grad.abs().sum() == 0 and context.grad.abs().sum() == 0


def warps(dtype):
    """Sideways, backwards through the camera, and nearly at rest."""
    matrices = torch.eye(4, dtype=dtype).repeat(3, 1, 1)
    matrices[0, :3, 3] = torch.tensor([14., -6., 0.2])
    matrices[1, :3, 3] = torch.tensor([-9., 3., -2.])
    matrices[2, :3] += torch.randn(3, 4, dtype=dtype) * 0.05
    return matrices


@pytest.mark.parametrize('published', [False, True])
@pytest.mark.parametrize('channels, size', [(4, (9, 8)), (6, (1, 5)), (1, (3, 1))])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_stereo_cost_volume(triton_device, published, channels, size, dtype):
    cur = torch.randn(3, channels, *size, dtype=DTYPE) * 0.3
    prev = torch.randn(3, channels, *size, dtype=DTYPE).relu() * 0.3
    depths = torch.tensor([1., 1.7, 3., 8., 11.])
    image_size = 4 * size[0], 4 * size[1]
    matrices = warps(dtype)
    naive = naive_cost_volume(cur, prev, matrices.double(), depths, image_size, 2.5, published)
    got = stereo_cost_volume(*(x.to(triton_device) for x in (cur.float(), prev.float(), matrices,
                                                             depths)), image_size, 2.5, published,
                             backend='triton')
    assert close(got, naive)


def test_stereo_cost_volume_of_nothing_and_in_half_precision(triton_device):
    feats, eye = torch.rand(2, 4, 3, 5, device=triton_device), torch.eye(4, device=triton_device)
    eye, depths = eye.repeat(2, 1, 1), torch.rand(3, device=triton_device) + 1
    for part in (feats[:0], feats[:, :, :0]):
        probs = stereo_cost_volume(part, part, eye[:len(part)], depths, (12, 20), backend='triton')
        assert probs.numel() == 0 and probs.shape[1] == 3
    half = feats.half()
    assert close(stereo_cost_volume(half, half.flip(3), eye, depths, (12, 20), backend='triton'),
                 stereo_cost_volume(half, half.flip(3), eye, depths, (12, 20)).cpu())


def odd_points(grid):
    """Points inside, outside, on voxel centres, on grid corners and along edges and axes."""
    low, high = torch.tensor(grid.lower), torch.tensor(grid.upper)
    middle, along = (low + high) / 2, torch.linspace(-0.2, 1.2, 15)[:, None]
    corners = torch.cartesian_prod(*torch.stack([low, high], dim=-1))
    axes = [low + along * (high - low) * torch.eye(3)[axis] for axis in range(3)]
    through = [middle + (along - 0.5) * (high - low) * torch.eye(3)[axis] for axis in range(3)]
    return torch.cat([low + (torch.rand(40, 3) * 1.6 - 0.3) * (high - low), *axes, *through,
                      corners, grid.voxel_centers().view(-1, 3)[::37], low + along * (high - low),
                      torch.tensor([[1e6, 0., 0.], [0., -1e30, 0.]])])


@ALIGNMENTS
def test_sample_volume(triton_device, alignment):
    grid = VoxelGrid((-3, -2, -1, 3, 2, 1), (0.5, 0.8, 0.4), alignment)
    points = odd_points(grid)
    volume = torch.randn(grid.volume_shape, dtype=DTYPE, requires_grad=True)
    naive = torch.cat([naive_trilinear(grid, volume[None], point) for point in points])
    grad = torch.randn(len(points), dtype=DTYPE)
    expected, = torch.autograd.grad(naive, volume, grad)
    for dtype, atol in ((torch.float32, 1e-4), (torch.float16, 0.02)):  # half: 11 bits
        leaf = volume.detach().to(triton_device, dtype).requires_grad_()
        got = ops.sample_volume(grid, leaf, points.view(1, -1, 3).to(triton_device), 'triton')
        assert got.shape == (1, len(points)) and close(got[0], naive, atol)
        got.backward(grad[None].float().to(triton_device))
        assert leaf.grad.dtype == dtype and close(leaf.grad.float(), expected, atol)


@ALIGNMENTS
def test_sample_volume_in_a_fixed_order(triton_device, alignment):
    grid = VoxelGrid((-3, -2, -1, 3, 2, 1), (0.5, 0.8, 0.4), alignment)
    points, volume = odd_points(grid).to(triton_device), torch.randn(grid.volume_shape)
    leaves = [single(volume, triton_device) for _ in range(2)]
    for leaf, fixed in zip(leaves, (False, True)):
        torch.use_deterministic_algorithms(fixed)
        try:
            ops.sample_volume(grid, leaf, points, 'triton').square().sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
    assert torch.allclose(leaves[0].grad, leaves[1].grad, atol=1e-4)


@ALIGNMENTS
def test_point_corners(triton_device, alignment):
    grid = VoxelGrid((-3, -2, -1, 3, 2, 1), (0.5, 0.8, 0.4), alignment)
    points = odd_points(grid)
    voxels, shares = ops.point_corners(grid, points.to(triton_device), 'triton')
    assert voxels.dtype == torch.long and voxels.min() >= 0 and voxels.max() < grid.num_voxels
    assert (shares >= 0).all()
    volume = torch.randn(grid.num_voxels)
    expected = grid.sample(volume.view(1, 1, *grid.volume_shape), points[None])[0, :, 0]
    assert close((shares.cpu() * volume[voxels.cpu()]).sum(-1), expected)


def test_reading_nothing(triton_device):
    grid = VoxelGrid((0, 0, 0, 2, 2, 1), (1, 1, 1))
    volume = torch.rand(1, 2, 2, device=triton_device, requires_grad=True)
    points = torch.zeros(0, 3, 3, device=triton_device)
    values = ops.sample_volume(grid, volume, points, 'triton')
    assert values.shape == (0, 3)
    values.sum().backward()
    assert volume.grad.abs().sum() == 0
    voxels, shares = ops.point_corners(grid, points[:, 0], 'triton')
    assert voxels.shape == shares.shape == (0, 8)


@pytest.mark.parametrize('bins, count', [(1, 1), (1, 5), (7, 1), (13, 40), (50, 100)])
def test_importance_samples(triton_device, bins, count):
    edges = (torch.rand(6, bins + 1) + 0.1).cumsum(-1)
    sigmas = torch.rand(6, bins) ** 2 * 2 + 0.01
    sigmas[0] = 0
    sigmas[1, bins // 2] = 1e5
    sigmas[2, 1::2] = 0  # plateaus
    got = ops.importance_samples(edges.to(triton_device), sigmas.to(triton_device), count,
                                 'triton')
    naive = [naive_samples(edges[ray].tolist(), sigmas[ray].tolist(), count) for ray in range(6)]
    # A CDF in single precision rises by as little as 1e-4 a metre here.
    assert close(got, torch.tensor(naive, dtype=DTYPE), atol=5e-3)
    assert got.shape == (6, count) and (got.diff(dim=-1) >= 0).all()
    assert ops.importance_samples(got[:0, :1].expand(0, 3), got[:0, :1].expand(0, 2), 4,
                                  'triton').shape == (0, 4)


@pytest.mark.parametrize('num_rays, count', [(1, 1), (4, 9), (3, 100), (0, 5), (2, 0)])
def test_composite(triton_device, num_rays, count):
    mids = torch.rand(num_rays, count, dtype=DTYPE).cumsum(-1)
    starts, ends = mids - 0.1 * torch.rand(mids.shape), mids + 0.1 * torch.rand(mids.shape)
    sigmas = (torch.rand(mids.shape, dtype=DTYPE) ** 4 * 20).requires_grad_()
    naive = naive_weights(sigmas, starts, ends)
    grads = torch.randn(2, num_rays, count, dtype=DTYPE)
    leaf = single(sigmas, triton_device)
    got = ops.composite(leaf, starts.float().to(triton_device), ends.float().to(triton_device),
                        'triton')
    assert all(close(ours, theirs, 1e-5) for ours, theirs in zip(got, naive))
    torch.autograd.backward(got, tuple(grads.float().to(triton_device)))
    expected, = torch.autograd.grad(naive, sigmas, tuple(grads))
    assert close(leaf.grad, expected, 1e-5)


def test_composite_keeps_small_digits_and_survives_walls(triton_device):
    sigmas = torch.tensor([[1e-9, 0.2, 0.249], [1e6, 0., 1e6]], device=triton_device)
    sigmas.requires_grad_()
    starts = torch.zeros(2, 3, device=triton_device)
    weights, trans = ops.composite(sigmas, starts, starts + 1, 'triton')
    expected, _ = ops.composite(sigmas.detach().cpu().double(), starts.cpu().double(),
                                starts.cpu().double() + 1)
    assert torch.allclose(weights.cpu().double(), expected, rtol=1e-6, atol=0)
    assert trans[1].tolist() == [1, 0, 0]
    weights.square().sum().backward()
    assert torch.isfinite(sigmas.grad).all()


def test_a_march_made_of_the_kernels_is_march_rays(triton_device):
    grid = VoxelGrid((-3, -2, -1, 3, 2, 1), (0.5, 0.4, 0.25))
    densities = torch.rand(1, *grid.volume_shape) * 0.2 + 0.05
    densities[:, :2] += 4.
    axes = torch.eye(3)
    origins = torch.cat([torch.randn(9, 3) * torch.tensor([1., 1., 0.3]), axes * -4,
                         torch.tensor([[50., 0., 0.], [-3., -2., -1.]])])
    directions = F.normalize(torch.cat([torch.randn(9, 3), axes, axes[:1], torch.ones(1, 3)]),
                             dim=-1)
    rays = RayBundle(origins, directions)
    config = MarchConfig(near=0.05, far=5., num_proposal_samples=12, num_samples=17)
    leaf = densities.clone().requires_grad_()
    samples = march_rays(grid, leaf, rays, config, training=False)
    samples.weights.square().sum().backward()
    volume = single(densities[0], triton_device)
    rays = RayBundle(origins.to(triton_device), directions.to(triton_device))
    edges = uniform_edges(len(rays), 12, 0.05, 5., device=triton_device)
    with torch.no_grad():
        proposals = ops.sample_volume(grid, volume, rays.points((edges[:, 1:] + edges[:, :-1]) / 2),
                                      'triton')
    t_mids = ops.importance_samples(edges, proposals, 17, 'triton')
    sigmas = ops.sample_volume(grid, volume, rays.points(t_mids), 'triton')
    weights, _ = ops.composite(sigmas, *edges_from_mids(t_mids, 0.05, 5.), 'triton')
    assert close(t_mids, samples.t_mids, 1e-3) and close(weights, samples.weights.detach(), 1e-3)
    weights.square().sum().backward()
    assert close(volume.grad, leaf.grad[0], 1e-3)
