#!/usr/bin/env python
"""Time and peak memory of one training step and one prediction of a recipe, batch 1.

``python tools/measure_full_size.py CONFIG [--steps 2] [--out FILE.json]``. Each side runs in a
process of its own, whose high-water mark (CPU) or allocator peak (GPU) is reported.
"""
import argparse
import json
import multiprocessing
import resource
import time

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.files import write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--steps', type=int, default=2, help='steps; the last one is timed')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', metavar='FILE.json')
    return parser.parse_args()


def measure(config: str, mode: str, steps: int, device: str, queue) -> None:
    """Run ``mode`` ('train' or 'predict') and put its figures into ``queue``."""
    cfg = Config.fromfile(config)
    init_default_scope('mmdet3d')
    training = mode == 'train'
    model = MODELS.build(cfg.model).to(device)
    model.train(training)
    loader = cfg.train_dataloader if training else cfg.test_dataloader
    batch = pseudo_collate([DATASETS.build(loader.dataset)[0]])
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(steps):
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
    context = multiprocessing.get_context('spawn')
    rows = []
    for mode in ('train', 'predict'):
        queue = context.SimpleQueue()
        process = context.Process(target=measure, args=(
            args.config, mode, args.steps, args.device, queue))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f'{mode} failed with exit code {process.exitcode}')
        rows.append(queue.get())
        print(json.dumps(rows[-1]))
    if args.out:
        write_json(args.out, dict(config=args.config, rows=rows), indent=2)


if __name__ == '__main__':
    main()
