#!/usr/bin/env python
"""Average precision of a trained field at LiDAR points, beside its 2D teacher's, per query.

``python tools/eval_retrieval.py CONFIG CHECKPOINT --benchmark DIR [--out FILE.json]``
"""
import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from langocc.apis import OccInferencer, score_retrieval
from langocc.files import existing_file, one_line_errors, write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--benchmark', required=True,
                        help='folder in the layout of the POP-3D retrieval benchmark')
    parser.add_argument('--splits', nargs='+', default=['train', 'val', 'test'])
    parser.add_argument('--out', metavar='FILE.json', help='write all rows and means as JSON')
    parser.add_argument('--device', help="'cpu', 'cuda:0' ... (default: a GPU where there is one)")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def show(value) -> str:
    return '     -' if value is None else f'{value:6.1f}'


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    existing_file(args.checkpoint, 'checkpoint')
    existing_file(Path(args.benchmark) / 'retrieval_anns_all.csv', 'table of the benchmark')
    inferencer = OccInferencer(cfg, args.checkpoint, args.device)
    result = score_retrieval(inferencer, args.benchmark, args.splits)
    print(f'{"query":<20} {"split":<6} {"field":>6} {"teach.":>6} {"chance":>6} {"all":>6}')
    for row in result['queries']:
        print(f'{row["query"]:<20} {row["split"]:<6} {show(row["visible"])} '
              f'{show(row.get("teacher"))} {show(row["chance"])} {show(row["all"])}')
    for name, means in result['means'].items():
        print(f'{"mean":<20} {name:<6} {show(means["visible"])} {show(means["teacher"])} '
              f'{show(means["chance"])} {show(means["all"])}')
    print('field, teacher, chance: visible points inside the grid; all: all points inside the grid')
    if args.out:
        write_json(args.out, result, indent=2)


if __name__ == '__main__':
    with one_line_errors('eval_retrieval'):
        main()
