"""tools/benchmark.py: both sides of the step compute the same, and the row has its keys."""
import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope='module')
def benchmark():
    """The tool as a module."""
    path = Path(__file__).resolve().parents[2] / 'tools' / 'benchmark.py'
    spec = importlib.util.spec_from_file_location('voxelrender_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_sides_agree(benchmark):
    scene = benchmark.make_scene('tiny', 'cpu')
    losses, grads, times = {}, {}, {}
    for name, side in benchmark.make_sides(threshold=1e-3).items():
        losses[name], grads[name], seconds = benchmark.run_step(side, scene)
        times[name] = [seconds]
    assert losses['dense'] > 0
    peaks = dict.fromkeys(times, 1.)
    exact = benchmark.compare('exact', times, peaks, losses, grads)
    assert set(exact) == {'dense_s', 'ours_s', 'speedup', 'dense_peak_mb', 'ours_peak_mb',
                          'memory_ratio', 'loss_error', 'grad_error', 'grad_cosine'}
    assert exact['loss_error'] < 1e-5 and exact['grad_error'] < 1e-3
    assert exact['grad_cosine'] > 0.9999
    default = benchmark.compare('default', times, peaks, losses, grads)
    assert 0 < default['grad_error'] < 0.1 and default['grad_cosine'] > 0.99


def test_the_loss_is_the_papers(benchmark):
    rendered = torch.tensor([[2., 0.], [0., 0.], [3., 4.]])
    target = torch.tensor([[1., 0.], [1., 0.], [1., 0.]])
    # cos 1 costs nothing, a ray of zeros has weight 0 but stays in the mean, cos 0.6 the rest.
    expected = 2 * (1 - 0.6) * ((0.6 - 1) ** 2 + 0.8 ** 2) / 3
    assert benchmark.paper_loss(rendered, target).item() == pytest.approx(expected, rel=1e-5)
