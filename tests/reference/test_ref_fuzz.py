"""Ops of any size against naive float64 loops, forward and backward, in torch and in Triton.

The examples are the same at every run; for others, raise ``max_examples``.
"""
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_ops import (
    DTYPE, naive_cost_volume, naive_lift_splat, naive_product, naive_samples, naive_trilinear,
    naive_weights
)

from voxelrender import VoxelGrid, lift_splat, ops, sparse_product, stereo_cost_volume

FUZZ = settings(max_examples=15, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 2**16)


@pytest.fixture(scope='module', params=['torch', 'triton'])
def backend(request):
    """The backend under test; for Triton, this machine's way to run it."""
    if request.param == 'triton' and torch.cuda.is_available():
        pytest.skip('interpreted only; see test_ref_triton.py for compiled kernels')
    return request.param


def check(outputs, naive, leaves, naive_leaves, backend):
    """Compares values and gradients: 1e-9 in torch's float64, 1e-3 in Triton's float32."""
    atol = 1e-9 if backend == 'torch' else 1e-3
    for output, expected in zip(outputs, naive):
        assert torch.allclose(output.double(), expected, atol=atol, rtol=atol)
    grads = [torch.randn(expected.shape, dtype=DTYPE) for expected in naive]
    naive = [expected + 0 * sum(leaf.sum() for leaf in naive_leaves) for expected in naive]
    ours = torch.autograd.grad(outputs, leaves, [g.to(o.dtype) for g, o in zip(grads, outputs)])
    theirs = torch.autograd.grad(naive, naive_leaves, grads)
    for got, expected in zip(ours, theirs):
        assert torch.allclose(got.double(), expected, atol=atol, rtol=atol)


def pair(tensor, backend):
    """A leaf in the type that the backend computes in, and one in float64."""
    kind = DTYPE if backend == 'torch' else torch.float32
    return tensor.to(kind).requires_grad_(), tensor.to(kind).double().requires_grad_()


def entries(draw_count, high):
    return torch.randint(0, max(high, 1), (draw_count,))


@FUZZ
@given(count=st.integers(0, 40), num_rows=st.integers(1, 9), num_cols=st.integers(1, 9),
       channels=st.integers(1, 20), seed=SEEDS)
def test_sparse_product(backend, count, num_rows, num_cols, channels, seed):
    torch.manual_seed(seed)
    rows, cols = entries(count, num_rows), entries(count, num_cols)
    values, naive_values = pair(torch.randn(count), backend)
    feats, naive_feats = pair(torch.randn(num_cols, channels), backend)
    got = sparse_product(rows, cols, values, feats, num_rows, backend)
    naive = naive_product(rows, cols, naive_values, naive_feats, num_rows)
    check([got], [naive], (values, feats), (naive_values, naive_feats), backend)


@FUZZ
@given(shape=st.tuples(*[st.integers(1, 3)] * 5), channels=st.integers(1, 5),
       cells=st.tuples(*[st.integers(1, 4)] * 3), truncate=st.booleans(), seed=SEEDS)
def test_lift_splat(backend, shape, channels, cells, truncate, seed):
    torch.manual_seed(seed)
    grid = VoxelGrid((0, 0, 0, *(0.5 * count for count in cells)), (0.5, 0.5, 0.5))
    points = torch.rand(*shape, 3) * 3 - 0.7
    depth, naive_depth = pair(torch.rand(shape), backend)
    context, naive_context = pair(torch.randn(*shape[:2], channels, *shape[3:]), backend)
    got = lift_splat(depth, context, points, grid, truncate, backend)
    naive = naive_lift_splat(naive_depth, naive_context, points, grid, truncate)
    check([got], [naive], (depth, context), (naive_depth, naive_context), backend)


@FUZZ
@given(batch=st.integers(1, 2), channels=st.integers(1, 6), height=st.integers(1, 5),
       width=st.integers(1, 5), num_depths=st.integers(1, 6), published=st.booleans(), seed=SEEDS)
def test_stereo_cost_volume(backend, batch, channels, height, width, num_depths, published, seed):
    torch.manual_seed(seed)
    kind = DTYPE if backend == 'torch' else torch.float32
    cur, prev = torch.randn(2, batch, channels, height, width).to(kind)
    matrices = torch.eye(4, dtype=DTYPE).repeat(batch, 1, 1)
    matrices[:, :3] += torch.randn(batch, 3, 4) * torch.tensor([0.05, 0.05, 0.2, 3.])
    depths = torch.rand(num_depths, dtype=DTYPE) * 20 + 0.5
    rest = matrices, depths, (4 * height, 4 * width), 2.5, published
    got = stereo_cost_volume(cur, prev, *rest, backend=backend)
    naive = naive_cost_volume(cur.double(), prev.double(), *rest)
    assert torch.allclose(got.double(), naive, atol=1e-9 if backend == 'torch' else 1e-4)


@FUZZ
@given(cells=st.tuples(*[st.integers(1, 5)] * 3), num_points=st.integers(0, 20),
       alignment=st.sampled_from(['centers', 'edges']), seed=SEEDS)
def test_sample_volume(backend, cells, num_points, alignment, seed):
    torch.manual_seed(seed)
    grid = VoxelGrid((0, 0, 0, *(0.5 * count for count in cells)), (0.5, 0.5, 0.5), alignment)
    points = torch.rand(num_points, 3) * 3.5 - 0.5
    volume, naive_volume = pair(torch.randn(grid.volume_shape), backend)
    points = points.to(volume.dtype)
    got = ops.sample_volume(grid, volume, points, backend)
    naive = [naive_trilinear(grid, naive_volume[None], point.double()) for point in points]
    naive = torch.cat([torch.zeros(0, dtype=DTYPE), *naive])
    check([got], [naive], (volume,), (naive_volume,), backend)


@FUZZ
@given(num_rays=st.integers(0, 4), bins=st.integers(1, 20), count=st.integers(1, 40), seed=SEEDS)
def test_importance_samples(backend, num_rays, bins, count, seed):
    torch.manual_seed(seed)
    edges, sigmas = torch.rand(num_rays, bins + 1).cumsum(-1), torch.rand(num_rays, bins) + 0.05
    if backend == 'torch':
        edges, sigmas = edges.double(), sigmas.double()
    got = ops.importance_samples(edges, sigmas, count, backend)
    assert got.shape == (num_rays, count)
    for ray in range(num_rays):
        naive = naive_samples(edges[ray].tolist(), sigmas[ray].tolist(), count)
        assert torch.allclose(got[ray].double(), torch.tensor(naive, dtype=DTYPE),
                              atol=1e-9 if backend == 'torch' else 1e-3)


@FUZZ
@given(num_rays=st.integers(0, 4), count=st.integers(1, 30), seed=SEEDS)
def test_composite(backend, num_rays, count, seed):
    torch.manual_seed(seed)
    edges = torch.rand(num_rays, count + 1).cumsum(-1)
    sigmas, naive_sigmas = pair(torch.rand(num_rays, count) ** 3 * 8, backend)
    edges = edges.to(sigmas.dtype)
    got = ops.composite(sigmas, edges[:, :-1], edges[:, 1:], backend)
    naive = naive_weights(naive_sigmas, edges[:, :-1].double(), edges[:, 1:].double())
    check(got, naive, (sigmas,), (naive_sigmas,), backend)
