"""The dispatcher: which backend answers, and errors that say why one cannot."""
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from voxelrender import (
    VoxelGrid, lift_splat, ops, resolve_backend, sparse_product, stereo_cost_volume
)
from voxelrender.ops import dispatch

GRID = VoxelGrid((0, 0, 0, 4, 3, 2), (1, 1, 1))
OPS = ('sparse_product', 'lift_splat', 'stereo_cost_volume', 'sample_volume', 'point_corners',
       'importance_samples', 'composite')


def call(op, backend, dtype=torch.float32):
    """Calls an op on small inputs; returns its first result."""
    index, feats = torch.zeros(1, dtype=torch.long), torch.zeros(1, 4, 2, 2, dtype=dtype)
    ones, points = torch.ones(1, 1, 1, 1, 1, dtype=dtype), torch.ones(1, 3, dtype=dtype)
    edges, sigmas = torch.tensor([[0., 1., 2.]], dtype=dtype), torch.ones(1, 2, dtype=dtype)
    calls = dict(
        sparse_product=lambda: sparse_product(index, index, sigmas[0, :1], sigmas, 1, backend),
        lift_splat=lambda: lift_splat(ones, ones, points.view(1, 1, 1, 1, 1, 3), GRID,
                                      backend=backend),
        stereo_cost_volume=lambda: stereo_cost_volume(feats, feats, torch.eye(4)[None],
                                                      torch.ones(2), (8, 8), backend=backend),
        sample_volume=lambda: ops.sample_volume(GRID, torch.ones(2, 3, 4, dtype=dtype), points,
                                                backend),
        point_corners=lambda: ops.point_corners(GRID, points, backend)[1],
        importance_samples=lambda: ops.importance_samples(edges, sigmas, 3, backend),
        composite=lambda: ops.composite(sigmas, edges[:, :-1], edges[:, 1:], backend)[0])
    return calls[op]()


def test_torch_answers_on_a_cpu():
    assert resolve_backend('op', 'auto') == resolve_backend('op', 'torch') == 'torch'
    assert resolve_backend('op', 'auto', torch.zeros(1)) == 'torch'


@pytest.mark.parametrize('op', OPS)
def test_every_op_knows_the_backends(op, monkeypatch):
    assert torch.equal(call(op, 'auto'), call(op, 'torch'))
    with pytest.raises(ValueError, match=f"{op}: backend is 'cuda', expected one of"):
        call(op, 'cuda')
    monkeypatch.setattr(dispatch, 'triton_interprets', lambda: False)
    monkeypatch.setattr(dispatch, 'import_error', lambda: None)
    with pytest.raises(RuntimeError, match=f"{op}: backend 'triton' cannot be used: tensors are "
                       'on cpu and not on a CUDA device .*TRITON_INTERPRET=1'):
        call(op, 'triton')
    monkeypatch.setattr(dispatch, 'triton_interprets', lambda: True)
    with pytest.raises(RuntimeError, match='kernels work in float32, not in torch.float64'):
        call(op, 'triton', torch.float64)
    monkeypatch.setattr(dispatch, 'import_error', lambda: 'ImportError: none here')
    with pytest.raises(RuntimeError, match='does not import .ImportError: none here.; use'):
        call(op, 'triton')


def test_auto_takes_triton_on_cuda_where_it_can(monkeypatch):
    def like(dtype=torch.float32, device='cuda:0'):
        return SimpleNamespace(is_cuda=device != 'cpu', device=device, dtype=dtype,
                               is_floating_point=lambda: dtype.is_floating_point)

    monkeypatch.setattr(dispatch, 'import_error', lambda: None)
    monkeypatch.setattr(dispatch, 'triton_interprets', lambda: False)
    assert resolve_backend('op', 'auto', like(), like(torch.long), like(torch.half)) == 'triton'
    assert resolve_backend('op', 'auto', like(), like(torch.float64)) == 'torch'
    assert resolve_backend('op', 'auto', like(), like(device='cpu')) == 'torch'
    assert resolve_backend('op', 'torch', like()) == 'torch'
    with pytest.raises(RuntimeError, match=r"tensors are on \['cpu', 'cuda:0'\], expected one"):
        resolve_backend('op', 'triton', like(), like(device='cpu'))
    monkeypatch.setattr(dispatch, 'triton_interprets', lambda: True)
    assert resolve_backend('op', 'auto', like()) == 'torch'
    monkeypatch.setattr(dispatch, 'import_error', lambda: 'no')
    assert resolve_backend('op', 'auto', like()) == 'torch'


@pytest.mark.gpu
def test_auto_takes_triton_on_this_gpu():
    if not torch.cuda.is_available():
        pytest.skip('no CUDA device')
    assert dispatch.import_error() is None
    expected = 'torch' if dispatch.triton_interprets() else 'triton'
    assert resolve_backend('op', 'auto', torch.zeros(1, device='cuda')) == expected


def test_distances_and_points_get_their_gradient_from_torch(triton_device):
    move = lambda *shape: torch.rand(*shape).to(triton_device).requires_grad_()
    sigmas, starts, ends = move(2, 3), move(2, 3), move(2, 3)
    with pytest.raises(RuntimeError, match='no gradient towards t_starts and t_ends'):
        ops.composite(sigmas, starts, ends, 'triton')
    ops.composite(sigmas, starts, ends)[0].sum().backward()
    assert starts.grad.abs().sum() > 0
    volume, points = move(2, 3, 4), move(5, 3)
    with pytest.raises(RuntimeError, match='no gradient towards points'):
        ops.sample_volume(GRID, volume, points, 'triton')
    ops.sample_volume(GRID, volume, points).sum().backward()
    assert points.grad.abs().sum() > 0
    with torch.no_grad():
        ops.sample_volume(GRID, volume, points, 'triton')


def test_ops_of_marching_name_wrong_shapes():
    with pytest.raises(ValueError, match=r'expected \(2, 3, 4\) and'):
        ops.sample_volume(GRID, torch.zeros(4, 3, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r'three times \(R, M\)'):
        ops.composite(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'\(R, S \+ 1\)'):
        ops.importance_samples(torch.zeros(2, 3), torch.zeros(2, 3), 4)


def run_python(*arguments, **environment):
    """Runs the interpreter of the tests without TRITON_INTERPRET; returns what it printed."""
    variables = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                          env={**variables, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_needs_triton_until_it_is_asked_for():
    run_python('-c', '''
import sys
import torch
import voxelrender
from voxelrender import resolve_backend, sparse_product
index = torch.zeros(2, dtype=torch.long)
sparse_product(index, index, torch.ones(2), torch.ones(1, 3), 1)
assert 'triton' not in sys.modules
sys.modules['triton'] = None
try:
    sparse_product(index, index, torch.ones(2), torch.ones(1, 3), 1, 'triton')
except RuntimeError as error:
    assert 'triton does not import' in str(error), error
else:
    raise AssertionError('no error')
''')


def test_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    """Down to machine code for an A100 and an H100, which needs no GPU; they do not run here."""
    if dispatch.import_error():
        pytest.skip(f'no Triton: {dispatch.import_error()}')
    printed = run_python(str(Path(__file__).with_name('triton_compile.py')), '80', '90',
                         TRITON_CACHE_DIR=str(tmp_path))
    compiled = json.loads(printed)
    names = [f'_{name}_kernel' for name in (
        'segment_sums', 'entry_dots', 'matching_costs', 'corners', 'read', 'scatter', 'importance',
        'composite', 'composite_backward')]
    assert sorted(compiled) == sorted(names)
    for runs in compiled.values():
        assert {target for target, _ in runs} == {80, 90} and len({how for _, how in runs}) > 1
