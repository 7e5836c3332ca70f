"""Product quantisation: coefficients in parts, each part by the number of its nearest centroid.

Legend: P rows, E embedding, M parts (= bytes a row), C centroids of a part, d coefficients of a
part, D = M d.
"""
from typing import Any, Dict, List, Optional, Tuple

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from .linear_codec import BasisCodec, principal_basis, rows_to_fit, share

_CENTROIDS = 256
_CHUNK = 16384


@TASK_UTILS.register_module()
class ProductCodec(BasisCodec):
    """M bytes a row: one a part, 1 ... 255; a row of zeros is all 0.

    The coefficients are along main directions of the features, of which each part gets some large
    and some small ones, so that all parts have as much to say (as in Ge et al., "Optimized Product
    Quantization", CVPR 2013, 4.2, but along fewer directions than there are).

    Args:
        centroids: (M, 256, d), the first of each part zero.
        basis: (E, M d), the parts' columns one after the other; see :class:`BasisCodec`.
        mean, fitted: See :class:`BasisCodec`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or a first centroid that is
            not zero.
    """

    def __init__(self, centroids: Tensor, basis: Tensor, mean: Optional[Tensor] = None,
                 fitted: Optional[Dict[str, Any]] = None) -> None:
        if centroids.dim() != 3 or centroids.shape[1] != _CENTROIDS or \
                basis.shape[-1] != centroids.shape[0] * centroids.shape[2]:
            raise ValueError(f'ProductCodec: centroids have shape {tuple(centroids.shape)}, the '
                             f'basis {tuple(basis.shape)}, expected (M, {_CENTROIDS}, d) and '
                             f'(E, M d)')
        if not torch.isfinite(centroids).all() or centroids[:, 0].any():
            raise ValueError('ProductCodec: centroids must be finite, the first of each part zero')
        super().__init__(basis, mean, centroids.shape[0], fitted)
        self.register_buffer('centroids', centroids.detach().float().clone())

    @classmethod
    def fit(cls, rows: Tensor, num_parts: int = 64, part_dims: int = 3, iterations: int = 15,
            max_rows: int = 16384, seed: int = 0, metadata: Optional[Dict[str, Any]] = None
            ) -> 'ProductCodec':
        """Main directions of features, and centroids by k-means, part by part.

        Args:
            rows: (P, E) features.
            num_parts: M, at most E.
            part_dims: d; less where M d were more than E.
            iterations: Of k-means.
            max_rows: Rows that k-means takes of them, by chance.
            seed: Of that choice and of the first centroids.
            metadata: What the rows are; kept with the codec.

        Raises:
            ValueError: no rows, values that are not finite, or numbers out of range.
        """
        if not 1 <= num_parts <= rows.shape[-1] or part_dims < 1:
            raise ValueError(f'ProductCodec: num_parts is {num_parts} and part_dims {part_dims}, '
                             f'expected 1 ... {rows.shape[-1]} and at least 1')
        rows = rows_to_fit(rows, 'ProductCodec')
        mean, basis, variances = principal_basis(rows)
        dims = num_parts * min(part_dims, rows.shape[1] // num_parts)
        basis = basis[:, balanced_order(variances[:dims], num_parts)]
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(rows), generator=generator)[:max_rows]
        coefficients = ((rows[chosen] - mean) @ basis).float()
        centroids = torch.stack([
            k_means(part.contiguous(), _CENTROIDS - 1, iterations, generator)
            for part in coefficients.unflatten(1, (num_parts, -1)).unbind(1)])
        zero = centroids.new_zeros(num_parts, 1, centroids.shape[2])
        fitted = dict(metadata or {}, method='pca and k-means', num_rows=len(rows), dims=dims,
                      kept_variance=share(variances, dims), k_means_rows=len(chosen),
                      iterations=iterations, seed=seed)
        return cls(torch.cat([zero, centroids], dim=1), basis, mean, fitted)

    def _encode(self, rows: Tensor) -> Tensor:
        codes = rows.new_empty(len(rows), self.row_bytes, dtype=torch.uint8)
        parts = ((rows - self.mean) @ self.basis).unflatten(1, (self.row_bytes, -1))
        for start in range(0, len(rows), _CHUNK):
            for m, centroids in enumerate(self.centroids):
                index = nearest(parts[start:start + _CHUNK, m], centroids[1:])
                codes[start:start + _CHUNK, m] = (index + 1).to(torch.uint8)
        return codes.masked_fill_((rows == 0).all(dim=1, keepdim=True), 0)

    def _coefficients(self, rows: Tensor) -> Tuple[Tensor, Tensor]:
        part = torch.arange(self.row_bytes, device=rows.device)
        coefficients = self.centroids[part, rows.long()].flatten(1)
        return coefficients, rows.any(dim=1, keepdim=True).float()


def balanced_order(variances: Tensor, num_parts: int) -> Tensor:
    """Order (D,) of directions in which each part's are next to each other.

    From the largest variance on, each goes to the part that has room and whose variances (in units
    of the smallest) have the smallest product so far.
    """
    size = len(variances) // num_parts
    logs = variances.clamp(min=1e-9 * float(variances.max()) + 1e-30).log()
    logs = (logs - logs.min()).tolist()
    groups: List[List[int]] = [[] for _ in range(num_parts)]
    loads = [0.] * num_parts
    for index, value in enumerate(logs):
        room = [part for part in range(num_parts) if len(groups[part]) < size]
        part = min(room, key=lambda part: (loads[part], part))
        groups[part].append(index)
        loads[part] += value
    return torch.tensor([index for group in groups for index in group])


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Index (P,) of the centroid (C, d) nearest to each point (P, d); of equals the lowest."""
    scores = torch.addmm(centroids.square().sum(dim=1), points, centroids.T, alpha=-2)
    return scores.argmin(dim=1)


def k_means(points: Tensor, num_centroids: int, iterations: int, generator: torch.Generator
            ) -> Tensor:
    """Lloyd's algorithm from centroids drawn as k-means++ does.

    A centroid that no point is nearest to moves to the point that is farthest from its own.

    Args:
        points: (P, d) float32; P may be smaller than C.
        num_centroids: C.
        iterations: Steps.
        generator: Of the first centroids.

    Returns:
        (C, d) float32.
    """
    centroids = _first_centroids(points, num_centroids, generator)
    for _ in range(iterations):
        index = nearest(points, centroids)
        counts = torch.bincount(index, minlength=num_centroids)
        sums = torch.zeros_like(centroids).index_add_(0, index, points)
        apart = (points - centroids[index]).square().sum(dim=1)
        centroids = sums / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0][:len(points)]
        centroids[empty] = points[apart.topk(len(empty)).indices]
    return centroids


def _first_centroids(points: Tensor, num_centroids: int, generator: torch.Generator) -> Tensor:
    """Points (C, d), each drawn in proportion to its squared distance from those before."""
    apart = points.new_ones(len(points))  # the first of all: each point alike
    centroids = points.new_empty(num_centroids, points.shape[1])
    for i in range(num_centroids):
        chances = apart if apart.any() else torch.ones_like(apart)
        centroids[i] = points[torch.multinomial(chances, 1, generator=generator)[0]]
        squares = (points - centroids[i]).square().sum(dim=1)
        apart = torch.minimum(apart, squares) if i else squares
    return centroids
