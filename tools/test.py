#!/usr/bin/env python
"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [--format-only DIR] ...``."""
import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction

from langocc.engine import build_runner, set_work_dir
from langocc.files import write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint; the constant slab needs '
                        'none')
    parser.add_argument('--work-dir', help='where logs go (default: work_dirs/<config name>)')
    parser.add_argument('--out', metavar='FILE.json', help='write the metrics as JSON')
    parser.add_argument('--format-only', metavar='DIR', help='score nothing; write predictions in '
                        "Occ3D's layout to DIR")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override config values')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    set_work_dir(cfg, args.work_dir, args.config)
    if args.checkpoint is not None:
        if not Path(args.checkpoint).is_file():
            raise FileNotFoundError(f'checkpoint {args.checkpoint} does not exist')
        cfg.load_from = args.checkpoint
    if args.format_only:
        cfg.test_evaluator.update(format_only=True, out_dir=args.format_only)
    if args.checkpoint is None and not cfg.get('load_from') and cfg.get('needs_checkpoint', True):
        raise SystemExit(f'test: {args.config} needs a CHECKPOINT')
    metrics = build_runner(cfg, args.launcher).test()
    if args.out:
        write_json(args.out, metrics, indent=2)


if __name__ == '__main__':
    main()
