#!/usr/bin/env python
"""A table of the runs below a folder: ``python tools/report.py WORK_DIR [--out FILE.json]``."""
import argparse

from langocc.evaluation.report import markdown_table, read_runs
from langocc.files import one_line_errors, write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', help='folder whose sub-folders hold metrics.json of each run')
    parser.add_argument('--out', metavar='FILE.json', help='write the rows as JSON')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    rows = read_runs(args.root)
    print(markdown_table(rows))
    if args.out:
        write_json(args.out, rows, indent=2)


if __name__ == '__main__':
    with one_line_errors('report', ValueError):
        main()
