#!/usr/bin/env python
"""Label maps with a segmenter's errors for a synthetic set.

    python tools/make_pseudo_labels.py data/synthetic

Writes ROOT/pseudo_labels/<sample_data token>.png: 8 bits, Occ3D's 17 classes, 17 sky, 255 unknown:
the likeliest class of the set's 2D teacher. The errors are stated in
langocc/synthetic/pseudo_labels.py. Run again after an interruption, it goes on where it was. Exit
status: 0 done; 2 an argument or the folder is wrong.
"""
import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from langocc.files import one_line_errors
from langocc.synthetic.pseudo_depth import read_settings
from langocc.synthetic.pseudo_labels import write_pseudo_labels
from langocc.synthetic.records import SPLITS


def parse_args(argv=None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', help='folder of the set, as make_synthetic.py wrote it')
    parser.add_argument('--splits', nargs='+', default=['train'], choices=SPLITS,
                        help='of the images (default: train; evaluation needs none)')
    return parser.parse_args(argv)


def make(args: argparse.Namespace) -> None:
    """Makes the maps and says how much of them is known."""
    settings = read_settings(Path(args.root))
    scenes = sum(scene.split in args.splits for scene in settings.scenes())
    with tqdm(total=scenes * settings.frames, desc='labels', unit='frame') as progress:
        done = write_pseudo_labels(args.root, args.splits, progress=progress.update)
    if done['images']:
        print('{images} maps made now; {known:.1%} of the cells have a label'.format(**done))
    else:
        print('all maps were there already')


def main(argv=None) -> int:
    """Runs the tool; returns the exit status."""
    with one_line_errors('make_pseudo_labels.py', ValueError):
        make(parse_args(argv))
    return 0


if __name__ == '__main__':
    sys.exit(main())
