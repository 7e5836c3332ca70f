#!/usr/bin/env python
"""Time, memory and error of the rendering engine against the dense published computation.

    python tools/benchmark.py step --preset full [--device cpu] [--json FILE] [--repeats 3]

step   voxel features -> density, language -> rendered features -> the paper's loss, and back
prune  the same for several weight thresholds: what pruning does to loss and gradient
head   voxel features -> occupancy and classes
query  a new text against the occupied voxels of a finished field
scale  forward cost against the number of voxels, of rays and of channels
lift   lift-splat pooling against sort and running sum
predict  images -> occupancy and classes: alone, streamed, in bfloat16; stages and their floors
profile  a whole training step, stage by stage: published layout against ours
features  teacher features: what a training sample reads from disk, sizes, codecs, extraction

Dense: every voxel is decoded, normalised, interpolated at every sample and composited, as
published. Ours: the functions that LangOccHead calls. Both run on the same weights, rays and
density field (a ground plane, boxes and facades), in turns; the peak memory of each is taken in a
process of its own and counts what the inputs do not already hold. ``step`` gives two rows: ``step``
(default threshold) and ``step_exact`` (threshold 0). ``--scale grid=2 rays=0.5 features=0.25``
sizes the scene in proportion to the preset. ``--rays real`` takes LiDAR-pixel rays of the
real sequence; it, ``head``, ``query``, ``predict`` (real images) and ``profile``
need langocc, the rest torch alone. ``features`` also needs open_clip and the real sequence;
published there is one compressed .npz a key frame.
"""
import argparse
import json
import os
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from benchmarks.measure import Bystanders, measure_peak, run_step
from benchmarks.scene import PRESETS, Size, make_scene

from benchmarks import features, head, lift, scale, step, training, whole
from voxelrender.rendering import DEFAULT_WEIGHT_THRESHOLD

COMMANDS = dict(step=step.benchmark_step, prune=step.benchmark_prune, head=head.benchmark_head,
                query=head.benchmark_query, scale=scale.benchmark_scale, lift=lift.benchmark_lift,
                predict=whole.benchmark_predict, profile=training.benchmark_profile,
                features=features.benchmark_features)

# Commands whose scene may be scaled, and what can be.
SCALABLE = ('step', 'prune', 'head')
SCALES = ('grid', 'rays', 'features')


def peak_of(arguments: argparse.Namespace) -> float:
    """Peak memory in MB of the side ``arguments.peak_of``, for a child process."""
    if arguments.command == 'predict':
        return measure_peak(whole.peak_side(arguments), arguments.device)
    if arguments.command == 'profile':
        return training.peak_of_step(arguments)
    if arguments.command == 'head':
        case = head.head_case(arguments)
        return measure_peak(case.sides()[arguments.peak_of], arguments.device)
    scene = make_scene(Size.of(arguments), arguments.device, arguments.rays)
    sides = step.make_sides(dict(exact=0., default=arguments.threshold))
    return measure_peak(lambda: run_step(sides[arguments.peak_of], scene), arguments.device)


def table(rows: Dict[str, Dict]) -> str:
    """Rows of numbers under their names."""
    columns = list(dict.fromkeys(name for row in rows.values() for name, value in row.items()
                                 if isinstance(value, (int, float))))
    width = [max(len(name), 9) for name in columns]
    first = max(map(len, rows))
    lines = [' ' * first + ''.join(f'  {name:>{w}}' for name, w in zip(columns, width))]
    for name, row in rows.items():
        lines.append(f'{name:{first}}' + ''.join(
            f'  {row[column] if column in row else "":>{w}.4g}' if column in row else ' ' * (w + 2)
            for column, w in zip(columns, width)))
    return '\n'.join(lines)


def rows_of(result: Dict) -> Dict[str, Dict]:
    """The rows of a result, by name."""
    rows = {}
    for name, value in result.items():
        if isinstance(value, list):
            rows.update({str(row.get('name', row.get('threshold'))): row for row in value})
        elif isinstance(value, dict):
            nested = {key: row for key, row in value.items() if isinstance(row, dict)}
            if len(value) > 12 and not nested:  # too wide for a row
                nested = {key: dict(value=number) for key, number in value.items()}
            rows.update(nested or {name: value})
    return rows


def write_result(path: Path, result: Dict) -> None:
    """Writes JSON so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_text(json.dumps(result, indent=1) + '\n')
    partial.replace(path)


def parse_arguments(argv: List[str] = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name in COMMANDS:
        command = commands.add_parser(name)
        command.add_argument('--preset', choices=sorted(PRESETS), default='quarter')
        command.add_argument('--device', default='cpu')
        if name == 'features':
            command.set_defaults(rays='real', threshold=0.)
        else:
            command.add_argument('--rays', choices=('made', 'real'), default='made')
            command.add_argument('--threshold', type=float, default=DEFAULT_WEIGHT_THRESHOLD,
                                 help='weight threshold of the default mode')
        command.add_argument('--repeats', type=int, default=3, help='timed runs after one warm-up')
        command.add_argument('--json', type=Path, help='write the result here')
        command.add_argument('--peak-of', help=argparse.SUPPRESS)
        if name in SCALABLE:
            command.add_argument(
                '--scale', nargs='+', type=scale_factor, default=[], metavar='WHAT=FACTOR',
                help=f'size in proportion to the preset, for instance grid=0.5 rays=2; WHAT is '
                f'one of {list(SCALES)}, grid along each axis')
    add_feature_arguments(commands.choices['features'])
    commands.choices['prune'].add_argument(
        '--thresholds', type=float, nargs='+', default=[0., 1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    commands.choices['query'].add_argument('--voxels', type=int, default=200000)
    arguments = parser.parse_args(argv)
    arguments.scale = dict(getattr(arguments, 'scale', []))
    check_arguments(commands.choices[arguments.command], arguments)
    return arguments


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends with the command's usage where a value makes no sense."""
    if arguments.repeats < 1 or getattr(arguments, 'voxels', 1) < 1:
        parser.error('--repeats and --voxels must be at least 1')
    for threshold in (arguments.threshold, *getattr(arguments, 'thresholds', ())):
        if not 0 <= threshold < 1:
            parser.error(f'threshold {threshold}: weights are in [0, 1), 0 prunes nothing')
    try:
        torch.empty(0, device=arguments.device)
    except (AssertionError, RuntimeError) as error:
        parser.error(f'--device {arguments.device}: {str(error).splitlines()[0]}')
    try:
        if arguments.command in SCALABLE:
            Size.of(arguments)
    except ValueError as error:
        parser.error(str(error))


def scale_factor(text: str) -> Tuple[str, float]:
    """'grid=0.5' -> ('grid', 0.5)."""
    name, _, factor = text.partition('=')
    if name not in SCALES:
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected one of {list(SCALES)}, = and a number')
    try:
        value = float(factor)
    except ValueError:
        value = 0.
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r}: {factor!r} is not a positive number')
    return name, value


def add_feature_arguments(command: argparse.ArgumentParser) -> None:
    """Options of ``features`` alone."""
    command.add_argument('--parts', nargs='+', choices=features.PARTS, default=features.PARTS)
    command.add_argument('--vit-images', type=int, metavar='N',
                         help='images that the ViT sees, instead of the preset\'s')
    command.add_argument('--folder', metavar='DIR', help='where files are written and read '
                         '(default: the system\'s temporary folder; some GB in preset full)')


def main(argv: List[str] = None) -> None:
    """Runs one benchmark, or one side of it in a child."""
    arguments = parse_arguments(argv)
    if arguments.peak_of:
        print(peak_of(arguments))
        return
    bystanders = Bystanders()
    result = COMMANDS[arguments.command](arguments)
    rows = rows_of(result)
    result.update(preset=arguments.preset, scaled=arguments.scale, rays=arguments.rays,
                  device=arguments.device,
                  threads=torch.get_num_threads(), repeats=arguments.repeats,
                  others_busy_cpus=bystanders.share(), torch=torch.__version__)
    scaled = ''.join(f', {name} x {factor:g}' for name, factor in arguments.scale.items())
    print(f"{arguments.command}, preset {result['preset']}{scaled}, {result['rays']} rays, "
          f"{result['device']}, {result['threads']} threads, median of {result['repeats']}; other "
          f"processes kept {result['others_busy_cpus']:.2f} CPUs busy meanwhile")
    tables = [rows]
    if arguments.command == 'features':  # its parts have no column in common
        tables = [rows_of({part: result[part]}) for part in arguments.parts]
    print('\n\n'.join(map(table, tables)))
    if arguments.json:
        write_result(arguments.json, result)


if __name__ == '__main__':
    main()
