#!/usr/bin/env python
"""Train and evaluate a list of experiments, and go on where it stopped.

    python tools/compare.py configs/experiments/synthetic.yaml --work-dir work_dirs/synthetic \
        --rows benchmarks/synthetic

Every run gets a folder in the work dir and, once finished, a row DIR/<run>.json. Run again,
finished rows stay, a training that was cut off goes on from its last checkpoint. A run whose
definition (code of the config, options, environment, seed, steps, data) changed is refused unless
--redo is given (--redo scores keeps its training). A row that only lacks retrieval or cost gets it
from the run's checkpoint; it is never trained again for that. Ctrl-C and SIGTERM stop what runs and
leave everything ready to go on.
Exit status: 0 all finished; 1 a run failed, is worked on elsewhere, or its row lacks something and
its checkpoint is not there; 2 wrong arguments, missing files or changed definitions; 3 --max-hours
are over; 130, 143 stopped by a signal. tools/report.py makes the table again.
"""
import argparse
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import List

from langocc.experiments import (
    Outcome, Plan, Schedule, check_inputs, choose_runs, comparison_table, load_config, make_plan,
    read_experiments, read_rows, write_summary
)
from langocc.files import atomic_write, one_line_errors

TOOLS = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiments', help='YAML file; see langocc/experiments/definition.py')
    parser.add_argument('--work-dir', type=Path, help='folders of the runs; table.md and '
                        'summary.json of the last call. Files that share runs share it (default: '
                        'work_dirs/<name of the file>)')
    parser.add_argument('--rows', type=Path, metavar='DIR', help='rows of finished runs '
                        '(default: rows in the work dir)')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='entries or runs, * for anything')
    parser.add_argument('--redo', nargs='?', const='changed', choices=('changed', 'scores', 'all'),
                        help='make runs of changed definition anew; or only their scores, with '
                        'the checkpoint that is there: for changes that cannot matter to a '
                        'training, such as density_threshold; or all runs, whole')
    parser.add_argument('--keep-changed', action='store_true', help='take rows of another '
                        'definition as they are: for changes that cannot matter. What they lack is '
                        'measured with their checkpoint and the config of now')
    parser.add_argument('--slots', type=int, default=1, help='runs at once, each on a GPU of its '
                        'own where there are several (default: 1)')
    parser.add_argument('--max-hours', type=float, metavar='H', help='stop after H hours')
    parser.add_argument('--list', action='store_true', help='say what is finished and what is not')
    parser.add_argument('--dry-run', action='store_true',
                        help='check the configs and print the commands of what is to be done')
    args = parser.parse_args()
    if args.redo and args.keep_changed:
        parser.error('--redo and --keep-changed exclude each other')
    args.work_dir = args.work_dir or Path('work_dirs') / Path(args.experiments).stem
    args.rows = args.rows or args.work_dir / 'rows'
    return args


def say(line: str) -> None:
    print(f'[compare] {time.strftime("%H:%M:%S")} {line}', flush=True)


def show_list(plan: Plan) -> None:
    """One line a run."""
    for run in plan.finished:
        print(f'{run.name}: finished')
    for job in plan.pending:
        progress, stage = job.progress(), job.next_stage()
        state = f'next: {stage}' if stage else 'next: its row'
        if stage == 'train' and progress:
            state += f', was at step {progress[0]} of {progress[1]}'
        if (job.folder / 'failure.json').is_file():
            state += f', failed before (see {job.folder / "failure.json"})'
        print(f'{job.run.name}: {state}')
    for name, change in plan.changed.items():
        print(f'{name}: definition changed: {change}')
    for name, reason in plan.incomplete.items():
        print(f'{name}: left as it is: {reason}')


def check(plan: Plan, show: bool) -> None:
    """Options and variables arrive where they should and files are there; shows the commands."""
    for job in plan.pending:
        check_inputs(job.run, load_config(job.run))
        stages = ['train'] * job.run.train + ['test'] + ['retrieval'] * bool(
            job.run.retrieval) + ['cost'] * job.run.cost
        commands = [job.command(stage) for stage in stages]
        if show:
            print(f'# {job.run.name}')
            for command in commands:
                steps = f'LANGOCC_MAX_ITERS={job.run.steps} ' if job.run.steps else ''
                print(steps + shlex.join(command))


def perform(plan: Plan, args: argparse.Namespace) -> int:
    """Do what is pending; the exit status."""
    seconds = None if args.max_hours is None else args.max_hours * 3600
    schedule = Schedule(plan, args.rows, args.redo, args.slots, seconds, say)
    caught = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: (caught.append(got), schedule.stop('signal')))
    outcome = schedule.run()
    write_summary(args.work_dir / 'summary.json', plan, outcome)
    return exit_status(plan, outcome, caught)


def exit_status(plan: Plan, outcome: Outcome, caught: List[int]) -> int:
    """Says what is left and turns it into a status."""
    if outcome.stopped:
        say(f'stopped ({"--max-hours" if outcome.stopped == "time" else "signal"}); the same '
            'command goes on')
        return 128 + caught[0] if caught else 3
    if outcome.failed or outcome.busy or plan.incomplete:
        say('not finished: ' + ', '.join([*outcome.failed, *outcome.busy, *plan.incomplete]))
        return 1
    return 0


def main() -> int:
    args = parse_args()
    runs = read_experiments(args.experiments)
    plan = make_plan(choose_runs(runs, args.only), args.work_dir, args.rows,
                     TOOLS, args.redo, args.keep_changed)
    if args.list:
        show_list(plan)
        return 0
    if plan.changed:
        for name, change in plan.changed.items():
            print(f'compare: {name}: definition changed: {change}', file=sys.stderr)
        raise ValueError('these runs exist with another definition; --redo makes them anew, '
                         '--redo scores keeps their training, --keep-changed takes their rows as '
                         'they are, --only leaves them out, another --work-dir and --rows keep '
                         'both')
    check(plan, args.dry_run)
    for name, reason in plan.incomplete.items():
        say(f'{name}: left as it is: {reason}')
    if args.dry_run:
        return 0
    status = perform(plan, args)
    try:
        table = comparison_table(read_rows(args.rows, runs))
    except FileNotFoundError:  # not one run finished
        return status
    print(table)
    with atomic_write(args.work_dir / 'table.md') as temporary:
        temporary.write_text(table + '\n', encoding='utf-8')
    return status


if __name__ == '__main__':
    with one_line_errors('compare', ValueError):
        sys.exit(main())
