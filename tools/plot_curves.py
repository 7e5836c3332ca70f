"""Draws the training curves of one or more work directories into one picture."""
import argparse
from pathlib import Path

from langocc.files import one_line_errors
from langocc.visualization import draw_curves, read_scalars, save_picture


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', help='mmengine work directories')
    parser.add_argument('--out', default='curves.png', help='picture to write')
    parser.add_argument('--names', nargs='+', help='a name for each; default the folder names')
    parser.add_argument('--keys', nargs='+', help='what to draw; default losses and mean metrics')
    parser.add_argument('--smooth', type=int, default=1, help='logged values in a trailing mean')
    args = parser.parse_args()
    args.names = args.names or [Path(work_dir).resolve().name for work_dir in args.work_dirs]
    if len(set(args.names)) != len(args.work_dirs):
        parser.error(f'{len(args.work_dirs)} work directories need as many different --names, got '
                     f'{args.names}')
    return args


def main() -> None:
    """Entry point."""
    args = parse_args()
    runs = {name: read_scalars(path) for name, path in zip(args.names, args.work_dirs)}
    print(save_picture(args.out, draw_curves(runs, args.keys, args.smooth)))


if __name__ == '__main__':
    with one_line_errors('plot_curves', ValueError, KeyError):
        main()
