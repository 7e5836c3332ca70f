"""Fixtures shared by all tests: where real data are, a stand-in for them, repeatable torch."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Triton then interprets its kernels. It looks at this when it is first imported, which torch
    # does not do by itself.
    os.environ.setdefault('TRITON_INTERPRET', '1')

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


@pytest.fixture(scope='session')
def stand_in_root(tmp_path_factory) -> Path:
    """What building a model reads from a data root: text, a reducer, a prior, teacher folders."""
    from langocc.evaluation import fit_prior
    from langocc.teachers import Reducer, Vocabulary
    root = tmp_path_factory.mktemp('data')
    prompts = sorted({*Vocabulary('occ3d_nuscenes').prompts,
                      *Vocabulary('pandaset_cityscapes').prompts})
    for folder in ('text_embeds', 'teacher_probs', 'teacher_feats'):
        (root / folder).mkdir()
    rows = np.random.default_rng(0).standard_normal((len(prompts), 512))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for name in ('clip_vit_b16', 'words'):
        np.savez(root / 'text_embeds' / f'{name}.npz', all=rows.astype(np.float16))
    (root / 'text_embeds' / 'names.json').write_text(json.dumps(dict(all=prompts)))
    matrix = torch.randn(512, 128, generator=torch.Generator().manual_seed(0))
    Reducer(matrix * 0.1).save(root / 'reducer_128.safetensors')
    free = np.full((200, 200, 16), 17, dtype=np.uint8)
    fit_prior([dict(semantics=free)], mask='none').save(root / 'prior.npz')
    return root


@pytest.fixture
def data_roots(stand_in_root, monkeypatch) -> Path:
    """The stand-in, named as the data root of every recipe."""
    for name in ('NUSCENES_ROOT', 'PANDASET_ROOT', 'SYNTHETIC_ROOT', 'LANGOCC_INFO_ROOT'):
        monkeypatch.setenv(name, str(stand_in_root))
    return stand_in_root


@pytest.fixture(scope='session', params=['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def triton_device(request) -> str:
    """Where Triton kernels run: interpreted on a CPU, compiled on a GPU."""
    from voxelrender.ops import dispatch
    if dispatch.import_error():
        pytest.skip(f'no Triton: {dispatch.import_error()}')
    if request.param == 'cuda' and not torch.cuda.is_available():
        pytest.skip('no CUDA device')
    if request.param == 'cpu' and not dispatch.triton_interprets():
        pytest.skip('Triton compiles here and does not interpret (TRITON_INTERPRET is not 1)')
    return request.param


@pytest.fixture(autouse=True)
def repeatable():
    """One seed for every test."""
    torch.manual_seed(0)
