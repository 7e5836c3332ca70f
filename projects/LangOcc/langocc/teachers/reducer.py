"""A linear map from the text space to fewer dimensions, fitted on a vocabulary.

The paper's reduced model: b = normalise(x U), x' = normalise(b U^T), loss
10 * mean angle(x, x'). The published angle is ``arccos(x . x')``, whose gradient is infinite where
the fit is perfect; here it is ``2 atan2(|x - x'|, |x + x'|)``: the same angle, with a bounded
gradient everywhere. Another way to a matrix U is a PCA basis of image features, :mod:`.pca`.

Legend: K embeddings, E embedding, D reduced dimensions.
"""
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import atomic_write
from .text import PathLike

# Below this length a vector has no direction; bounds the gradient of normalising it by 1e6.
_TINY = 1e-6


def _unit(x: Tensor) -> Tensor:
    """Normalise rows with a gradient that stays bounded at zero."""
    return x * (x.square().sum(dim=-1, keepdim=True) + _TINY**2).rsqrt()


def stable_angle(x: Tensor, y: Tensor) -> Tensor:
    """Angle between unit rows, with a bounded gradient also at x = y and x = -y.

    Args:
        x, y: (..., E) unit vectors.

    Returns:
        (...) radians in [0, pi].
    """
    apart = torch.linalg.vector_norm(x - y, dim=-1)
    along = torch.linalg.vector_norm(x + y, dim=-1)
    return 2 * torch.atan2(apart, along)


class Reducer(nn.Module):
    """The frozen matrix U and the two maps it gives.

    Args:
        matrix: (E, D); a buffer, so it lies in checkpoints and is never trained.
        metadata: What it was fitted on and how; strings, numbers and lists.

    Raises:
        ValueError: the matrix is not two-dimensional, not finite, or widens (D > E).
    """

    def __init__(self, matrix: Tensor, metadata: Optional[Dict[str, Any]] = None) -> None:
        super().__init__()
        if matrix.dim() != 2 or not 0 < matrix.shape[1] <= matrix.shape[0]:
            raise ValueError(f'reducer matrix has shape {tuple(matrix.shape)}, expected (E, D) '
                             'with D <= E')
        if not torch.isfinite(matrix).all():
            raise ValueError('reducer matrix has values that are not finite')
        self.register_buffer('matrix', matrix.detach().to(torch.float32).clone())
        self.metadata = dict(metadata or {})

    @classmethod
    def from_config(cls, config: Union[PathLike, Sequence[int], Dict[str, Any]]) -> 'Reducer':
        """A reducer for a model.

        Args:
            config: File written by :meth:`save`; or ``dict(dims=(E, D))`` (or just ``(E, D)``) for
                a matrix that a checkpoint will replace, until then a fixed random projection.
        """
        if isinstance(config, (str, Path)):
            return cls.load(config)
        dims = config['dims'] if isinstance(config, dict) else config
        return cls(_initial_matrix(*dims, seed=0).float(), dict(fitted=False))

    @property
    def embed_dims(self) -> int:
        """E."""
        return self.matrix.shape[0]

    @property
    def dims(self) -> int:
        """D."""
        return self.matrix.shape[1]

    def reduce(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., D), L2-normalised, in the type of ``x``; zero where ``x`` is."""
        return _project(x, self.matrix)

    def restore(self, b: Tensor) -> Tensor:
        """(..., D) -> (..., E), likewise."""
        return _project(b, self.matrix.T)

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`reduce`."""
        return self.reduce(x)

    def save(self, path: PathLike) -> None:
        """Write matrix and metadata to a ``.safetensors`` file, whole or not at all."""
        with atomic_write(path) as temporary:
            save_file({'matrix': self.matrix.cpu().contiguous()}, str(temporary),
                      metadata={'langocc_reducer': json.dumps(self.metadata)})

    @classmethod
    def load(cls, path: PathLike) -> 'Reducer':
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged or holds no reducer.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f'reducer {path} does not exist; is SYNTHETIC_ROOT (of the synthetic recipes) or '
                'LANGOCC_INFO_ROOT (else the data root) the folder that has it? '
                'tools/fit_reducer.py writes one')
        try:
            with safe_open(str(path), framework='pt') as file:
                if 'matrix' not in file.keys():
                    raise ValueError(f"no tensor 'matrix', only {list(file.keys())}")
                metadata = json.loads((file.metadata() or {}).get('langocc_reducer', '{}'))
                return cls(file.get_tensor('matrix'), metadata)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f'cannot read reducer {path}: {error}') from error


def _project(x: Tensor, matrix: Tensor) -> Tensor:
    """Unit rows of ``x @ matrix``, computed in float32 at least, also under autocast.

    In half precision the smallest length that normalising divides by would be 0, and a zero row
    nan.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize(wide @ matrix.to(wide), dim=-1).to(x.dtype)


def _initial_matrix(embed_dims: int, dims: int, seed: int) -> Tensor:
    """(E, D) float64 from N(0, 0.1^2)."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(embed_dims, dims, generator=generator, dtype=torch.float64)


def reducer_loss(matrix: Tensor, text_embeds: Tensor) -> Tensor:
    """10 x mean angle (radians) between embeddings and what is left of them; never NaN.

    Args:
        matrix: (E, D).
        text_embeds: (K, E) unit rows.

    Returns:
        Scalar.
    """
    reduced = _unit(text_embeds @ matrix)
    return 10 * stable_angle(text_embeds, _unit(reduced @ matrix.T)).mean()


def fit_reducer(text_embeds: Tensor,
                dims: int = 128,
                lr: float = 1e-3,
                max_steps: int = 250,
                loss_tolerance: float = 1e-4,
                change_tolerance: float = 1e-4,
                patience: int = 30,
                seed: int = 0,
                metadata: Optional[Dict[str, Any]] = None) -> Tuple[Reducer, List[float]]:
    """Fit U by full-batch Adam (the paper's reduced model).

    Args:
        text_embeds: (K, E) embeddings; K may be smaller than ``dims``.
        dims: D.
        lr: Adam's step.
        max_steps: Steps at most.
        loss_tolerance: Stop when the loss is below it.
        change_tolerance, patience: Stop after ``patience`` steps in a row that each changed the
            loss by less than ``change_tolerance``.
        seed: Of the initial N(0, 0.1^2).
        metadata: What the embeddings are; stored with the reducer.

    Returns:
        The reducer of the lowest loss, and the losses at every step.

    Raises:
        ValueError: the embeddings are not (K, E), empty, not finite, of zero length, or D is not
            in 1 ... E.
    """
    if text_embeds.dim() != 2 or not len(text_embeds):
        raise ValueError(f'text embeddings have shape {tuple(text_embeds.shape)}, expected (K, E)')
    if not 1 <= dims <= text_embeds.shape[1]:
        raise ValueError(f'dims is {dims}, expected 1 ... {text_embeds.shape[1]}')
    norms = text_embeds.norm(dim=1)
    if not (torch.isfinite(norms) & (norms > 0)).all():
        raise ValueError('text embeddings have rows of zero length or that are not finite')
    target = F.normalize(text_embeds.detach().double(), dim=1)
    matrix = _initial_matrix(target.shape[1], dims, seed).requires_grad_()
    optimizer = torch.optim.Adam([matrix], lr=lr)
    history: List[float] = []
    best, still = matrix.detach().clone(), 0
    for _ in range(max_steps + 1):  # max_steps updates; the last turn only evaluates
        loss = reducer_loss(matrix, target)
        value = loss.item()
        if not history or value < min(history):
            best = matrix.detach().clone()
        still = still + 1 if history and abs(value - history[-1]) < change_tolerance else 0
        history.append(value)
        if value < loss_tolerance or still >= patience or len(history) > max_steps:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    facts = dict(metadata or {}, fitted=True, num_embeddings=len(target), dims=dims, lr=lr,
                 seed=seed, steps=len(history) - 1, loss=min(history))
    return Reducer(best.float(), facts), history
