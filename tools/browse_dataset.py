#!/usr/bin/env python
"""Draws samples of a config's training data: network input, projected LiDAR and occupancy.

    python tools/browse_dataset.py CONFIG --out-dir DIR --index 0 5 9

Writes DIR/<index>_<token>.png, one picture a sample, with the augmentation as drawn and undone.
"""
import argparse
from pathlib import Path

from mmdet3d.registry import DATASETS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from langocc.engine import merge_options
from langocc.files import existing_file, one_line_errors
from langocc.visualization import save_picture
from langocc.visualization.browse import draw_sample
from voxelrender import VoxelGrid


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--out-dir', required=True, help='folder of the pictures')
    parser.add_argument('--index', nargs='+', type=int, default=[0], help='samples (default: 0)')
    parser.add_argument('--dataloader', default='train', choices=('train', 'val', 'test'),
                        help='whose data set and pipeline (default: train)')
    parser.add_argument('--seed', type=int, default=0, help='of the augmentation')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    args = parse_args()
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    merge_options(cfg, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    loader = cfg.get(f'{args.dataloader}_dataloader')
    if loader is None:
        raise SystemExit(f'browse: {args.config} has no {args.dataloader}_dataloader; choose '
                         'another with --dataloader')
    dataset = DATASETS.build(loader.dataset)
    wrong = [index for index in args.index if not 0 <= index < len(dataset)]
    if wrong:
        raise SystemExit(f'browse_dataset: no sample {wrong}, the data set has {len(dataset)}')
    grid = (cfg.get('visualizer') or {}).get('grid')  # of the labels; Occ3D's where none is named
    settings = {} if grid is None else dict(grid=VoxelGrid(**grid))
    for index in args.index:
        set_random_seed(args.seed + index)
        packed = dataset[index]
        token = packed['data_samples'].metainfo.get('token', 'sample')
        picture = draw_sample(packed, **settings)
        print(save_picture(Path(args.out_dir) / f'{index:05d}_{token}.png', picture))


if __name__ == '__main__':
    with one_line_errors('browse_dataset', ValueError, KeyError, OSError):
        main()
