#!/usr/bin/env python
"""Depth maps with a monocular estimator's errors for a synthetic set.

    python tools/make_pseudo_depth.py data/synthetic

Writes ROOT/pseudo_depth/<sample_data token>.png: 16 bits, z-depth in 1/256 m, 0 unknown. The error
model, a stand-in for an estimator, is stated in langocc/synthetic/pseudo_depth.py; what it amounts
to is printed. Run again after an interruption, it goes on where it was. Exit status: 0 done; 2 an
argument or the folder is wrong.
"""
import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from langocc.files import one_line_errors
from langocc.synthetic.pseudo_depth import read_settings, write_pseudo_depth
from langocc.synthetic.records import SPLITS


def parse_args(argv=None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', help='folder of the set, as make_synthetic.py wrote it')
    parser.add_argument('--splits', nargs='+', default=['train'], choices=SPLITS,
                        help='of the images (default: train; evaluation needs none)')
    parser.add_argument('--workers', type=int, default=len(os.sched_getaffinity(0)), metavar='N',
                        help='processes (default: one a core)')
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}, expected at least 1')
    return args


def make(args: argparse.Namespace) -> None:
    """Makes the maps and says how wrong they are."""
    settings = read_settings(Path(args.root))
    scenes = sum(scene.split in args.splits for scene in settings.scenes())
    with tqdm(total=scenes * settings.frames, desc='depth', unit='frame') as progress:
        done = write_pseudo_depth(args.root, args.splits, workers=args.workers,
                                  progress=progress.update)
    if done['images']:
        print('{images} maps made now; mean absolute relative error {abs_rel:.3f}, within a factor '
              'of 1.25 {delta1:.3f}, of {known:.1%} of the cells'.format(**done))
    else:
        print('all maps were there already')


def main(argv=None) -> int:
    """Runs the tool; returns the exit status."""
    with one_line_errors('make_pseudo_depth.py', ValueError):
        make(parse_args(argv))
    return 0


if __name__ == '__main__':
    sys.exit(main())
