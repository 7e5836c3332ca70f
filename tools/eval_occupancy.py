#!/usr/bin/env python
"""Scores of predictions in files: mIoU, geometric IoU and RayIoU.

Occupancy in Occ3D's layout, as test.py --format-only and other projects write it:

    python tools/eval_occupancy.py INFOS --data-root DIR --predictions DIR [--out FILE.json]

Labels of LiDAR points of any segmentation, voted into voxels (docs/protocols.md):

    python tools/eval_occupancy.py INFOS --data-root DIR --predictions DIR --points lidarseg17
    python tools/eval_occupancy.py INFOS --data-root DIR --predictions DIR --points road car sky \\
        --class-mapping road=driveable_surface sky=none

INFOS is the JSON file of tools/prepare_data.py; every key frame in it needs a prediction.
"""
import argparse
import os
from typing import Dict, Optional, Sequence

from mmengine.logging import MMLogger
from tqdm import tqdm

from langocc.datasets.key_frames import KeyFrames
from langocc.evaluation import MASKS, OccMetric, RayIoUMetric
from langocc.evaluation.grid_shape import VOXEL_SIZE
from langocc.evaluation.saved_predictions import SavedOccupancy, SavedPointLabels, score_saved
from langocc.files import one_line_errors, write_json
from langocc.lidarseg import LIDARSEG_16, LIDARSEG_17, LIDARSEG_CATEGORIES
from langocc.occ3d import OCC3D_RANGE

CLASS_LISTS = dict(lidarseg16=LIDARSEG_16, lidarseg17=LIDARSEG_17, lidarseg32=LIDARSEG_CATEGORIES)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('infos', help='JSON file of tools/prepare_data.py')
    parser.add_argument('--data-root', required=True, help="folder that the infos' paths are "
                        'relative to')
    parser.add_argument('--predictions', required=True, metavar='DIR')
    parser.add_argument('--points', nargs='+', metavar='CLASS',
                        help='predictions are labels of LiDAR points: names of their classes in '
                        f'order, or one of {", ".join(CLASS_LISTS)}')
    parser.add_argument('--class-mapping', nargs='+', default=[], metavar='NAME=CLASS',
                        help="with --points: Occ3D's class of a name, or 'none'")
    parser.add_argument('--metrics', nargs='+', default=['OccMetric', 'RayIoUMetric'],
                        choices=['OccMetric', 'RayIoUMetric'], help='default: both')
    parser.add_argument('--masks', nargs='+', default=['camera'], choices=MASKS,
                        help='of OccMetric (default: camera)')
    parser.add_argument('--point-cloud-range', nargs=6, type=float, default=OCC3D_RANGE,
                        metavar='METRES', help='of the grid: x y z of its lowest, then of its '
                        "highest corner; for RayIoUMetric and --points (default: Occ3D's)")
    parser.add_argument('--voxel-size', type=float, default=VOXEL_SIZE, metavar='METRES',
                        help=f'edge of its cubic cells (default: {VOXEL_SIZE})')
    parser.add_argument('--workers', type=int, default=os.cpu_count(),
                        help='threads (default: one a core)')
    parser.add_argument('--out', metavar='FILE.json', help='write the scores as JSON')
    args = parser.parse_args()
    if args.class_mapping and not args.points:
        parser.error('--class-mapping needs --points')
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}, expected at least 1')
    return args


def class_names(points: Sequence[str], frames: KeyFrames) -> Sequence[str]:
    """Names of --points; the raw categories as the infos number them, where they do."""
    if list(points) == ['lidarseg32'] and frames.categories:
        return [frames.categories.get(i, 'noise') for i in range(max(frames.categories) + 1)]
    return CLASS_LISTS.get(points[0], points) if len(points) == 1 else points


def read_mapping(items: list) -> Dict[str, Optional[str]]:
    """``name=class`` of the command line; 'none' means no vote."""
    wrong = [item for item in items if item.count('=') != 1 or not all(item.split('='))]
    if wrong:
        raise ValueError(f'--class-mapping {wrong}: expected name=class')
    pairs = (item.split('=') for item in items)
    return {name: None if target == 'none' else target for name, target in pairs}


def main() -> None:
    args = parse_args()
    frames = KeyFrames(args.infos, args.data_root)
    grid = dict(point_cloud_range=args.point_cloud_range, voxel_size=args.voxel_size)
    if args.points:
        predictions = SavedPointLabels(args.predictions, frames, class_names(args.points, frames),
                                       read_mapping(args.class_mapping), **grid)
    else:
        predictions = SavedOccupancy(args.predictions, frames)
    metrics = dict(OccMetric=OccMetric(masks=args.masks), RayIoUMetric=RayIoUMetric(**grid))
    MMLogger.get_instance('eval_occupancy')  # where the metrics' tables go
    with tqdm(total=len(frames), unit='frame') as progress:
        scores = score_saved(frames, predictions, [metrics[name] for name in args.metrics],
                             args.workers, progress)
    if args.out:
        write_json(args.out, scores, indent=2)


if __name__ == '__main__':
    with one_line_errors('eval_occupancy', ValueError, KeyError, OSError):
        main()
