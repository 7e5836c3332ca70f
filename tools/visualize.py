#!/usr/bin/env python
"""Draw samples of a config's test data: cameras, what they see, occupancy in 3D and from above.

    python tools/visualize.py CONFIG CHECKPOINT --samples 0 5 --out-dir DIR
    python tools/visualize.py CONFIG --labels-only --out-dir DIR

Writes, for each sample, DIR/<index>_<token>/<view>.png and all of them together as sheet.png:
predictions beside labels. Features are colours: the main directions of the text embeddings of the
classes shown, below them the text embedding of each label. A model without a density field is drawn
by its voxels.
"""
import argparse

from mmengine.config import Config, DictAction

from langocc.apis import SampleVisualizer
from langocc.engine import merge_options
from langocc.files import existing_file, one_line_errors
from langocc.visualization import UNSEEN_CHOICES, VIEWS


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument('--labels-only', action='store_true', help='no model: cameras and labels')
    parser.add_argument('--samples', nargs='+', default=['0'],
                        help='sample tokens or indices in the test data set (default: 0)')
    parser.add_argument('--out-dir', default='pictures', help='folder of the pictures')
    parser.add_argument('--views', nargs='+', choices=list(VIEWS), metavar='VIEW',
                        help=f'some of {", ".join(VIEWS)} (default: all that the model has)')
    parser.add_argument('--map-width', type=int, help='columns of a rendered map (default: 200)')
    parser.add_argument('--unseen', choices=UNSEEN_CHOICES,
                        help='voxels that no camera sees (default: pale)')
    parser.add_argument('--device', help="'cpu', 'cuda:0' ... (default: a GPU where there is one)")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    args = parse_args()
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    if args.checkpoint is not None:
        existing_file(args.checkpoint, 'checkpoint')
    merge_options(cfg, args.cfg_options, also_read=('text_encoder',))
    settings = {name: getattr(args, name) for name in ('views', 'map_width', 'unseen')
                if getattr(args, name) is not None}
    visualizer = SampleVisualizer(cfg, args.checkpoint, args.labels_only, args.device, **settings)
    samples = [int(sample) if sample.isdigit() else sample for sample in args.samples]
    for sample in samples:
        visualizer.find(sample)  # all of them, before the first is drawn
    for sample in samples:
        for folder in visualizer.draw([sample], args.out_dir):
            print(folder / 'sheet.png')


if __name__ == '__main__':
    with one_line_errors('visualize', ValueError, KeyError, OSError):
        main()
