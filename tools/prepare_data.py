#!/usr/bin/env python
"""nuScenes tables -> info files for NuScenesOccDataset.

Works on any version and root in nuScenes format:

    python tools/prepare_data.py --root data/nuscenes --version v1.0-trainval --out-dir data/infos
    python tools/prepare_data.py --root ROOT --version v1.0-mini --out-dir OUT --splits all

Writes OUT/<prefix>_infos_<split>.json and prints what is missing. Exit status: 0 done; 1 a required
file is missing (nothing written); 2 the tables, the splits or the calibration are wrong.
"""
import argparse
import sys

from tqdm import tqdm

from langocc.datasets.nuscenes_prepare import FILE_KINDS, prepare_infos


def parse_args(argv=None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', required=True, help='folder that holds samples/ and the tables')
    parser.add_argument('--version', default='v1.0-trainval', help='folder of the tables in root')
    parser.add_argument('--out-dir', required=True, help='where the info files go')
    parser.add_argument('--splits', default='official',
                        help='official, all (one file), or a text file of scene names, one a line, '
                        'optionally "name: split"')
    parser.add_argument('--prefix', default='nuscenes', help='start of the file names')
    parser.add_argument('--occ-root', default='gts',
                        help='occupancy labels, relative to root or absolute')
    parser.add_argument('--cameras', nargs='+', metavar='CHANNEL',
                        help='cameras every sample must have (default: all of the sensor table)')
    parser.add_argument('--require', nargs='+', default=['image'], choices=FILE_KINDS,
                        help='files that must be there (default: image)')
    return parser.parse_args(argv)


def main(argv=None) -> int:
    """Runs the tool; returns the exit status."""
    args = parse_args(argv)
    try:
        report = prepare_infos(
            root=args.root, version=args.version, out_dir=args.out_dir, splits=args.splits,
            prefix=args.prefix, occ_root=args.occ_root, cameras=args.cameras,
            required=args.require,
            progress_factory=lambda total, name: tqdm(total=total, desc=name, unit='sample'))
    except (FileNotFoundError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(report)
    return 0 if report.complete else 1


if __name__ == '__main__':
    sys.exit(main())
