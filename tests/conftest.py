"""Fixtures shared by all tests: where the real test data is, and quiet, repeatable torch."""
import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


def find_shared() -> Path:
    """The shared folder: LANGOCC_SHARED, or ``../shared`` beside the repository."""
    return Path(os.environ.get('LANGOCC_SHARED', REPOSITORY.parent / 'shared'))


@pytest.fixture(scope='session')
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope='session')
def shared_root() -> Path:
    """Folder with design notes and test data; skips where it is absent."""
    root = find_shared()
    if not root.is_dir():
        pytest.skip(f'no shared data at {root} (set LANGOCC_SHARED)')
    return root


@pytest.fixture(scope='session')
def pandaset_root(shared_root) -> Path:
    """The real six-camera sequence in nuScenes format."""
    root = shared_root / 'data' / 'pandaset_nuscenes'
    if not root.is_dir():
        pytest.skip(f'no real sequence at {root}')
    return root


@pytest.fixture(autouse=True)
def repeatable():
    """One seed for every test."""
    torch.manual_seed(0)
