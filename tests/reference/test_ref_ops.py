"""lift_splat, stereo_cost_volume and sparse_product against naive float64 loops; gradients."""
import itertools
import math

import pytest
import torch

from voxelrender import VoxelGrid, lift_splat, sparse_product, stereo_cost_volume

DTYPE = torch.float64


def naive_product(rows, cols, values, feats, num_rows):
    out = torch.zeros(num_rows, feats.shape[1], dtype=DTYPE)
    for row, col, value in zip(rows.tolist(), cols.tolist(), values):
        out[row] = out[row] + value * feats[col]
    return out


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


def naive_lift_splat(depth, context, points, grid, truncate):
    batch, cameras, bins, height, width = depth.shape
    cells = grid.grid_shape
    volume = torch.zeros(batch, context.shape[2], *grid.volume_shape, dtype=DTYPE)
    places = itertools.product(range(batch), range(cameras), range(bins), range(height),
                               range(width))
    for b, n, d, i, j in places:
        index = []
        for axis in range(3):
            cell = ((points[b, n, d, i, j, axis].item() - grid.point_cloud_range[axis])
                    / grid.voxel_size[axis])
            index.append(math.trunc(cell) if truncate else math.floor(cell))
        if all(0 <= index[axis] < cells[axis] for axis in range(3)):
            x, y, z = index
            volume[b, :, z, y, x] += depth[b, n, d, i, j] * context[b, n, :, i, j]
    return volume


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


def naive_bilinear(feats, x, y):
    """Value (C,) of feats (C, H, W) at feature coordinates x, y; zero outside."""
    total = torch.zeros(feats.shape[0], dtype=DTYPE)
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < feats.shape[1] and 0 <= j < feats.shape[2]:
                total = total + (1 - abs(y - i)) * (1 - abs(x - j)) * feats[:, i, j]
    return total


def naive_cost_volume(cur, prev, warps, depths, image_size, bias, published):
    batch, channels, height, width = cur.shape
    image_h, image_w = image_size
    costs = torch.zeros(batch, len(depths), height, width, dtype=DTYPE)
    probe = [c for c in range(channels) if c % 4 == 0][-1]
    for b, k, i, j in itertools.product(range(batch), range(len(depths)), range(height),
                                        range(width)):
        u, v = j * (image_w - 1) / (width - 1), i * (image_h - 1) / (height - 1)
        d = depths[k].item()
        q = warps[b] @ torch.tensor([u * d, v * d, d, 1.], dtype=DTYPE)
        found, valid = torch.zeros(channels, dtype=DTYPE), False
        if q[2] > 1e-3:
            x, y = (q[0] / q[2]).item(), (q[1] / q[2]).item()
            found = naive_bilinear(prev[b], x * (width - 1) / (image_w - 1),
                                   y * (height - 1) / (image_h - 1))
            valid = -0.5 <= x <= image_w - 0.5 and -0.5 <= y <= image_h - 0.5
        if published:
            valid = found[probe] != 0
        costs[b, k, i, j] = (cur[b, :, i, j] - found).abs().sum() + (0 if valid else bias)
    return torch.softmax(-costs, dim=1)


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
