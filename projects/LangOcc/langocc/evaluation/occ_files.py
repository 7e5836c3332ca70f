"""Occupancy files in Occ3D's layout: ``<root>/<scene_name>/<sample_token>/labels.npz``."""
import os
from pathlib import Path
from typing import Dict, Union

import numpy as np

from ..files import atomic_write


def load_occupancy(path: Union[str, Path]) -> Dict[str, np.ndarray]:
    """Reads the labels of one sample.

    Args:
        path: an Occ3D ``labels.npz``.

    Returns:
        ``semantics`` and, where the file has them, ``mask_camera`` and ``mask_lidar``; (X, Y, Z).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no npz archive or lacks ``semantics``, or shapes differ.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'no occupancy labels at {path}')
    try:
        with np.load(path) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own kinds
        raise ValueError(f'{path} cannot be read as an npz archive: {error}') from error
    if 'semantics' not in arrays:
        raise ValueError(f"{path} holds {sorted(arrays)}, expected 'semantics'")
    fields = ('semantics', 'mask_camera', 'mask_lidar')
    arrays = {key: arrays[key] for key in fields if key in arrays}
    shapes = {key: value.shape for key, value in arrays.items()}
    if len(set(shapes.values())) != 1 or arrays['semantics'].ndim != 3:
        raise ValueError(f'{path} holds shapes {shapes}, expected one shape (X, Y, Z)')
    return arrays


def save_prediction(out_dir: Union[str, Path], scene_name: str, token: str,
                    semantics: np.ndarray) -> Path:
    """Writes one prediction, whole or not at all (written aside, then renamed).

    Args:
        out_dir: root folder, made if absent.
        scene_name: name of the scene.
        token: sample token.
        semantics: (X, Y, Z) classes in [0, 18), 17 = free; stored as uint8.

    Returns:
        Path of the file.

    Raises:
        ValueError: ``semantics`` is not 3-D or holds other classes.
    """
    semantics = np.asarray(semantics)
    if semantics.ndim != 3 or semantics.size == 0 or semantics.min() < 0 or semantics.max() > 17:
        raise ValueError(f'sample {token}: expected (X, Y, Z) classes in [0, 18), got shape '
                         f'{semantics.shape}' + (f' with classes from {semantics.min()} to '
                                                 f'{semantics.max()}' if semantics.size else ''))
    path = Path(out_dir) / scene_name / token / 'labels.npz'
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, semantics=semantics.astype(np.uint8))
    return path
