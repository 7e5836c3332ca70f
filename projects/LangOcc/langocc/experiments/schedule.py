"""Many runs, one after the other or several at once; stopped at any moment, gone on with later."""
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch

from ..files import write_json
from .definition import Run
from .estimate import time_left, words_of
from .fingerprint import definition_of, describe_change
from .job import Job
from .rows import (
    as_in_row, completed_row, make_row, missing_parts, read_row, row_path, scores_of, write_row
)

# Keep freed memory: a CPU training step otherwise spends a sixth of its time in page faults.
CPU_ENVIRONMENT = dict(MALLOC_ARENA_MAX='1', MALLOC_MMAP_MAX_='0',
                       MALLOC_TRIM_THRESHOLD_='17179869184', MALLOC_TOP_PAD_='134217728')


@dataclass
class Plan:
    """Runs sorted by what is to be done with them.

    Attributes:
        finished: their rows are there.
        pending: jobs to do, in order.
        changed: run name -> in words, what of its definition differs from its row's or folder's.
        incomplete: run name -> in words, what its row lacks and why that cannot be measured, or
            why it cannot be scored anew. Such a row stays as it is: to train again would replace
            scores that are good.
    """
    finished: List[Run] = field(default_factory=list)
    pending: List[Job] = field(default_factory=list)
    changed: Dict[str, str] = field(default_factory=dict)
    incomplete: Dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What came of a plan.

    Attributes:
        finished: runs that got their row.
        failed: run name -> stage, exit status and last lines of the log.
        busy: runs that another process works on.
        stopped: '' or why runs are left: 'signal' or 'time'.
    """
    finished: List[str] = field(default_factory=list)
    failed: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    busy: List[str] = field(default_factory=list)
    stopped: str = ''


def make_plan(runs: Sequence[Run], work_dir: Path, rows: Path, tools: Path,
              redo: Optional[str] = None, keep_changed: bool = False) -> Plan:
    """Compare the runs with their rows and folders.

    Args:
        runs: all that are wanted.
        work_dir: folder of the runs' folders.
        rows: folder of the rows.
        tools: folder of train.py, test.py, eval_retrieval.py and model_cost.py.
        redo: 'changed': runs of another definition are made anew; 'scores': their training stays
            and is scored anew, for changes that cannot matter to it; 'all': every run is made
            anew; None: runs of another definition stand in ``changed`` and nowhere else.
        keep_changed: rows of another definition are taken as they are, for changes that cannot
            matter; what they lack is measured where their checkpoint is in the run's folder.

    Raises:
        FileNotFoundError, ValueError: see :func:`definition_of`.
    """
    plan = Plan()
    for run in runs:
        definition, row, old = definition_of(run), read_row(rows, run.name), None
        kept = keep_changed and row is not None
        if kept:
            run, definition = as_in_row(run, row), row['definition']
        job = Job(run, definition, work_dir / run.name, tools)
        if not kept:
            old = job.other_definition
            if old is None and row is not None and row['definition'] != definition:
                old = row['definition']
        reason = job.why_not_scored_anew() if redo == 'scores' and old is not None else ''
        if redo is None and old is not None:
            plan.changed[run.name] = describe_change(old, definition)
        elif reason:
            plan.incomplete[run.name] = f'it cannot be scored anew: {reason}'
        elif redo == 'all' or old is not None or row is None:
            plan.pending.append(job)
        elif not missing_parts(row, run):
            plan.finished.append(run)
        else:
            reason = _why_incomplete(job, row)
            if reason:
                plan.incomplete[run.name] = reason
            else:
                plan.pending.append(job)
    return plan


def _why_incomplete(job: Job, row: Dict[str, Any]) -> str:
    """What a row lacks and why it cannot be had from the job's folder; '' where it can."""
    if job.is_stale:
        reason = f'{job.folder} holds a run of another definition'
    elif job.next_stage() == 'train':
        reason = f'no trained checkpoint of it is in {job.folder}'
    elif any(value != row['metrics'].get(key, value)
             for key, value in (scores_of(job) or {}).items()):
        reason = f'{job.folder} holds another run (its scores differ from those of the row)'
    else:
        return ''
    missing = ' and '.join(missing_parts(row, job.run))
    return (f'its row has no {missing}, and {reason}: name the --work-dir of its training; or '
            f'--redo all --only {job.run.name} makes run and row anew')


class Schedule:
    """Does the pending jobs of a plan.

    Args:
        plan: what is to be done.
        rows: folder that gets a row for every finished run.
        redo: see :func:`make_plan`; what such a run had made before is removed when it starts (of
            'scores': what was measured of it).
        slots: runs at once; with several GPUs each slot has one of its own.
        max_seconds: after that much time what runs is stopped, ready to be gone on with.
        say: called with lines of progress.
        every: seconds between such lines while nothing else happens.
    """

    def __init__(self, plan: Plan, rows: Path, redo: Optional[str] = None, slots: int = 1,
                 max_seconds: Optional[float] = None,
                 say: Callable[[str], None] = lambda line: None, every: float = 30.):
        self.plan, self.rows, self.redo, self.say, self.every = plan, rows, redo, say, every
        self.environments = slot_environments(slots)
        self.outcome = Outcome()
        self._waiting = list(plan.pending)
        for job in self._waiting:
            job.anew = redo == 'all' or (job.is_stale and redo != 'scores')
        self._active: Dict[int, Job] = {}
        self._deadline = None if max_seconds is None else time.monotonic() + max_seconds
        self._spoke = time.monotonic()

    def stop(self, reason: str) -> None:
        """From a signal handler: end what runs and start nothing more."""
        self.outcome.stopped = self.outcome.stopped or reason

    def run(self, pause: float = 0.2) -> Outcome:
        """Do everything; returns when all is done, failed or stopped."""
        try:
            while (self._waiting or self._active) and not self.outcome.stopped:
                self._step()
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self.stop('time')
                elif self._active:
                    time.sleep(pause)
        finally:
            for job in self._active.values():
                self.say(f'{job.run.name}: stopping')
                job.stop()
                job.unlock()
        return self.outcome

    def _step(self) -> None:
        for slot in range(len(self.environments)):
            if slot not in self._active and self._waiting:
                self._take(slot)
            job = self._active.get(slot)
            if job is None:
                continue
            before = job.stage
            goes_on = job.advance(self.environments[slot])
            if job.stage and job.stage != before:
                self._tell(f'{job.run.name}: {_stage_words(job)}')
            if not goes_on:
                self._finish(self._active.pop(slot))
        if time.monotonic() - self._spoke > self.every:
            self._tell(', '.join(f'{job.run.name}: {_stage_words(job)}'
                                 for job in self._active.values()))

    def _take(self, slot: int) -> None:
        job = self._waiting.pop(0)
        if not job.lock():
            self.outcome.busy.append(job.run.name)
            self.say(f'{job.run.name}: another process works in {job.folder}; left alone')
            return
        if self.redo == 'all':  # without its row it is gone on with also by a call without redo
            row_path(self.rows, job.run.name).unlink(missing_ok=True)
        if self.redo == 'scores' and job.is_stale:
            job.keep_training()
        elif self.redo == 'all' or job.is_stale:
            job.clear()
        self._active[slot] = job

    def _finish(self, job: Job) -> None:
        name = job.run.name
        if job.failure is None:
            row = read_row(self.rows, name)
            if row is not None and (row['definition'], row['metrics']) == (
                    job.definition, scores_of(job)):
                row = completed_row(row, job)
            else:
                row = make_row(job)
            path = write_row(self.rows, row)
            self.outcome.finished.append(name)
            scores = ', '.join(f'{key} {row["metrics"][key]:.1f}' for key in (
                'geo_IoU', 'occ17_mIoU') if row['metrics'].get(key) is not None)
            self.say(f'{name}: finished: {scores} -> {path}')
        else:
            self.outcome.failed[name] = job.failure
            self.say(f'{name}: {job.failure["stage"]} failed with exit status '
                     f'{job.failure["status"]}; the last lines of {job.folder}/'
                     f'{job.failure["stage"]}.log:')
            for line in job.failure['log']:
                self.say(f'    {line}')
        job.unlock()

    def _tell(self, text: str) -> None:
        """A line with the whole state."""
        done = len(self.plan.finished) + len(self.outcome.finished)
        total = len(self.plan.finished) + len(self.plan.pending)
        left = time_left([*self._active.values(), *self._waiting], self.plan.finished, self.rows,
                         len(self.environments))
        self.say(f'{done} of {total} done | {text} | {words_of(left)}')
        self._spoke = time.monotonic()


def slot_environments(slots: int) -> List[Dict[str, str]]:
    """Variables of the tools in each slot: a GPU by number where there are several slots and GPUs,
    and the cores shared out; what is set already stands.

    Raises:
        ValueError: fewer than one slot, or fewer GPUs than slots.
    """
    if slots < 1:
        raise ValueError(f'{slots} slots, expected at least 1')
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    common = dict(OMP_NUM_THREADS=str(max(cores // slots, 1)), PYTHONWARNINGS='ignore')
    if not torch.cuda.is_available():
        common.update(CPU_ENVIRONMENT)
    common.update({key: os.environ[key] for key in common if key in os.environ})
    if slots == 1 or not torch.cuda.is_available():
        return [common] * slots
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = named.split(',') if named else [str(gpu) for gpu in range(torch.cuda.device_count())]
    if slots > len(gpus):
        raise ValueError(f'{slots} slots, but {len(gpus)} GPUs; expected a GPU for each slot')
    return [dict(common, CUDA_VISIBLE_DEVICES=gpu) for gpu in gpus[:slots]]


def write_summary(path: Path, plan: Plan, outcome: Outcome) -> None:
    """Write what came of a plan as JSON."""
    write_json(path, dict(
        finished=[*(run.name for run in plan.finished), *outcome.finished], failed=outcome.failed,
        busy=outcome.busy, stopped=outcome.stopped, changed=plan.changed,
        incomplete=plan.incomplete), indent=1)


def _stage_words(job: Job) -> str:
    progress = job.progress() if job.stage == 'train' else None
    if progress is None:
        return {'train': 'training', 'test': 'metrics'}.get(job.stage, job.stage)
    return f'step {progress[0]} of {progress[1]}'
