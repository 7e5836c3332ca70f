"""How long the runs that are left will take, from those that are known."""
import statistics
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from .definition import Run
from .job import Job
from .rows import read_row


def time_left(jobs: Sequence[Job], finished: Sequence[Run], rows: Path, slots: int
              ) -> Optional[float]:
    """Seconds until ``jobs`` are done; None while nothing is known of any training's pace.

    The pace of a training is what its own log says, else the mean of those of its entry, else of
    all; metrics and retrieval take as long as they did elsewhere (nothing while that is unknown).

    Args:
        jobs: those under way and those waiting.
        finished: runs that have rows.
        rows: folder of the rows.
        slots: runs at once.
    """
    paces: Dict[str, List[float]] = {}
    tests: List[float] = []
    for run in finished:
        row = read_row(rows, run.name)
        if row.get('train_seconds') and row['train_steps']:
            paces.setdefault(run.entry, []).append(row['train_seconds'] / row['train_steps'])
        tests.append(row['test_seconds'])
    for job in jobs:
        progress = job.progress()
        if progress is not None:
            paces.setdefault(job.run.entry, []).append(progress[2])
    total = 0.
    for job in jobs:
        seconds = _train_seconds(job, paces)
        if seconds is None:
            return None
        total += seconds + (statistics.fmean(tests) if tests else 0.)
    return total / slots


def words_of(seconds: Optional[float]) -> str:
    """'about 2 h 05 min left'."""
    if seconds is None:
        return 'time left not known yet'
    minutes = round(seconds / 60)
    if minutes < 1:
        return 'less than a minute left'
    hours, minutes = divmod(minutes, 60)
    return f'about {hours} h {minutes:02d} min left' if hours else f'about {minutes} min left'


def _train_seconds(job: Job, paces: Dict[str, List[float]]) -> Optional[float]:
    """Seconds of training that a job has before it; None where no pace is known."""
    if not job.run.train or not (job.anew or job.next_stage() == 'train'):
        return 0.
    progress = None if job.anew else job.progress()
    if progress is not None:
        return (progress[1] - progress[0]) * progress[2]
    known = paces.get(job.run.entry) or [pace for values in paces.values() for pace in values]
    if job.run.steps is None or not known:
        return None
    return job.run.steps * statistics.fmean(known)
