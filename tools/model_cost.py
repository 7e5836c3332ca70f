#!/usr/bin/env python
"""Parameters, FLOPs, seconds and peak memory of a prediction, beside the scores; one table.

    python tools/model_cost.py configs/flashocc-tiny_r18_1xb1_synthetic.py
    python tools/model_cost.py work_dirs/compare/twin work_dirs/compare/camera --json cost.json
    python tools/model_cost.py configs/flashocc_r50_4xb4-24e_nus-occ3d.py --random-input

A PATH is a config, a work directory of train.py, or a run's folder of compare.py: config, last
checkpoint and ``metrics.json`` are found there, and what is measured is left there as
``cost.json``. Each model is measured in a process of its own, one after another. What counts as an
operation is said in langocc/apis/model_cost.py. Exit status: 0 done; 2 a path or file is wrong.
"""
import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import torch

from langocc.apis.model_cost import cost_table, measure_cost
from langocc.files import one_line_errors, write_json


def parse_args(argv=None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('paths', nargs='+', metavar='PATH', help='config or work directory')
    parser.add_argument('--random-input', action='store_true',
                        help='random images in place of the first test sample: needs no data')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
                        help="'cpu', 'cuda', 'cuda:1' ... (default: a GPU where there is one)")
    parser.add_argument('--repeats', type=int, default=3, metavar='N',
                        help='timed predictions, after one that warms up (default: %(default)s)')
    parser.add_argument('--json', metavar='FILE', help='write the rows here, too')
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f'--repeats is {args.repeats}, expected at least 1')
    return args


def find_run(path: Path) -> Tuple[Path, Optional[Path], Dict[str, Any]]:
    """Config, checkpoint and metrics of a path.

    Raises:
        FileNotFoundError: there is no config.
        ValueError: there are several, or the metrics cannot be read.
    """
    if path.is_file():
        return path, None, {}
    folder = path / 'train' if (path / 'train').is_dir() else path
    configs = sorted(folder.glob('*.py'))
    if not configs:
        raise FileNotFoundError(f'{path} is no config, and there is none in {folder}')
    if len(configs) > 1:
        raise ValueError(f'{folder} has several configs: {[item.name for item in configs]}')
    record, checkpoint = folder / 'last_checkpoint', None
    if record.is_file():  # the folder may have moved
        checkpoint = folder / Path(record.read_text(encoding='utf-8').strip()).name
    scores, metrics = path / 'metrics.json', {}
    if scores.is_file():
        try:
            metrics = json.loads(scores.read_text(encoding='utf-8'))
        except ValueError as error:
            raise ValueError(f'{scores} is not valid JSON: {error}') from error
    return configs[0], checkpoint, metrics


def measure(path: Path, args: argparse.Namespace) -> Dict[str, Any]:
    """The row of a path; work directories keep what is measured."""
    config, checkpoint, metrics = find_run(path)
    print(f'{path}: measuring', file=sys.stderr, flush=True)
    context = multiprocessing.get_context('spawn')  # memory of a process that did nothing else
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        row = pool.submit(
            measure_cost, str(config), None if checkpoint is None else str(checkpoint),
            args.device, args.repeats, None if args.random_input else 0).result()
    row.update(name=path.stem if path.is_file() else path.name, metrics=metrics)
    if path.is_dir():
        write_json(path / 'cost.json', row, indent=1)
    return row


def main(argv=None) -> int:
    """Runs the tool; returns the exit status."""
    args = parse_args(argv)
    with one_line_errors('model_cost.py', ValueError, RuntimeError):
        paths = [Path(path) for path in args.paths]
        for path in paths:
            find_run(path)  # all at once, before anything is measured
        rows = [measure(path, args) for path in paths]
        if args.json:
            write_json(args.json, rows, indent=1)
        print(cost_table(rows))
    return 0


if __name__ == '__main__':
    sys.exit(main())
