#!/usr/bin/env python
"""Average precision of a trained field at LiDAR points, beside its 2D teacher's, per query.

POP-3D's benchmark, the numbers of RetrievalMetric:

    python tools/eval_retrieval.py CONFIG CHECKPOINT --benchmark DIR [--out FILE.json]

Your own words against LiDAR labels in nuScenes-lidarseg's format, as the infos name them; a word is
followed by the categories that it should find, whole names or parts of them:

    python tools/eval_retrieval.py CONFIG CHECKPOINT --words "car=vehicle.car" "truck=truck,trailer"
"""
import argparse
from pathlib import Path
from typing import Iterable, List, Mapping

from mmengine.config import Config, DictAction

from langocc.apis import OccInferencer, score_retrieval, score_words
from langocc.datasets.retrieval_benchmark import SPLITS
from langocc.engine import merge_options
from langocc.evaluation.lidarseg_queries import parse_words
from langocc.evaluation.retrieval import VARIANTS
from langocc.evaluation.retrieval_metric import report_of
from langocc.files import existing_file, one_line_errors, write_json

COLUMNS = ('visible', 'teacher', 'chance', 'all', 'chance_all')
HEAD = f'{"field":>6} {"teach.":>6} {"chance":>6} {"all":>6} {"chance":>6}'
FOOT = ('field, teacher, chance: points that a camera sees inside the grid; all, chance: all '
        'points inside the grid')
POP3D_FOOT = ('pop3d: all points, those outside the grid at its nearest voxel; field, teacher, '
              'chance: as often as the file of visible points lists them')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument('--benchmark', help='folder in the layout of the POP-3D retrieval benchmark')
    asked.add_argument('--words', nargs='+', metavar='WORD=CATEGORY,CATEGORY',
                       help='your own words, scored against LiDAR labels')
    parser.add_argument('--splits', nargs='+', default=SPLITS, choices=SPLITS,
                        help='of the benchmark')
    parser.add_argument('--variant', choices=VARIANTS, default='langocc',
                        help="whose rule of what points count (default: langocc)")
    parser.add_argument('--samples', nargs='+',
                        help='with --words: sample tokens or indices (default: the test data set)')
    parser.add_argument('--out', metavar='FILE.json', help='write all rows and means as JSON')
    parser.add_argument('--device', help="'cpu', 'cuda:0' ... (default: a GPU where there is one)")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def line(first: str, second: str, values: Mapping) -> str:
    cells = ['     -' if values.get(key) is None else f'{values[key]:6.1f}' for key in COLUMNS]
    return f'{first:<20} {second:<8} ' + ' '.join(cells)


def report_benchmark(result: Mapping) -> List[str]:
    lines = [f'{"query":<20} {"split":<8} {HEAD}']
    lines += [line(row['query'], row['split'], row) for row in result['queries']]
    lines += [line(f'mean of {means["queries"]}', name, means)
              for name, means in result['means'].items()]
    foot = POP3D_FOOT if result['variant'] == 'pop3d' else FOOT
    return [*lines, *report_of(result), foot]


def report_words(result: Mapping) -> List[str]:
    lines = [f'{"word":<20} {"frames":<8} {HEAD}']
    lines += [line(word, str(means['queries']), means) for word, means in result['words'].items()]
    absent = [word for word, means in result['words'].items() if means['all'] is None]
    if absent:
        lines.append(f'no point is labelled so, left out of the mean: {", ".join(absent)}')
    means = result['means']['all']
    return [*lines, line('mean over words', str(means['queries']), means), FOOT,
            'frames: those with a positive that a camera sees; a word is averaged over them']


def samples_of(args: argparse.Namespace) -> Iterable:
    return args.samples and [int(item) if item.isdigit() else item for item in args.samples]


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    merge_options(cfg, args.cfg_options, also_read=('text_encoder',))
    existing_file(args.checkpoint, 'checkpoint')
    if args.benchmark:
        existing_file(Path(args.benchmark) / 'retrieval_anns_all.csv', 'table of the benchmark')
    # Not optimized: as the metric of test.py sees it, to the last digit.
    inferencer = OccInferencer(cfg, args.checkpoint, args.device, optimize=False)
    if args.benchmark:
        result = score_retrieval(inferencer, args.benchmark, args.splits, args.variant)
        print('\n'.join(report_benchmark(result)))
    else:
        classes = parse_words(args.words, inferencer.dataset.metainfo.get('categories') or {})
        result = score_words(inferencer, classes, samples_of(args))
        print('\n'.join(report_words(result)))
    if args.out:
        write_json(args.out, result, indent=2)


if __name__ == '__main__':
    with one_line_errors('eval_retrieval', ValueError, KeyError):
        main()
