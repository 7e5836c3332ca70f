#!/usr/bin/env python
"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [--metrics NAME ...] ...``."""
import argparse
from typing import Sequence

from mmdet3d.registry import METRICS
from mmengine.config import Config

from langocc.engine import (
    add_runner_arguments, build_runner, close_process_group, read_config, set_checkpoint
)
from langocc.evaluation import MASKS
from langocc.files import one_line_errors, write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_runner_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint; the constant slab needs none')
    parser.add_argument('--out', metavar='FILE.json', help='write the metrics as JSON')
    parser.add_argument('--metrics', nargs='+', metavar='NAME', help='metrics to compute, for '
                        "instance OccMetric RayIoUMetric (default: the config's test_evaluator; "
                        'metrics that it has keep their settings)')
    parser.add_argument('--masks', nargs='+', choices=MASKS, help='voxels that OccMetric counts '
                        "(default: the config's, or camera)")
    parser.add_argument('--format-only', metavar='DIR', help='score nothing; write predictions in '
                        "Occ3D's layout to DIR")
    args = parser.parse_args()
    if args.masks and args.format_only:
        parser.error('--masks: --format-only scores nothing')
    return args


def metrics_of(cfg: Config) -> list:
    """The configs of ``test_evaluator``, one metric or several, as a list."""
    evaluator = cfg.test_evaluator
    return list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]


def choose_metrics(cfg: Config, names: Sequence[str]) -> None:
    """Puts the metrics of these names into ``test_evaluator``; those it has keep their settings.

    Raises:
        ValueError: no metric has that name.
    """
    unknown = [name for name in names if METRICS.get(name) is None]
    if unknown:
        raise ValueError(f'--metrics: no metric is called {unknown}; langocc has OccMetric, '
                         'RayIoUMetric, RetrievalMetric and PointSegOccMetric')
    settings = {metric['type']: metric for metric in metrics_of(cfg)}
    cfg.test_evaluator = [settings.get(name, dict(type=name)) for name in dict.fromkeys(names)]


def set_masks(cfg: Config, masks: Sequence[str]) -> None:
    """Sets ``masks`` of every OccMetric in ``test_evaluator``, also inside of PointSegOccMetric.

    Raises:
        ValueError: there is none.
    """
    metrics = metrics_of(cfg)
    inner = [metric for outer in metrics for metric in outer.get('metrics') or ()]
    of_occupancy = [metric for metric in [*metrics, *inner] if metric['type'] == 'OccMetric']
    if not of_occupancy:
        raise ValueError('--masks needs OccMetric in test_evaluator, which has '
                         f'{[metric["type"] for metric in metrics]}')
    for metric in of_occupancy:
        metric['masks'] = list(dict.fromkeys(masks))


def write_predictions_only(cfg: Config, out_dir: str) -> None:
    """Leaves OccMetric alone in ``test_evaluator`` (one metric or several), to write and not score.

    Raises:
        ValueError: it is not among them.
    """
    metrics = metrics_of(cfg)
    of_occupancy = [metric for metric in metrics if metric['type'] == 'OccMetric']
    if not of_occupancy:
        raise ValueError('--format-only needs OccMetric in test_evaluator, which has '
                         f'{[metric["type"] for metric in metrics]}')
    cfg.test_evaluator = dict(of_occupancy[0], format_only=True, out_dir=out_dir)


def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    set_checkpoint(cfg, args.checkpoint)
    if args.metrics:
        choose_metrics(cfg, args.metrics)
    if args.masks:
        set_masks(cfg, args.masks)
    if args.format_only:
        write_predictions_only(cfg, args.format_only)
    metrics = build_runner(cfg, args.launcher).test()
    if args.out:
        write_json(args.out, metrics, indent=2)
    close_process_group()


if __name__ == '__main__':
    with one_line_errors('test', ValueError, KeyError, OSError):
        main()
