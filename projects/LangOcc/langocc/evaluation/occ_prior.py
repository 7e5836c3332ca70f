"""Per-voxel majority of a training set: the occupancy of a street nobody has looked at.

Legend: X, Y, Z grid cells; V = X * Y * Z; 18 classes of Occ3D-nuScenes (17 = free).
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Mapping, Optional, Union

import numpy as np

from ..files import atomic_write, existing_file
from ..occ3d import FREE_CLASS, NUM_CLASSES
from .occ_confusion import observed_voxels


@dataclass
class OccupancyPrior:
    """What :func:`fit_prior` found.

    Attributes:
        semantics: (X, Y, Z) uint8, the class that a voxel had most often where it was observed; of
            equally frequent classes the lowest, so that free loses; free where it never was.
        observed: (X, Y, Z) uint32, samples that observed the voxel.
        class_counts: (18,) int64, observed voxels of each class, all samples together.
        num_samples: samples read.
    """
    semantics: np.ndarray
    observed: np.ndarray
    class_counts: np.ndarray
    num_samples: int

    def save(self, path: Union[str, Path]) -> None:
        """Write a compressed ``.npz``, whole or not at all."""
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **vars(self))

    @classmethod
    def load(cls, path: Union[str, Path]) -> 'OccupancyPrior':
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no npz archive, lacks an array, or holds unknown classes.
        """
        existing_file(path, 'prior of tools/fit_prior.py')
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in cls.__dataclass_fields__}
        except Exception as error:  # zipfile, zlib and numpy each raise their own kinds
            raise ValueError(f'{path} cannot be read as a prior of tools/fit_prior.py: {error}'
                             ) from error
        semantics = arrays['semantics']
        if semantics.ndim != 3 or semantics.dtype != np.uint8 or semantics.max() >= NUM_CLASSES:
            raise ValueError(f'{path}: semantics must be (X, Y, Z) uint8 classes in '
                             f'[0, {NUM_CLASSES}), got {semantics.dtype} {semantics.shape} up to '
                             f'{semantics.max(initial=0)}')
        return cls(**dict(arrays, num_samples=int(arrays['num_samples'])))


def fit_prior(truths: Iterable[Mapping[str, np.ndarray]], mask: str = 'camera') -> OccupancyPrior:
    """Count classes voxel by voxel, one sample at a time.

    Keeps 72 bytes a voxel (46 MB for 200 x 200 x 16), whatever the number of samples.

    Args:
        truths: samples as :func:`langocc.evaluation.occ_files.load_occupancy` gives them.
        mask: voxels that count; names as in :func:`observed_voxels`.

    Raises:
        KeyError: unknown mask, or a sample lacks it.
        ValueError: no samples, or shapes that differ.
    """
    counts: Optional[np.ndarray] = None
    shape, num_samples = None, 0
    for truth in truths:
        semantics = np.asarray(truth['semantics'])
        if counts is None:
            shape = semantics.shape
            counts = np.zeros((semantics.size, NUM_CLASSES), dtype=np.uint32)
        if semantics.shape != shape:
            raise ValueError(f'sample {num_samples} has labels of shape {semantics.shape}, those '
                             f'before have {shape}')
        observed = observed_voxels(truth, mask)
        _count(counts, semantics, np.ones(shape, dtype=bool) if observed is None else observed)
        num_samples += 1
    if counts is None:
        raise ValueError('a prior needs at least one sample, got none')
    observed = counts.sum(axis=1, dtype=np.uint32)
    majority = np.where(observed > 0, counts.argmax(axis=1), FREE_CLASS)
    return OccupancyPrior(semantics=majority.astype(np.uint8).reshape(shape),
                          observed=observed.reshape(shape),
                          class_counts=counts.sum(axis=0, dtype=np.int64), num_samples=num_samples)


def _count(counts: np.ndarray, semantics: np.ndarray, observed: np.ndarray) -> None:
    """Adds one sample to ``counts`` (V, 18), in place; labels outside [0, 18) are unknown."""
    labels = semantics.reshape(-1)
    voxels = np.flatnonzero(observed.reshape(-1) & (labels >= 0) & (labels < NUM_CLASSES))
    counts[voxels, labels[voxels]] += 1  # every voxel once, so nothing is added twice
