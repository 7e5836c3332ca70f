"""Volume rendering: densities to weights, and weighted sums along rays.

sigma (1/m) -> alpha -> transmittance -> weight -> opacity, as in NeRF (Mildenhall et al. 2020,
eq. 3) and LangOcc (section on rendering). All in float32 (or float64), also under autocast.

Legend: R rays, S samples, C channels.
"""
from typing import Tuple

import torch
from torch import Tensor

from .voxel_grid import full_precision


def alphas_from_densities(sigmas: Tensor, deltas: Tensor) -> Tensor:
    """``1 - exp(-sigma * delta)`` for densities (R, S) in 1/m and lengths (R, S) in metres."""
    return -torch.expm1(-full_precision(sigmas) * deltas)


def transmittance(sigmas: Tensor, deltas: Tensor) -> Tensor:
    """Light that reaches the start of each interval, (R, S) in [0, 1], first 1.

    The exponential of an exclusive running sum of the optical depth, which stays exact where a
    product of many factors near 1 would not and has a finite gradient where it is 0.

    Args:
        sigmas: (R, S) in 1/m.
        deltas: (R, S) in metres.
    """
    return _exclusive_transmittance(full_precision(sigmas) * deltas)


def transmittance_from_alphas(alphas: Tensor) -> Tensor:
    """Light that reaches the start of each interval, (R, S), from alphas (R, S) in [0, 1]."""
    alphas = full_precision(alphas)
    passed = torch.cumprod(1 - alphas, dim=-1)
    return torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=-1)


def weights_from_densities(sigmas: Tensor, t_starts: Tensor,
                           t_ends: Tensor) -> Tuple[Tensor, Tensor]:
    """Rendering weights (R, S) and transmittance (R, S) at the interval starts.

    Args:
        sigmas: (R, S) in 1/m.
        t_starts: (R, S) in metres along the ray.
        t_ends: (R, S) in metres along the ray.
    """
    depth = full_precision(sigmas) * (t_ends - t_starts)
    trans = _exclusive_transmittance(depth)
    return trans * -torch.expm1(-depth), trans


def accumulate(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sum along rays: weights (R, S), values (R, S) or (R, S, C) -> (R,) or (R, C)."""
    weights, values = full_precision(weights), full_precision(values)
    if values.dim() == weights.dim():
        return (weights * values).sum(-1)
    with torch.autocast(weights.device.type, enabled=False):
        return torch.matmul(weights[:, None], values)[:, 0]


def opacities(weights: Tensor) -> Tensor:
    """Share of the light that the ray's samples stop, (R,) in [0, 1]."""
    return full_precision(weights).sum(-1)


def expected_distances(weights: Tensor, t_mids: Tensor, eps: float = 1e-6) -> Tensor:
    """Weighted mean of sample distances, (R,) in metres; 0 for a ray that meets nothing.

    Args:
        weights: (R, S).
        t_mids: (R, S) in metres along the ray.
        eps: Least opacity to divide by, which keeps value and gradient finite.
    """
    return accumulate(weights, t_mids) / opacities(weights).clamp_min(eps)


def _exclusive_transmittance(depth: Tensor) -> Tensor:
    """exp(-(sum of the optical depths (R, S) before each sample))."""
    before = torch.cat([torch.zeros_like(depth[:, :1]), depth[:, :-1].cumsum(-1)], dim=-1)
    return torch.exp(-before)
