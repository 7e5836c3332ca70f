"""Rays of the real sequence, drawn as in training; needs langocc and its data."""
import os
import tempfile
from pathlib import Path
from typing import Tuple

import numpy as np
from torch import Tensor


def sequence_root() -> Path:
    """The six-camera sequence: in LANGOCC_SHARED, or ``../shared`` beside the repository.

    Raises:
        FileNotFoundError: If it is not there.
    """
    shared = os.environ.get('LANGOCC_SHARED',
                            Path(__file__).resolve().parents[2].parent / 'shared')
    root = Path(shared) / 'data' / 'pandaset_nuscenes'
    if not root.is_dir():
        raise FileNotFoundError(f'no real sequence at {root}: set LANGOCC_SHARED, or use '
                                '--rays made')
    return root


def sequence_dataset(**options):
    """The sequence as a :class:`NuScenesOccDataset` with ``options``; infos are made on the way."""
    from langocc.datasets import NuScenesOccDataset
    from langocc.datasets.nuscenes_infos import build_infos, infos_metainfo, write_infos
    from langocc.datasets.nuscenes_tables import NuScenesTables
    root = sequence_root()
    tables = NuScenesTables(root, 'v1.0-mini')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'infos.json'
        write_infos(dict(metainfo=infos_metainfo(tables, {}),
                         data_list=build_infos(tables, list(tables.scenes)[:1])), path)
        return NuScenesOccDataset(data_root=str(root), ann_file=str(path), **options)


def real_rays(count: int) -> Tuple[Tensor, Tensor]:
    """Origins and directions (R, 3) through pixels with a LiDAR point, 25 frames of one sample."""
    from langocc.datasets.ray_sources import LidarPixelSource
    dataset = sequence_dataset(ray_frame_ids=tuple(range(-12, 13)))
    info = dataset.get_data_info(len(dataset) // 2)
    rays = LidarPixelSource()(info, count, np.random.default_rng(0))
    if len(rays) < count:
        raise ValueError(f'the sequence has {len(rays)} rays, {count} are asked for')
    return rays.origins, rays.directions
