"""lift_splat, stereo_cost_volume and sparse_product against naive float64 loops; gradients."""
import pytest
import torch
from lift_cumsum import lift_case, lift_splat_cumsum
from naive_ops import DTYPE, naive_cost_volume, naive_lift_splat, naive_product

from voxelrender import VoxelGrid, lift_splat, sparse_product, stereo_cost_volume
from voxelrender.ops import LiftGeometry


def entries(count, num_rows, num_cols, ascending):
    rows = torch.randint(0, num_rows, (count,))
    rows = rows.sort()[0] if ascending else rows
    return rows, torch.randint(0, num_cols, (count,)), torch.randn(count, dtype=DTYPE)


@pytest.mark.parametrize('count, num_rows, num_cols, channels', [
    (40, 7, 5, 3), (1, 1, 1, 1), (9, 30, 4, 2), (60, 2, 3, 17)])
@pytest.mark.parametrize('ascending', [False, True])
def test_sparse_product(count, num_rows, num_cols, channels, ascending):
    rows, cols, values = entries(count, num_rows, num_cols, ascending)
    feats = torch.randn(num_cols, channels, dtype=DTYPE)
    naive = naive_product(rows, cols, values, feats, num_rows)
    assert torch.allclose(sparse_product(rows, cols, values, feats, num_rows), naive, atol=1e-12)
    single = sparse_product(rows, cols, values.float(), feats.float(), num_rows)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), naive, atol=1e-4)


@pytest.mark.parametrize('ascending', [False, True])
def test_sparse_product_gradients(ascending):
    rows, cols, values = entries(25, 6, 5, ascending)
    feats = torch.randn(5, 3, dtype=DTYPE)
    product = lambda v, f: sparse_product(rows, cols, v, f, 6)
    assert torch.autograd.gradcheck(product, (values.requires_grad_(), feats.requires_grad_()))
    assert torch.autograd.gradcheck(product, (values, feats.detach()))
    assert torch.autograd.gradcheck(product, (values.detach(), feats))


def test_sparse_product_gradients_in_single_precision():
    rows, cols, values = entries(5000, 50, 300, True)
    values, feats = values.float().requires_grad_(), torch.randn(300, 64, requires_grad=True)
    grad = torch.randn(50, 64)
    got = torch.autograd.grad(sparse_product(rows, cols, values, feats, 50), (values, feats), grad)
    dots = (grad[rows].double() * feats.detach()[cols].double()).sum(-1)
    assert torch.allclose(got[0].double(), dots, atol=1e-4)
    dense = torch.zeros(50, 300, dtype=DTYPE)
    dense.index_put_((rows, cols), values.detach().double(), accumulate=True)
    assert torch.allclose(got[1].double(), dense.T @ grad.double(), atol=1e-3 / 2)


def test_sparse_product_takes_an_expanded_gradient():
    rows, cols, values = entries(20, 4, 3, True)
    feats = torch.randn(3, 2, dtype=DTYPE, requires_grad=True)
    sparse_product(rows, cols, values, feats, 4).sum().backward()
    expected = torch.zeros(3, dtype=DTYPE).index_add(0, cols, values)
    assert torch.allclose(feats.grad, expected[:, None].expand(3, 2))


@pytest.mark.parametrize('truncate', [False, True])
def test_lift_splat(truncate):
    grid = VoxelGrid((-2, -1, 0, 2, 2, 1), (0.5, 1., 0.5))
    depth = torch.rand(2, 3, 5, 3, 2, dtype=DTYPE)
    context = torch.randn(2, 3, 4, 3, 2, dtype=DTYPE)
    points = torch.rand(2, 3, 5, 3, 2, 3, dtype=DTYPE) * 6 - 3
    naive = naive_lift_splat(depth, context, points, grid, truncate)
    got = lift_splat(depth, context, points, grid, truncate)
    assert got.is_contiguous() and torch.allclose(got, naive, atol=1e-12)
    assert naive.abs().sum() > 1


def test_lift_splat_gradients():
    grid = VoxelGrid((-1, -1, -1, 1, 1, 1), (1., 1., 2.))
    depth = torch.rand(1, 2, 3, 2, 1, dtype=DTYPE, requires_grad=True)
    context = torch.randn(1, 2, 2, 2, 1, dtype=DTYPE, requires_grad=True)
    points = torch.rand(1, 2, 3, 2, 1, 3, dtype=DTYPE) * 2.6 - 1.3
    assert torch.autograd.gradcheck(lambda d, c: lift_splat(d, c, points, grid), (depth, context))


def test_lift_splat_and_its_gradients_are_those_of_a_running_sum():
    case = lift_case(bins=20, feature_size=(4, 11), channels=5, voxel_size=1.6, moved=0.7)
    points = torch.cat([case.points, case.points.flip(1) + 3])
    depth, context = (x.double().expand(2, *x.shape[1:]).clone().requires_grad_()
                      for x in (case.depth, case.context))
    grad = torch.randn(2, 5, *case.grid.volume_shape, dtype=DTYPE)
    geometry = LiftGeometry.from_points(points, case.grid)
    found = []
    for volume in (lift_splat_cumsum(depth, context, points, case.grid),
                   lift_splat(depth, context, points, case.grid),
                   lift_splat(depth, context, geometry), lift_splat(depth, context, geometry)):
        found.append((volume, *torch.autograd.grad(volume, (depth, context), grad)))
    assert found[0][0].count_nonzero() > 1000
    for ours in found[1:]:
        for got, expected in zip(ours, found[0]):
            assert torch.allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize('published', [False, True])
@pytest.mark.parametrize('channels', [4, 6])
def test_stereo_cost_volume(published, channels):
    cur = torch.randn(3, channels, 5, 6, dtype=DTYPE) * 0.3
    prev = torch.randn(3, channels, 5, 6, dtype=DTYPE).relu() * 0.3
    warps = torch.eye(4, dtype=DTYPE).repeat(3, 1, 1)
    warps[0, :3, 3] = torch.tensor([14., -6., 0.2])
    warps[1, :3, 3] = torch.tensor([-9., 3., -2.])
    warps[2, :3] += torch.randn(3, 4, dtype=DTYPE) * 0.05
    depths = torch.tensor([1., 1.7, 3., 8.], dtype=DTYPE)
    arguments = (cur, prev, warps, depths, (20, 24), 2.5, published)
    naive = naive_cost_volume(*arguments)
    got = stereo_cost_volume(*arguments)
    assert torch.allclose(got, naive, atol=1e-9)
    assert (naive.std(1) > 1e-3).any()
    single = stereo_cost_volume(cur.float(), prev.float(), warps, depths.float(), (20, 24), 2.5,
                                published)
    assert torch.allclose(single.double(), naive, atol=1e-4)
