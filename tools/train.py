#!/usr/bin/env python
"""Train a model from a config: ``python tools/train.py CONFIG [--work-dir DIR] [--amp] ...``."""
import argparse

from langocc.engine import (
    add_runner_arguments, build_runner, close_process_group, read_config, set_amp,
    set_auto_scale_lr, set_resume
)
from langocc.files import one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_runner_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPU only)')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the real batch size')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from the latest checkpoint of the work dir, or from a file')
    parser.add_argument('--seed', type=int, help='random seed (default: the config\'s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    set_resume(cfg, args.resume)
    if args.amp:
        set_amp(cfg)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=args.seed)
    build_runner(cfg, args.launcher).train()
    close_process_group()


if __name__ == '__main__':
    with one_line_errors('train'):
        main()
