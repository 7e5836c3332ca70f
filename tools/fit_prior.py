#!/usr/bin/env python
"""Count the training labels of a config: per-voxel majority, and how frequent each class is.

    python tools/fit_prior.py CONFIG --out INFO_ROOT/prior.npz

`PriorOccupancy` predicts the file's volume: the baseline that looks at nothing. A voxel has the
class that it had most often among the samples that observed it (Occ3D's camera mask; free loses a
tie) and is free where none did. The counts printed are what `BEVOccHead(class_counts=)` takes.
"""
import argparse
from typing import Iterator

import numpy as np
from mmdet3d.registry import DATASETS
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import init_default_scope
from tqdm import tqdm

from langocc.engine import merge_options
from langocc.evaluation import MASKS, OccupancyPrior, fit_prior, load_occupancy
from langocc.files import existing_file, one_line_errors
from langocc.occ3d import OCC3D_CLASSES


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='recipe whose training set is read')
    parser.add_argument('--out', required=True, help='.npz file to write')
    parser.add_argument('--mask', choices=list(MASKS), default='camera',
                        help='voxels that count (default: camera)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override config values')
    args = parser.parse_args()
    if not args.out.endswith('.npz'):
        parser.error(f'--out {args.out}: expected a name that ends in .npz')
    return args


def training_set(cfg: Config) -> ConfigDict:
    """The config's training data set, without its pipeline and its ray frames.

    Raises:
        ValueError: the config trains nothing, or wraps its data set.
    """
    loader = cfg.get('train_dataloader')
    if loader is None:
        raise ValueError(f'{cfg.filename} has no train_dataloader: name a recipe that trains')
    if 'ann_file' not in loader.dataset:
        raise ValueError(f'{cfg.filename}: train_dataloader.dataset is a {loader.dataset.type}, '
                         'expected the data set itself, with an ann_file')
    return ConfigDict(loader.dataset, pipeline=[], ray_frame_ids=[0])


def labels(config: ConfigDict) -> Iterator[dict]:
    """Occ3D labels of every sample, one at a time."""
    dataset = DATASETS.build(config)
    for index in tqdm(range(len(dataset)), desc='labels', unit='sample'):
        info = dataset.get_data_info(index)
        if 'occ_path' not in info:
            raise ValueError(f'{dataset.ann_file}: sample {info["token"]} has no occ_path')
        yield load_occupancy(info['occ_path'])


def describe(prior: OccupancyPrior) -> str:
    """What was found, in a few lines."""
    seen = prior.observed > 0
    occupied = np.count_nonzero(prior.semantics != len(OCC3D_CLASSES) - 1)
    lines = [f'{prior.num_samples} samples; {100 * seen.mean():.1f} % of the voxels observed in at '
             f'least one, {100 * occupied / seen.size:.1f} % occupied in the prior']
    lines += [f'{name:>22} {count:>14,}' for name, count in zip(OCC3D_CLASSES, prior.class_counts)]
    return '\n'.join([*lines, f'class_counts={prior.class_counts.tolist()}'])


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    merge_options(cfg, args.cfg_options)
    init_default_scope('mmdet3d')
    prior = fit_prior(labels(training_set(cfg)), args.mask)
    prior.save(args.out)
    print(describe(prior))
    print(f'wrote {args.out}')


if __name__ == '__main__':
    with one_line_errors('fit_prior', ValueError, KeyError):
        main()
