#!/usr/bin/env python
"""Tables of finished runs, from work directories or from rows.

    python tools/report.py WORK_DIR [--table main classes queries] [--out FILE.json]
    python tools/report.py --rows DIR [--experiments FILE.yaml] [--table main classes queries]

The first reads metrics.json and what is beside it in the sub-folders of WORK_DIR, the second the
rows that tools/compare.py writes: mean and sample standard deviation over seeds.
"""
import argparse
import json

from langocc.evaluation.report import read_runs
from langocc.experiments import (
    choose_runs, class_table, comparison_table, query_table, read_experiments, read_rows
)
from langocc.files import one_line_errors, write_json

TABLES = dict(main=comparison_table, classes=class_table, queries=query_table)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', nargs='?', help='folder whose sub-folders hold metrics.json of '
                        'each run')
    parser.add_argument('--rows', metavar='DIR', help='folder of rows')
    parser.add_argument('--experiments', metavar='FILE.yaml',
                        help='only the runs of this file, in its order (default: all rows)')
    parser.add_argument('--only', nargs='+', metavar='NAME',
                        help="of --experiments: only these entries or runs, * for anything")
    parser.add_argument('--table', nargs='+', default=['main'], choices=TABLES,
                        help='scores, IoU of classes, average precision of queries')
    parser.add_argument('--budgets', nargs='+', metavar='NAME',
                        help='of rows: only these budgets (untrained entries stay)')
    parser.add_argument('--format', default='markdown', choices=('markdown', 'json'))
    parser.add_argument('--out', metavar='FILE.json', help='write the rows as JSON')
    args = parser.parse_args()
    if (args.root is None) == (args.rows is None):
        parser.error('name a work directory or --rows DIR')
    if args.rows is None and (args.experiments or args.budgets):
        parser.error('--experiments and --budgets need --rows')
    if args.only and not args.experiments:
        parser.error('--only needs --experiments')
    return args


def select(args: argparse.Namespace) -> list:
    """The wanted rows of ``--rows``."""
    runs = None
    if args.experiments:
        runs = choose_runs(read_experiments(args.experiments), args.only)
    rows = read_rows(args.rows, runs)
    if args.budgets:
        known = {row['budget'] for row in rows} - {None}
        unknown = sorted(set(args.budgets) - known)
        if unknown:
            raise ValueError(f'no rows of budgets {unknown}; there are {sorted(known)}')
        rows = [row for row in rows if row['budget'] in (None, *args.budgets)]
    return rows


def main() -> None:
    args = parse_args()
    rows = read_runs(args.root) if args.rows is None else select(args)
    if args.format == 'json':
        print(json.dumps(rows, indent=2))
    else:
        print('\n\n'.join(TABLES[name](rows) for name in args.table))
    if args.out:
        write_json(args.out, rows, indent=2)


if __name__ == '__main__':
    with one_line_errors('report', ValueError):
        main()
