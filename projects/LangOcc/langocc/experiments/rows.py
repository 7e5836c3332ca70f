"""One JSON row a finished run: small enough to be committed, whole enough to make every table."""
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from ..files import write_json
from .definition import Run
from .fingerprint import fingerprint
from .job import Job
from .machine import machine_in_words, torch_version
from .unlike import set_apart

_QUERY_KEYS = ('query', 'split', 'positives', 'chance', 'all', 'visible', 'teacher')
_PARTS = ('retrieval', 'cost')  # what a run may ask for beside its scores
_COST_KEYS = ('trained_parameters', 'flops', 'seconds', 'peak_memory_mb', 'device', 'input')


def make_row(job: Job) -> Dict[str, Any]:
    """The row of a finished job.

    Times are wall-clock seconds over all attempts of a stage, with what was lost when one was cut
    off; ``attempts`` says how many the training took. Peak memory: the largest resident size of a
    process of the training, and on a GPU the allocator's peak, MB. Options and environment are in
    ``definition``; ``trained_as``: that of the training, where it was scored with another. ``cost``
    is that of one prediction, see :mod:`langocc.apis.model_cost`. Machine, threads (on a CPU
    rounding depends on them) and torch are those of the last training, or test.

    Args:
        job: all its stages are finished.
    """
    run, trainings = job.run, job.attempts('train')
    row = dict(
        run=run.name, entry=run.entry, title=run.title, config=run.config, seed=run.seed,
        budget=run.budget, train_steps=_steps(job), fingerprint=fingerprint(job.definition),
        definition=job.definition, metrics=scores_of(job),
        **{part: _part(job, part) for part in _PARTS if getattr(run, part)})
    if run.train:
        row.update(attempts=len(trainings), train_seconds=_sum(trainings, 'seconds'),
                   train_cpu_seconds=_sum(trainings, 'cpu_seconds'),
                   peak_memory_mb=max(item.get('peak_mb', 0) for item in trainings))
        allocated = gpu_peak(job.folder / 'train')
        if allocated is not None:
            row['gpu_peak_memory_mb'] = allocated
        if 'trained_as' in job.state:
            row['trained_as'] = job.state['trained_as']
    made = trainings or job.attempts('test')
    now = dict(machine=machine_in_words(), threads=None, torch=torch_version())
    row.update(test_seconds=_sum(job.attempts('test')[-1:], 'seconds'),
               commit=', '.join(dict.fromkeys(item['commit'] for item in made)),
               date=date.today().isoformat(),
               **{key: made[-1].get(key, value) for key, value in now.items()})
    return row


def completed_row(row: Dict[str, Any], job: Job) -> Dict[str, Any]:
    """``row`` with what its run asks for and it had not, of a finished job of the same training."""
    return {**row, **{part: _part(job, part) for part in missing_parts(row, job.run)}}


def scores_of(job: Job) -> Optional[Dict[str, Any]]:
    """The scores in a job's folder, as a row has them; None where there are none."""
    path = job.folder / 'metrics.json'
    return _rounded(_read(path)) if path.is_file() else None


def _part(job: Job, part: str) -> Dict[str, Any]:
    """``retrieval`` or ``cost`` of a finished job, as a row has it."""
    result = _read(job.folder / f'{part}.json')
    if part == 'cost':
        return _rounded({key: result[key] for key in _COST_KEYS})
    queries = [{key: query[key] for key in _QUERY_KEYS if key in query}
               for query in result['queries']]
    return _rounded(dict(means=result['means'], queries=queries))


def row_path(folder: Union[str, Path], run: str) -> Path:
    """Where the row of a run is."""
    return Path(folder) / f'{run}.json'


def write_row(folder: Union[str, Path], row: Dict[str, Any]) -> Path:
    """Write a row to its place."""
    path = row_path(folder, row['run'])
    write_json(path, row, indent=1)
    return path


def read_row(folder: Union[str, Path], run: str) -> Optional[Dict[str, Any]]:
    """The row of a run, None where there is none.

    Raises:
        ValueError: the file is not such a row.
    """
    path = row_path(folder, run)
    return _read(path, run) if path.is_file() else None


def read_rows(folder: Union[str, Path], runs: Optional[List[Run]] = None) -> List[Dict[str, Any]]:
    """Rows of a folder: those of ``runs`` that are there, in their order, titled as the runs say
    now; without ``runs`` all, by entry, steps and seed. Rows that tables must not average are told
    apart (:func:`set_apart`).

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is not a row.
    """
    folder = Path(folder)
    if runs is None:
        rows = [_read(path, path.stem) for path in sorted(folder.glob('*.json'))]
        rows.sort(key=lambda row: (row['entry'], row['train_steps'] or 0, row['seed'] or 0))
    else:
        found = [(run, read_row(folder, run.name)) for run in runs]
        rows = [dict(row, title=run.title) for run, row in found if row is not None]
    if not rows:
        raise FileNotFoundError(f'no rows in {folder} (tools/compare.py writes them)')
    return set_apart(rows)


def missing_parts(row: Dict[str, Any], run: Run) -> List[str]:
    """What ``run`` asks for beside scores and ``row`` has not: 'retrieval', 'cost'."""
    return [part for part in _PARTS if getattr(run, part) and part not in row]


def as_in_row(run: Run, row: Dict[str, Any]) -> Run:
    """``run`` with the options, environment and steps that its row was made with."""
    old = row['definition']
    return replace(run, **{key: old[key] for key in ('options', 'environment', 'steps')})


def gpu_peak(work_dir: Path) -> Optional[int]:
    """Peak of the GPU allocator in a training's mmengine logs, MB; None on a CPU."""
    values = [json.loads(line).get('memory') for file in work_dir.glob('*/vis_data/scalars.json')
              for line in file.read_text(encoding='utf-8').splitlines()]
    return max((round(value) for value in values if value is not None), default=None)


def _steps(job: Job) -> Optional[int]:
    if not job.run.train or job.run.steps is not None:
        return job.run.steps
    progress = job.progress()
    return None if progress is None else progress[1]


def _read(path: Path, run: Optional[str] = None) -> Dict[str, Any]:
    """A JSON mapping; with ``run`` its row."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is not valid JSON: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected a JSON mapping, got {type(content).__name__}')
    needed = ('run', 'entry', 'title', 'fingerprint', 'metrics', 'seed', 'budget', 'train_steps')
    missing = [key for key in needed if key not in content]
    if run is not None and (missing or content['run'] != run):
        raise ValueError(f'{path} is not the row of run {run!r}: ' + (
            f'keys {missing} are missing' if missing else f"its 'run' is {content['run']!r}"))
    return content


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _sum(attempts: List[Dict[str, Any]], key: str) -> float:
    return round(sum(item.get(key, 0.) for item in attempts), 1)
