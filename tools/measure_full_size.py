#!/usr/bin/env python
"""Time and peak memory of one training step and one prediction of a recipe, batch 1.

``python tools/measure_full_size.py CONFIG [--steps 2] [--out FILE.json]``. Each side runs in a
process of its own, whose high-water mark (CPU) or allocator peak (GPU) is reported. What is
measured now is said on stderr. Exit status: 0 done; 2 an argument is wrong or data are missing.
"""
import argparse
import json
import multiprocessing
import resource
import sys
import time

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.files import existing_file, one_line_errors, write_json

TOOL = 'measure_full_size'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--steps', type=int, default=2, metavar='N',
                        help='steps; the last one is timed (default: %(default)s)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
                        help="'cpu', 'cuda', 'cuda:1' ... (default: a GPU where there is one)")
    parser.add_argument('--out', metavar='FILE.json', help='write the rows here, too')
    args = parser.parse_args()
    if args.steps < 1:
        parser.error(f'--steps {args.steps}: expected at least 1')
    try:
        torch.empty(0, device=args.device)
    except (AssertionError, RuntimeError) as error:
        parser.error(f'--device {args.device}: {str(error).splitlines()[0]}')
    return args


def say(what: str) -> None:
    """A line of progress."""
    print(what, file=sys.stderr, flush=True)


def measure_or_complain(*args) -> None:
    """As :func:`measure`, in a process of its own: a missing file is one line and exit status 2."""
    with one_line_errors(TOOL):
        measure(*args)


def measure(config: str, mode: str, steps: int, device: str, queue) -> None:
    """Run ``mode`` ('train' or 'predict') and put its figures into ``queue``."""
    say(f'{mode}: building the model, reading a sample')
    cfg = Config.fromfile(config)
    init_default_scope('mmdet3d')
    training = mode == 'train'
    model = MODELS.build(cfg.model).to(device)
    model.train(training)
    loader = cfg.train_dataloader if training else cfg.test_dataloader
    batch = pseudo_collate([DATASETS.build(loader.dataset)[0]])
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for step in range(steps):
        say(f'{mode}: step {step + 1} of {steps}')
        start = time.perf_counter()
        log = model.train_step(batch, wrapper) if training else model.test_step(batch)
        if device != 'cpu':
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = dict(mode=mode, device=device, seconds=seconds, peak_mb=peak / 1024,
               before_mb=before / 1024)
    if device != 'cpu':
        row['gpu_peak_mb'] = torch.cuda.max_memory_allocated() / 2**20
    if training:
        row['loss'] = float(log['loss'])
    queue.put(row)


def main() -> None:
    args = parse_args()
    existing_file(args.config, 'config')
    context = multiprocessing.get_context('spawn')
    rows = []
    for mode in ('train', 'predict'):
        queue = context.SimpleQueue()
        process = context.Process(target=measure_or_complain, args=(
            args.config, mode, args.steps, args.device, queue))
        process.start()
        process.join()
        if process.exitcode == 2:  # it has said why
            raise SystemExit(2)
        if process.exitcode:
            raise SystemExit(f'{TOOL}: {mode} failed with exit code {process.exitcode}')
        rows.append(queue.get())
        print(json.dumps(rows[-1]))
    if args.out:
        write_json(args.out, dict(config=args.config, rows=rows), indent=2)


if __name__ == '__main__':
    with one_line_errors(TOOL):
        main()
