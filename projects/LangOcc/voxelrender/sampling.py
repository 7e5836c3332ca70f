"""Where along a ray to look: uniform proposals, then importance samples.

The rule is LangOcc's (paper section on rendering; nerfacc's proposal scheme): densities at the
proposal bins give a CDF, one minus the transmittance, whose inverse places the samples.

Legend: R rays, S proposal bins, M importance samples. Distances in metres along the ray.
"""
from typing import Optional, Tuple

import torch
from torch import Tensor

from .compositing import transmittance
from .voxel_grid import full_precision


def uniform_edges(num_rays: int, num_samples: int, near: float, far: float, jitter: bool = False,
                  generator: Optional[torch.Generator] = None,
                  device: Optional[torch.device] = None,
                  dtype: Optional[torch.dtype] = None) -> Tensor:
    """Edges (R, S + 1) of ``num_samples`` equal bins from near to far.

    Args:
        num_rays: R.
        num_samples: S, at least 1.
        near: First edge.
        far: Last edge.
        jitter: Move the inner edges of each ray together by a random part of a bin in
            [-1/2, 1/2); the outer edges stay, so the bins always tile near..far in order.
        generator: Source of the jitter; may be a CPU generator for any device.
        device: Of the result.
        dtype: Of the result.

    Raises:
        ValueError: Without a bin, or where far is not beyond near.
    """
    if num_samples < 1 or not far > near:
        raise ValueError(f'{num_samples} bins from near={near} to far={far}: expected at least '
                         'one bin and far > near')
    edges = torch.linspace(near, far, num_samples + 1, device=device, dtype=dtype)
    edges = edges.expand(num_rays, -1).clone()
    if jitter:
        source = generator.device if generator is not None else edges.device
        offsets = torch.rand(num_rays, 1, generator=generator, device=source, dtype=edges.dtype)
        edges[:, 1:-1] += (offsets.to(edges.device) - 0.5) * ((far - near) / num_samples)
    return edges


@torch.no_grad()
def importance_samples(t_edges: Tensor, sigmas: Tensor, num_samples: int) -> Tensor:
    """Distances (R, M) drawn where the proposal densities stop light; no gradient.

    The CDF at a bin's start is 1 - transmittance there and the last edge's is 1, so light that
    nothing stops falls into the last bin. The samples are the piecewise-linear inverse at
    ``u = (i + 0.5) / M``.

    Args:
        t_edges: (R, S + 1), increasing.
        sigmas: (R, S) in 1/m, at least 0, read at the bin centres.
        num_samples: M, at least 1.
    """
    if num_samples < 1 or t_edges.shape[-1] != sigmas.shape[-1] + 1:
        raise ValueError(f'{num_samples} samples from edges {tuple(t_edges.shape)} and densities '
                         f'{tuple(sigmas.shape)}: expected M >= 1, (R, S + 1) and (R, S)')
    sigmas = full_precision(sigmas)
    t_edges = t_edges.to(sigmas.dtype)
    cdf = 1 - transmittance(sigmas, t_edges[:, 1:] - t_edges[:, :-1])
    cdf = torch.cat([cdf, torch.ones_like(cdf[:, :1])], dim=-1)
    u = (torch.arange(num_samples, device=cdf.device, dtype=cdf.dtype) + 0.5) / num_samples
    u = u.expand(len(cdf), -1).contiguous()
    # cdf[:, 0] = 0 < u < 1 = cdf[:, -1]: the bin found holds u and has a CDF that rises.
    above = torch.searchsorted(cdf, u, right=True).clamp(1, sigmas.shape[-1])
    below = above - 1
    cdf_low, cdf_high = cdf.gather(-1, below), cdf.gather(-1, above)
    t_low, t_high = t_edges.gather(-1, below), t_edges.gather(-1, above)
    share = (u - cdf_low) / (cdf_high - cdf_low).clamp_min(torch.finfo(cdf.dtype).tiny)
    return t_low + share.clamp(0, 1) * (t_high - t_low)


def edges_from_mids(t_mids: Tensor, near: float, far: float) -> Tuple[Tensor, Tensor]:
    """Interval starts and ends (R, M) around samples (R, M).

    Inner edges are midpoints between samples. The end intervals are mirrored about their samples
    and clamped to near..far, so the intervals need not tile near..far (as published). A single
    sample owns all of near..far.
    """
    if t_mids.shape[-1] == 1:
        return torch.full_like(t_mids, near), torch.full_like(t_mids, far)
    inner = (t_mids[:, 1:] + t_mids[:, :-1]) / 2
    first = (2 * t_mids[:, :1] - inner[:, :1]).clamp_min(near)
    last = (2 * t_mids[:, -1:] - inner[:, -1:]).clamp_max(far)
    return torch.cat([first, inner], dim=-1), torch.cat([inner, last], dim=-1)
