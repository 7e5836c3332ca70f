"""Fixtures of the unit tests: a data set of a few kilobytes."""
from pathlib import Path

import pytest
from nusc_factory import CAMERAS, VERSION, NuScenesFactory


@pytest.fixture
def tiny_root(tmp_path) -> Path:
    """Data root in nuScenes format, written anew for each test, with its infos."""
    from langocc.datasets.nuscenes_prepare import prepare_infos
    factory = NuScenesFactory(tmp_path / 'data').write()
    prepare_infos(factory.root, VERSION, factory.root, splits='all', prefix='tiny')
    return factory.root


@pytest.fixture
def tiny_dataset(tiny_root):
    """Its data set, without a pipeline."""
    from langocc.datasets import NuScenesOccDataset
    return NuScenesOccDataset(data_root=str(tiny_root), ann_file='tiny_infos_all.json',
                              camera_names=CAMERAS)
