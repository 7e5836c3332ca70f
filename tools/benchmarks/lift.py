"""Lift-splat pooling of two frames: sort and running sum against ours."""
import sys
from pathlib import Path
from typing import Callable, Dict

import torch

from voxelrender import lift_splat
from voxelrender.ops import LiftGeometry

from .measure import median, seconds_of

CASES = dict(full=dict(bins=88, feature_size=(16, 44), channels=32, voxel_size=0.4),
             quarter=dict(bins=44, feature_size=(8, 22), channels=32, voxel_size=0.8),
             tiny=dict(bins=12, feature_size=(4, 6), channels=4, voxel_size=1.6))


def reference():
    """tests/reference/lift_cumsum.py: the reference and its inputs."""
    folder = str(Path(__file__).resolve().parents[2] / 'tests' / 'reference')
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import lift_cumsum
    return lift_cumsum


def benchmark_lift(arguments) -> Dict:
    """Both frames forward, and the key frame's backward, as in training."""
    module = reference()
    cases = [module.lift_case(**CASES[arguments.preset], moved=moved, seed=seed)
             for seed, moved in enumerate((2., 0.))]
    for case in cases:
        for name in ('depth', 'context', 'points'):
            setattr(case, name, getattr(case, name).to(arguments.device))
    kept = [LiftGeometry.from_points(case.points, case.grid) for case in cases]
    sides: Dict[str, Callable] = dict(
        reference=lambda case, index: module.lift_splat_cumsum(
            case.depth, case.context, case.points, case.grid),
        ours=lambda case, index: lift_splat(case.depth, case.context, case.points, case.grid),
        cached=lambda case, index: lift_splat(case.depth, case.context, kept[index]))
    rows, volumes = {}, {}
    gradient = torch.randn_like(sides['cached'](cases[1], 1))
    for name, side in sides.items():
        def forward():
            with torch.no_grad():
                return [side(case, index) for index, case in enumerate(cases)]

        def backward():
            key = cases[1]
            leaves = [key.depth.requires_grad_(), key.context.requires_grad_()]
            return torch.autograd.grad(side(key, 1), leaves, gradient)

        volumes[name] = forward()[1]
        rows[name] = dict(
            forward_s=median(seconds_of(forward, arguments.device, arguments.repeats,
                                        f'{name}, forward')),
            step_s=median(seconds_of(backward, arguments.device, arguments.repeats,
                                     f'{name}, step')))
    for name in ('ours', 'cached'):
        for key in ('forward', 'step'):
            rows[name][f'{key}_speedup'] = rows['reference'][f'{key}_s'] / rows[name][f'{key}_s']
        error = (volumes[name] - volumes['reference']).abs().max()
        rows[name]['error'] = (error / volumes['reference'].abs().max()).item()
    return dict(lift=rows)
