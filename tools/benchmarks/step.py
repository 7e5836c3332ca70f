"""One step, voxel features -> loss and back: the dense published computation and ours.

Legend: R rays, S samples, V voxels, E embedding.
"""
from typing import Callable, Dict, List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from voxelrender import FieldRenderer, MarchConfig, UnitFeatures, accumulate, march_rays

from .measure import median, peak_in_child, run_step
from .progress import say, turns
from .scene import Scene, Size, make_scene

Step = Callable[[Scene], Tensor]


def paper_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """mean over rays of stop_gradient(2 (1 - cos)) * squared error (the paper's loss).

    Args:
        rendered: (R, E), not normalised; a zero row has weight 0 but stays in the mean.
        target: (R, E), L2-normalised.
    """
    predicted = F.normalize(rendered, dim=-1, eps=1e-12)
    cosine = F.cosine_similarity(predicted, target, dim=-1, eps=1e-8).detach()
    seen = (rendered.detach().abs().sum(-1) > 0).to(rendered.dtype)
    return (2 * (1 - cosine) * seen * (predicted - target).square().sum(-1)).mean()


def generator() -> torch.Generator:
    """Source of the jitter, the same for every side."""
    return torch.Generator().manual_seed(0)


def dense_step(scene: Scene) -> Tensor:
    """The published computation: all voxels decoded, all samples interpolated and stored."""
    feats = scene.voxel_feats[0].flatten(1).T.contiguous()
    densities = scene.density_decoder(feats).view(1, *scene.grid.volume_shape)
    samples = march_rays(scene.grid, densities, scene.rays, MarchConfig(), training=True,
                         generator=generator())
    decoded = F.normalize(scene.language_layers(feats), dim=-1, eps=1e-12)
    volume = decoded.T.unflatten(1, scene.grid.volume_shape)[None]
    sampled = scene.grid.sample(volume, scene.rays.points(samples.t_mids)[None])[0]
    rendered = accumulate(samples.weights, sampled)
    return paper_loss(rendered, scene.rays.targets['lang_feats'])


def render(scene: Scene, threshold: float, rays_per_chunk: int = 8192) -> Tensor:
    """Rendered language (R, E) by the renderer that LangOccHead uses."""
    renderer = FieldRenderer(MarchConfig(), threshold, rays_per_chunk)
    rendered = renderer(scene.field(), [scene.rays], dict(lang=UnitFeatures(scene.language_layers)),
                        training=True, generator=generator())
    return rendered.outputs['lang']


def our_step(scene: Scene, threshold: float) -> Tensor:
    """Ours: only voxels that rays look at are decoded."""
    return paper_loss(render(scene, threshold), scene.rays.targets['lang_feats'])


def make_sides(thresholds: Dict[str, float]) -> Dict[str, Step]:
    """Name -> step: the dense one, and ours for each named threshold."""
    sides: Dict[str, Step] = dict(dense=dense_step)
    for name, threshold in thresholds.items():
        sides[name] = lambda scene, threshold=threshold: our_step(scene, threshold)
    return sides


def gradient_errors(ours: Sequence[Tensor], dense: Sequence[Tensor]) -> Dict[str, float]:
    """Relative error and cosine of gradients, all of them as one vector.

    1 - cos is not computed from the cosine, of which it would be a rounding error.
    """
    dots = torch.zeros(4, dtype=torch.float64)
    for mine, theirs in zip(ours, dense):
        for a, b in zip(mine.flatten().split(2**24), theirs.flatten().split(2**24)):
            a, b = a.double(), b.double()
            dots += torch.stack([(a - b) @ (a - b), a @ b, a @ a, b @ b]).cpu()
    difference, product, own, other = dots.tolist()
    lengths = (own * other) ** 0.5
    turned = (difference - (own ** 0.5 - other ** 0.5) ** 2) / (2 * lengths)
    return dict(grad_error=(difference / other) ** 0.5, grad_cosine=product / lengths,
                one_minus_cosine=max(turned, 0.))


def compare(name: str, times: Dict[str, List[float]], peaks: Dict[str, float], losses, grads):
    """One row of the result: ours (``name``) against dense."""
    dense_s, ours_s = median(times['dense']), median(times[name])
    return dict(
        dense_s=dense_s, ours_s=ours_s, speedup=dense_s / ours_s,
        dense_peak_mb=peaks['dense'], ours_peak_mb=peaks[name],
        memory_ratio=peaks['dense'] / max(peaks[name], 1e-9),
        loss_error=abs(losses[name] - losses['dense']) / abs(losses['dense']),
        **gradient_errors(grads[name], grads['dense']))


def run_sides(sides: Dict[str, Step], scene: Scene, repeats: int):
    """Seconds of every run but the first, in turns; losses and gradients of the last."""
    times, losses, grads = {name: [] for name in sides}, {}, {}
    for turn, name in turns(sides, repeats):
        grads.pop(name, None)
        losses[name], grads[name], seconds = run_step(sides[name], scene)
        if turn > 0:
            times[name].append(seconds)
    return times, losses, grads


def benchmark_step(arguments) -> Dict:
    """Measures all sides; the memory first, while this process is still small."""
    thresholds = dict(exact=0.)
    if arguments.threshold > 0:
        thresholds['default'] = arguments.threshold
    sides = make_sides(thresholds)
    peaks = {name: peak_in_child(arguments, name) for name in sides}
    say('making the scene')
    scene = make_scene(Size.of(arguments), arguments.device, arguments.rays)
    times, losses, grads = run_sides(sides, scene, arguments.repeats)
    default = 'default' if 'default' in sides else 'exact'
    return dict(step=compare(default, times, peaks, losses, grads),
                step_exact=compare('exact', times, peaks, losses, grads),
                threshold=arguments.threshold)


def benchmark_prune(arguments) -> Dict:
    """Thresholds against loss, gradient, time and the number of (ray, voxel) pairs."""
    sides = make_sides({f'{value:g}': value for value in arguments.thresholds})
    scene = make_scene(Size.of(arguments), arguments.device, arguments.rays)
    times, losses, grads = run_sides(sides, scene, arguments.repeats)
    rows = []
    for name in sides:
        if name == 'dense':
            continue
        row = compare(name, times, dict.fromkeys(sides, float('nan')), losses, grads)
        by_part = {part: gradient_errors(grads[name][span], grads['dense'][span])['grad_cosine']
                   for part, span in (('voxel_feats', slice(0, 1)), ('density', slice(1, 9)),
                                      ('language', slice(9, None)))}
        rows.append(dict(threshold=float(name), dense_s=row['dense_s'], ours_s=row['ours_s'],
                         speedup=row['speedup'],
                         loss_error=row['loss_error'], grad_error=row['grad_error'],
                         grad_cosine=row['grad_cosine'],
                         one_minus_cosine=row['one_minus_cosine'], cosine_by_part=by_part))
    return dict(prune=rows, dense_s=median(times['dense']))
