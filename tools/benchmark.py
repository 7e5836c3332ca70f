"""Time, memory and error of the rendering engine against the dense published computation.

    python tools/benchmark.py step --preset quarter [--device cpu] [--json FILE] [--repeats 3]

``step``: voxel features -> densities and language features -> rendered features -> the paper's
loss, and back. Dense: every voxel is decoded, normalised, interpolated at every sample and
composited, as published. Ours: only voxels that rays weigh are decoded. Both run on the same
weights, rays and density field (a ground plane, boxes and facades), in turns; the peak memory of
each is taken in a process of its own and counts what the inputs do not already hold. The JSON has
``step`` (default threshold) and ``step_exact`` (threshold 0).

Legend: R rays, S samples, V voxels, U weighed voxels, C channels, E embedding.
"""
import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelrender import (
    MarchConfig, RayBundle, VoxelGrid, accumulate, march_rays, pixels_to_rays, ray_voxel_weights,
    render_features
)

# Voxels along x and y over the paper's range, and rays.
PRESETS = dict(full=(200, 8192), quarter=(100, 2048), tiny=(20, 64))
# Nothing above 0 has been measured to be safe yet, so the default mode is the exact one.
DEFAULT_THRESHOLD = 0.
IN_CHANNELS, HIDDEN, EMBED_DIMS = 256, 256, 512
MEGABYTE = 2 ** 20


@dataclass
class Scene:
    """Inputs and weights of one step.

    Args:
        voxel_feats: (1, C, Z, Y, X), requires grad, as the final convolution gives them.
        surfaces: (V,) logits added to the density decoder's, which make it a field of surfaces.
        density_decoder: (., C) -> (., 1).
        language_decoder: (., C) -> (., E).
        rays: R rays with target ``lang_feats`` (R, E).
    """

    grid: VoxelGrid
    voxel_feats: Tensor
    surfaces: Tensor
    density_decoder: nn.Module
    language_decoder: nn.Module
    rays: RayBundle

    def leaves(self) -> List[Tensor]:
        """Everything that gets a gradient."""
        return [self.voxel_feats, *self.density_decoder.parameters(),
                *self.language_decoder.parameters()]


def make_decoder(out_channels: int) -> nn.Sequential:
    """The paper's decoder: three hidden layers, Xavier-uniform, zero bias."""
    widths = [IN_CHANNELS, HIDDEN, HIDDEN, HIDDEN, out_channels]
    layers = []
    for fan_in, fan_out in zip(widths, widths[1:]):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def make_surfaces(grid: VoxelGrid) -> Tensor:
    """Logits (V,) of a street: ground, facades on both sides, boxes the size of cars."""
    centers = grid.voxel_centers()
    x, y, z = centers.unbind(-1)
    occupied = (z < 0) | ((y.abs() > 12) & (y.abs() < 20) & (torch.sin(x / 4) > -0.6))
    for _ in range(40):
        middle = (torch.rand(2) * 2 - 1) * torch.tensor([38., 11.])
        if middle.norm() > 4:
            occupied |= ((x - middle[0]).abs() < 2.2) & ((y - middle[1]).abs() < 1) & (z < 1.6)
    return torch.where(occupied, 5., -8.).flatten()


def make_rays(count: int) -> RayBundle:
    """Rays of six cameras like nuScenes', at random pixels where a LiDAR sees something."""
    cam2img = torch.eye(4)
    cam2img[0, 0] = cam2img[1, 1] = 1260.
    cam2img[:2, 2] = torch.tensor([800., 450.])
    bundles = []
    for camera in range(6):
        yaw = torch.tensor(camera * torch.pi / 3)
        forward = torch.stack([yaw.cos(), yaw.sin(), torch.zeros(())])
        down = torch.tensor([0., 0., -1.])
        cam2ego = torch.eye(4)
        cam2ego[:3, :3] = torch.stack([torch.linalg.cross(down, forward), down, forward], dim=-1)
        cam2ego[:3, 3] = forward + torch.tensor([0., 0., 1.5])
        share = count // 6 + (camera < count % 6)
        pixels = torch.rand(share, 2) * torch.tensor([1599., 520.]) + torch.tensor([0., 379.])
        bundles.append(RayBundle(*pixels_to_rays(pixels, cam2img, cam2ego),
                                 torch.full((share,), camera)))
    rays = RayBundle.cat(bundles)
    rays.targets['lang_feats'] = F.normalize(torch.randn(count, EMBED_DIMS), dim=-1)
    return rays.validate()


def make_scene(preset: str, device: str) -> Scene:
    """The same scene for the same preset, in every process."""
    cells, num_rays = PRESETS[preset]
    torch.manual_seed(0)
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), (80 / cells, 80 / cells, 0.4))
    surfaces, rays = make_surfaces(grid), make_rays(num_rays)
    density_decoder, language_decoder = make_decoder(1), make_decoder(EMBED_DIMS)
    voxel_feats = torch.empty(1, IN_CHANNELS, *grid.volume_shape).normal_().clamp_(min=0)
    return Scene(grid, voxel_feats.to(device).requires_grad_(), surfaces.to(device),
                 density_decoder.to(device), language_decoder.to(device), rays.to(device))


def paper_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """mean over rays of stop_gradient(2 (1 - cos)) * squared error (paper.md, Rendering and loss).

    Args:
        rendered: (R, E), not normalised; a zero row has weight 0 but stays in the mean.
        target: (R, E), L2-normalised.
    """
    predicted = F.normalize(rendered, dim=-1, eps=1e-12)
    cosine = F.cosine_similarity(predicted, target, dim=-1, eps=1e-8).detach()
    seen = (rendered.detach().abs().sum(-1) > 0).to(rendered.dtype)
    return (2 * (1 - cosine) * seen * (predicted - target).square().sum(-1)).mean()


def march(scene: Scene, feats: Tensor):
    """Samples (R, S) with weights through the densities decoded from features (V, C)."""
    logits = scene.density_decoder(feats)[:, 0] + scene.surfaces
    densities = torch.sigmoid(logits).view(1, *scene.grid.volume_shape)
    return march_rays(scene.grid, densities, scene.rays, MarchConfig(), training=True,
                      generator=torch.Generator().manual_seed(0))


def dense_step(scene: Scene) -> Tensor:
    """The published computation: all voxels decoded, all samples interpolated and stored."""
    feats = scene.voxel_feats[0].flatten(1).T.contiguous()
    samples = march(scene, feats)
    decoded = F.normalize(scene.language_decoder(feats), dim=-1, eps=1e-12)
    volume = decoded.T.unflatten(1, scene.grid.volume_shape)[None]
    sampled = scene.grid.sample(volume, scene.rays.points(samples.t_mids)[None])[0]
    rendered = accumulate(samples.weights, sampled)
    return paper_loss(rendered, scene.rays.targets['lang_feats'])


def sparse_step(scene: Scene, threshold: float) -> Tensor:
    """Ours: only voxels that rays weigh are decoded."""
    feats = scene.voxel_feats[0].flatten(1).T.contiguous()
    samples = march(scene, feats)
    pairs = ray_voxel_weights(scene.grid, scene.rays, samples, threshold)

    def decode(voxels: Tensor) -> Tensor:
        return F.normalize(scene.language_decoder(feats.index_select(0, voxels)), dim=-1,
                           eps=1e-12)

    return paper_loss(render_features(pairs, decode), scene.rays.targets['lang_feats'])


def make_sides(threshold: float) -> Dict[str, Callable[[Scene], Tensor]]:
    """Name -> step. The default mode is listed only where it differs from the exact one."""
    sides = dict(dense=dense_step, exact=lambda scene: sparse_step(scene, 0.))
    if threshold > 0:
        sides['default'] = lambda scene: sparse_step(scene, threshold)
    return sides


def run_step(side: Callable[[Scene], Tensor], scene: Scene):
    """Loss and gradients of one step, and its seconds."""
    synchronize(scene)
    start = time.perf_counter()
    loss = side(scene)
    grads = torch.autograd.grad(loss, scene.leaves())
    synchronize(scene)
    return loss.item(), grads, time.perf_counter() - start


def synchronize(scene: Scene) -> None:
    """Waits for the device."""
    if scene.voxel_feats.is_cuda:
        torch.cuda.synchronize()


def high_water_mark() -> float:
    """Peak resident memory of this process in MB (Linux: of this program alone)."""
    status = Path('/proc/self/status')
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith('VmHWM'))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_peak(side: Callable[[Scene], Tensor], scene: Scene) -> float:
    """Memory in MB that one step takes beyond the scene. For a process of its own."""
    if scene.voxel_feats.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_step(side, scene)
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    reset = Path('/proc/self/clear_refs')
    if reset.exists():
        reset.write_text('5')
    before = high_water_mark()
    run_step(side, scene)
    return high_water_mark() - before


def peak_in_child(name: str, arguments: argparse.Namespace) -> float:
    """Peak memory in MB of one side, measured in a child process.

    Raises:
        RuntimeError: If the child fails; its output is in the message.
    """
    command = [sys.executable, __file__, 'step', '--preset', arguments.preset, '--device',
               arguments.device, '--threshold', str(arguments.threshold), '--peak-of', name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'peak memory of {name}: exit {done.returncode}\n{done.stderr}')
    return float(done.stdout.split()[-1])


def compare(name: str, times: Dict[str, List[float]], peaks: Dict[str, float], losses, grads):
    """One row of the result: ours (``name``) against dense."""
    ours, dense = (torch.cat([grad.flatten() for grad in grads[side]]) for side in (name, 'dense'))
    dense_s, ours_s = (statistics.median(times[side]) for side in ('dense', name))
    return dict(
        dense_s=dense_s, ours_s=ours_s, speedup=dense_s / ours_s,
        dense_peak_mb=peaks['dense'], ours_peak_mb=peaks[name],
        memory_ratio=peaks['dense'] / max(peaks[name], 1e-9),
        loss_error=abs(losses[name] - losses['dense']) / abs(losses['dense']),
        grad_error=((ours - dense).norm() / dense.norm()).item(),
        grad_cosine=F.cosine_similarity(ours.double(), dense.double(), dim=0).item())


def benchmark_step(arguments: argparse.Namespace) -> Dict:
    """Measures all sides; the memory first, while this process is still small."""
    sides = make_sides(arguments.threshold)
    peaks = {name: peak_in_child(name, arguments) for name in sides}
    scene = make_scene(arguments.preset, arguments.device)
    times, losses, grads = {name: [] for name in sides}, {}, {}
    for repeat in range(arguments.repeats + 1):
        for name, side in sides.items():
            grads.pop(name, None)
            losses[name], grads[name], seconds = run_step(side, scene)
            if repeat > 0:
                times[name].append(seconds)
    default = 'default' if 'default' in sides else 'exact'
    return dict(step=compare(default, times, peaks, losses, grads),
                step_exact=compare('exact', times, peaks, losses, grads),
                preset=arguments.preset, device=arguments.device, threads=torch.get_num_threads(),
                threshold=arguments.threshold, repeats=arguments.repeats, torch=torch.__version__)


def print_table(result: Dict) -> None:
    """The result as a table."""
    print(f"preset {result['preset']}, {result['device']}, {result['threads']} threads, default "
          f"threshold {result['threshold']:g}, median of {result['repeats']}")
    print(f"{'':12}{'dense s':>9}{'ours s':>9}{'speedup':>9}{'dense MB':>10}{'ours MB':>9}"
          f"{'ratio':>7}{'loss err':>10}{'grad err':>10}{'1 - cos':>10}")
    for name in ('step', 'step_exact'):
        row = result[name]
        print(f"{name:12}{row['dense_s']:9.2f}{row['ours_s']:9.2f}{row['speedup']:9.2f}"
              f"{row['dense_peak_mb']:10.0f}{row['ours_peak_mb']:9.0f}{row['memory_ratio']:7.2f}"
              f"{row['loss_error']:10.1e}{row['grad_error']:10.1e}{1 - row['grad_cosine']:10.1e}")


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    commands = parser.add_subparsers(dest='command', required=True)
    step = commands.add_parser('step', help='decode + render + loss, forward and backward')
    step.add_argument('--preset', choices=sorted(PRESETS), default='quarter')
    step.add_argument('--device', default='cpu')
    step.add_argument('--threshold', type=float, default=DEFAULT_THRESHOLD,
                      help='weight threshold of the default mode')
    step.add_argument('--repeats', type=int, default=3, help='timed runs after one warm-up')
    step.add_argument('--json', type=Path, help='write the result here')
    step.add_argument('--peak-of', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.threshold < 0:
        parser.error('--repeats must be at least 1 and --threshold at least 0')
    return arguments


def main() -> None:
    """Runs one benchmark, or one side of it in a child."""
    arguments = parse_arguments()
    if arguments.peak_of:
        side = make_sides(arguments.threshold)[arguments.peak_of]
        print(measure_peak(side, make_scene(arguments.preset, arguments.device)))
        return
    result = benchmark_step(arguments)
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
