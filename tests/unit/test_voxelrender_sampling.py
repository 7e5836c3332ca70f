"""Samples along rays and compositing: exact answers."""
import pytest
import torch

from voxelrender import (
    accumulate, alphas_from_densities, edges_from_mids, expected_distances, importance_samples,
    opacities, transmittance, transmittance_from_alphas, uniform_edges, weights_from_densities
)


def test_uniform_edges_tile_the_range():
    edges = uniform_edges(3, 50, 0.05, 40.)
    assert edges.shape == (3, 51)
    assert torch.allclose(edges.diff(dim=-1), torch.full((3, 50), 39.95 / 50), atol=1e-5)


def test_jitter_moves_inner_edges_by_up_to_half_a_bin():
    plain = uniform_edges(500, 10, 1., 11., dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    edges = uniform_edges(500, 10, 1., 11., True, generator, dtype=torch.float64)
    moved = edges - plain
    assert (moved[:, [0, -1]] == 0).all()
    inner = moved[:, 1:-1]
    assert torch.allclose(inner, inner[:, :1].expand_as(inner))
    assert inner.abs().max() <= 0.5 and inner.min() < -0.45 and inner.max() > 0.45
    assert inner[:, 0].std() > 0.2
    assert (edges.diff(dim=-1) > 0).all()
    again = uniform_edges(500, 10, 1., 11., True, torch.Generator().manual_seed(3),
                          dtype=torch.float64)
    assert torch.equal(edges, again)


def test_uniform_edges_of_nothing_and_of_bad_numbers():
    assert uniform_edges(0, 5, 0., 1., jitter=True).shape == (0, 6)
    assert uniform_edges(2, 1, 0., 1., jitter=True).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match='far > near'):
        uniform_edges(1, 5, 1., 1.)
    with pytest.raises(ValueError, match='at least one bin'):
        uniform_edges(1, 0, 0., 1.)


def test_importance_samples_without_density_fall_into_the_last_bin():
    edges = uniform_edges(1, 4, 0., 8., dtype=torch.float64)
    samples = importance_samples(edges, torch.zeros(1, 4, dtype=torch.float64), 4)
    assert torch.allclose(samples, torch.tensor([[6.25, 6.75, 7.25, 7.75]]).double())


def test_importance_samples_meet_at_a_wall():
    edges = uniform_edges(1, 8, 0., 8., dtype=torch.float64)
    sigmas = torch.zeros(1, 8, dtype=torch.float64)
    sigmas[0, 3] = 1e4
    samples = importance_samples(edges, sigmas, 10)
    expected = 3 + (torch.arange(10) + 0.5) / 10
    assert torch.allclose(samples[0], expected.double(), atol=1e-12)


def test_a_sample_on_a_plateau_of_the_cdf_lies_at_its_end():
    edges = torch.arange(4.).double()[None]
    sigmas = -torch.tensor([[0.5, 1., 0.5]]).double().log()
    # The CDF is 0, 1/2, 1/2, 1 and u is 1/2: the next light is stopped from 2 m on.
    assert importance_samples(edges, sigmas, 1).item() == 2.


def test_importance_samples_are_ordered_and_carry_no_gradient():
    edges = uniform_edges(50, 20, 0.05, 40., jitter=True)
    sigmas = (torch.rand(50, 20) ** 8 * 5).requires_grad_()
    samples = importance_samples(edges, sigmas, 33)
    assert not samples.requires_grad
    assert (samples.diff(dim=-1) >= 0).all()
    assert (samples >= 0.05).all() and (samples <= 40.).all()
    with pytest.raises(ValueError, match=r'\(R, S \+ 1\)'):
        importance_samples(edges, sigmas[:, :-1], 5)


def test_edges_are_midpoints_mirrored_at_the_ends():
    starts, ends = edges_from_mids(torch.tensor([[1., 2., 4.]]), 0.8, 40.)
    assert torch.allclose(starts, torch.tensor([[0.8, 1.5, 3.]]))
    assert torch.allclose(ends, torch.tensor([[1.5, 3., 5.]]))
    _, ends = edges_from_mids(torch.tensor([[1., 2., 4.]]), 0.05, 4.5)
    assert ends[0, -1] == 4.5


def test_one_sample_owns_the_ray():
    starts, ends = edges_from_mids(torch.tensor([[3.]]), 0.05, 40.)
    assert starts[0, 0] == pytest.approx(0.05) and ends[0, 0] == 40
    weights, trans = weights_from_densities(torch.tensor([[0.1]]), starts, ends)
    assert trans[0, 0] == 1
    assert torch.allclose(weights, 1 - torch.exp(torch.tensor([[-3.995]])))


def test_constant_density_gives_the_exponential_law():
    edges = uniform_edges(1, 30, 0., 6., jitter=True, dtype=torch.float64)
    sigmas = torch.full((1, 30), 0.7, dtype=torch.float64)
    weights, trans = weights_from_densities(sigmas, edges[:, :-1], edges[:, 1:])
    assert torch.allclose(opacities(weights), 1 - torch.exp(torch.tensor([-4.2]).double()))
    assert torch.allclose(trans, torch.exp(-0.7 * edges[:, :-1]))
    deltas = edges.diff(dim=-1)
    assert torch.allclose(weights, transmittance(sigmas, deltas)
                          * alphas_from_densities(sigmas, deltas))
    assert torch.allclose(trans, transmittance_from_alphas(alphas_from_densities(sigmas, deltas)))


def test_small_densities_keep_their_digits():
    sigmas = torch.full((1, 1), 1e-9)
    weights, _ = weights_from_densities(sigmas, torch.zeros(1, 1), torch.ones(1, 1))
    assert weights.item() == pytest.approx(1e-9, rel=1e-6)


def test_gradient_is_finite_behind_an_opaque_wall():
    sigmas = torch.tensor([[1e6, 0., 1e6, 1.]], requires_grad=True)
    edges = torch.arange(5.)[None]
    weights, trans = weights_from_densities(sigmas, edges[:, :-1], edges[:, 1:])
    assert trans.tolist() == [[1, 0, 0, 0]]
    (weights.sum() + expected_distances(weights, edges[:, :-1]).sum()).backward()
    assert torch.isfinite(sigmas.grad).all()


def test_accumulate_and_distances():
    weights = torch.tensor([[0.25, 0.5], [0., 0.]], requires_grad=True)
    mids = torch.tensor([[2., 5.], [1., 2.]])
    assert accumulate(weights, mids).tolist() == [3., 0.]
    values = torch.randn(2, 2, 3)
    assert torch.allclose(accumulate(weights, values), (weights[..., None] * values).sum(1))
    distances = expected_distances(weights, mids)
    assert distances.tolist() == [4., 0.]
    distances.sum().backward()
    assert torch.isfinite(weights.grad).all()


def test_compositing_stays_in_full_precision_under_autocast():
    sigmas, edges = torch.rand(4, 20), uniform_edges(4, 20, 0., 10.)
    values = torch.randn(4, 20, 8)
    plain, _ = weights_from_densities(sigmas, edges[:, :-1], edges[:, 1:])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast, trans = weights_from_densities(sigmas, edges[:, :-1], edges[:, 1:])
        total = accumulate(cast, values)
    assert cast.dtype == trans.dtype == total.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert torch.allclose(total, accumulate(plain, values))
    half = weights_from_densities(sigmas.bfloat16(), edges[:, :-1], edges[:, 1:])[0]
    assert half.dtype == torch.float32
