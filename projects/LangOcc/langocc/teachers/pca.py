"""A PCA basis of image features as a reducer: the D directions that keep most of them.

**Not centred.** A reduced feature is compared with reduced text by its cosine, so what has to
survive is the angle at the origin: for a feature x in the span of an orthonormal U, x . t is
(x U) . (t U), whatever the text t is. About the mean it would not be: image and text features have
different means (CLIP's modality gap), and their difference would enter every cosine. So U holds
the main eigenvectors of the second moment E[x x^T] of unit features, and the first one is about
their mean. As most of a feature's length is that mean, the share of the length that is kept
(``energy``) flatters; ``explained_variance``, the share of the spread about the mean, does not.

Legend: P features, E embedding, D reduced dimensions.
"""
from typing import Any, Dict, Iterable, Optional, Tuple

import torch
from torch import Tensor

from .reducer import Reducer

# Rows whose products are summed at a time.
_CHUNK = 65536


class FeatureMoments:
    """Count, mean and second moment of unit features, summed batch by batch in float64.

    Memory is E x E numbers, however many features there are.

    Args:
        embed_dims: E.
    """

    def __init__(self, embed_dims: int) -> None:
        if embed_dims < 1:
            raise ValueError(f'embed_dims is {embed_dims}, expected at least 1')
        self.count = 0
        self.num_empty = 0
        self._sum = torch.zeros(embed_dims, dtype=torch.float64)
        self._products = torch.zeros(embed_dims, embed_dims, dtype=torch.float64)

    @property
    def embed_dims(self) -> int:
        """E."""
        return len(self._sum)

    def update(self, feats: Tensor) -> 'FeatureMoments':
        """Add features.

        Args:
            feats: (..., E), any floating type and length; normalised here. Zero rows have no
                direction: they are left out, and counted in ``num_empty``.

        Raises:
            ValueError: another width, or values that are not finite.
        """
        if feats.dim() < 1 or feats.shape[-1] != self.embed_dims:
            raise ValueError(f'features have shape {tuple(feats.shape)}, expected '
                             f'(..., {self.embed_dims})')
        for rows in feats.detach().reshape(-1, self.embed_dims).split(_CHUNK):
            rows = rows.to('cpu', torch.float64)
            lengths = rows.norm(dim=1, keepdim=True)
            if not torch.isfinite(lengths).all():
                raise ValueError(f'{int((~torch.isfinite(lengths)).sum())} of {len(rows)} features '
                                 'are not finite')
            known = lengths[:, 0] > 0
            rows = rows[known] / lengths[known]
            self.count += len(rows)
            self.num_empty += int((~known).sum())
            self._sum += rows.sum(dim=0)
            self._products.addmm_(rows.T, rows)
        return self

    @property
    def mean(self) -> Tensor:
        """(E,) float64."""
        return self._sum / max(self.count, 1)

    @property
    def second_moment(self) -> Tensor:
        """(E, E) float64, E[x x^T]; of trace 1."""
        return self._products / max(self.count, 1)

    @property
    def covariance(self) -> Tensor:
        """(E, E) float64, about the mean."""
        return self.second_moment - torch.outer(self.mean, self.mean)


def main_directions(moment: Tensor) -> Tuple[Tensor, Tensor]:
    """Eigenvalues (E,), largest first and none negative, and eigenvectors (E, E) in columns.

    An eigenvector's sign is arbitrary: its largest value shall be positive.

    Args:
        moment: (E, E), symmetric.
    """
    values, vectors = torch.linalg.eigh(moment)
    basis = vectors.flip(1)
    peak = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
    return values.flip(0).clamp(min=0), basis * peak.sign()


def moments_of(batches: Iterable[Tensor]) -> FeatureMoments:
    """Moments of batches of features (..., E).

    Raises:
        ValueError: there is no batch, or they differ in E.
    """
    moments: Optional[FeatureMoments] = None
    for feats in batches:
        if moments is None:
            moments = FeatureMoments(feats.shape[-1])
        moments.update(feats)
    if moments is None:
        raise ValueError('there are no features to fit a basis on')
    return moments


def fit_pca(moments: FeatureMoments, dims: int = 128, metadata: Optional[Dict[str, Any]] = None
            ) -> Reducer:
    """The reducer of the D largest eigenvalues of the features' second moment.

    Args:
        moments: of the features.
        dims: D.
        metadata: what the features are; stored with the reducer.

    Returns:
        A reducer with orthonormal columns, each signed so that its largest value is positive.
        ``metadata`` says ``method='pca'``, ``centred=False``, ``num_features``, ``num_empty``,
        ``energy`` and ``explained_variance`` (see the module) and the D ``eigenvalues``.

    Raises:
        ValueError: no feature, or D is not in 1 ... E.
    """
    if not moments.count:
        raise ValueError(f'there are no features to fit a basis on ({moments.num_empty} are zero)')
    if not 1 <= dims <= moments.embed_dims:
        raise ValueError(f'dims is {dims}, expected 1 ... {moments.embed_dims}')
    values, basis = main_directions(moments.second_moment)
    values, basis = values[:dims], basis[:, :dims]
    covariance = moments.covariance
    spread = float(covariance.trace())
    kept = float((basis.T @ covariance @ basis).trace())
    facts = dict(metadata or {}, method='pca', fitted=True, centred=False, dims=dims,
                 num_features=moments.count, num_empty=moments.num_empty,
                 energy=min(float(values.sum()), 1.),
                 # Features that are all one direction have no spread, and none is lost.
                 explained_variance=min(kept / spread, 1.) if spread > 1e-12 else 1.,
                 eigenvalues=[round(value, 9) for value in values.tolist()])
    return Reducer(basis.float(), facts)
