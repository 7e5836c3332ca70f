#!/usr/bin/env python
"""Time, memory and error of the rendering engine against the dense published computation.

    python tools/benchmark.py step --preset full [--device cpu] [--json FILE] [--repeats 3]

Dense: every voxel is decoded, normalised, interpolated at every sample and composited, as
published. Ours: the functions that LangOccHead calls. Both run on the same weights, rays and
density field (a ground plane, boxes and facades), in turns; the peak memory of each is taken in a
process of its own and counts what the inputs do not already hold. ``step`` gives two rows: ``step``
(default threshold) and ``step_exact`` (threshold 0). ``--scale grid=2 rays=0.5 features=0.25``
sizes the scene in proportion to the preset. ``--rays real`` takes LiDAR-pixel rays of the
real sequence; it, ``head``, ``query``, ``predict`` (real images) and ``profile``
need langocc, the rest torch alone. ``features`` also needs open_clip and the real sequence;
published there is one compressed .npz a key frame.

What is measured now is said on stderr; the result, a table and its legend, goes to stdout, and
with ``--json`` to a file. Exit status: 0 done; 2 an argument is wrong or data are missing.
"""
import argparse
import sys
from typing import List

import torch
from benchmarks.command_line import parse_arguments, shown_options
from benchmarks.measure import Bystanders, measure_peak, run_step
from benchmarks.output import rows_of, settings, show, write_result
from benchmarks.progress import say
from benchmarks.scene import Size, make_scene

from benchmarks import features, head, lift, scale, step, training, whole

BENCHMARKS = dict(step=step.benchmark_step, prune=step.benchmark_prune, head=head.benchmark_head,
                  query=head.benchmark_query, scale=scale.benchmark_scale,
                  lift=lift.benchmark_lift, predict=whole.benchmark_predict,
                  profile=training.benchmark_profile, features=features.benchmark_features)


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


def headline(arguments: argparse.Namespace, result: dict) -> str:
    """How the result was measured, in words."""
    scaled = ''.join(f', {name} x {factor:g}' for name, factor in arguments.scale.items())
    rays = f"{result['rays']} rays, " if 'rays' in result else ''
    environment = ' '.join(f'{name}={value}' for name, value in result['environment'].items())
    return (f"{arguments.command}, preset {result['preset']}{scaled}, {rays}{result['device']}, "
            f"{result['threads']} threads, median of {result['repeats']}; other processes kept "
            f"{result['others_busy_cpus']:.2f} CPUs busy meanwhile\n"
            f"environment: {environment or 'defaults of malloc and threads'}")


def main(argv: List[str] = None) -> None:
    """Runs one benchmark, or one side of it in a child."""
    arguments = parse_arguments(__doc__, argv)
    if arguments.peak_of:
        print(peak_of(arguments))
        return
    bystanders = Bystanders()
    say(f'{arguments.command}, preset {arguments.preset}, {arguments.device}')
    result = BENCHMARKS[arguments.command](arguments)
    tables = [rows_of(result)]
    if arguments.command == 'features':  # its parts have no column in common
        tables = [rows_of({part: result[part]}) for part in arguments.parts]
    result.update(shown_options(arguments), threads=torch.get_num_threads(),
                  others_busy_cpus=bystanders.share(), torch=torch.__version__,
                  environment=settings())
    if arguments.json:
        write_result(arguments.json, result)
    say('done' + (f', wrote {arguments.json}' if arguments.json else ''))
    print(headline(arguments, result))
    print(show(arguments.command, tables))


if __name__ == '__main__':
    try:
        main()
    except FileNotFoundError as error:  # the real sequence, which not everybody has
        print(f'benchmark: {error}', file=sys.stderr)
        raise SystemExit(2) from error
