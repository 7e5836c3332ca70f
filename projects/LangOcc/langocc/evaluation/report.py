"""Tables of finished runs: JSON files of several work directories side by side."""
import json
from pathlib import Path
from typing import Dict, List, Sequence, Union

COLUMNS = (('geo_IoU', 'geometric IoU'), ('occ17_mIoU', 'mIoU (17)'), ('AP', 'AP at LiDAR points'),
           ('teacher_AP', "teacher's AP"), ('chance_AP', 'chance'), ('minutes', 'training, min'))


def read_run(folder: Union[str, Path]) -> Dict[str, float]:
    """One row: scores of ``metrics.json``, means of ``retrieval.json``, minutes of ``time.json``.

    Raises:
        FileNotFoundError: the folder has no ``metrics.json``.
        ValueError: a file is not valid JSON.
    """
    folder = Path(folder)
    metrics = _read(folder / 'metrics.json')
    if metrics is None:
        raise FileNotFoundError(f'{folder} has no metrics.json (tools/test.py --out writes it)')
    row = dict(run=folder.name, **{key: metrics.get(key) for key in ('geo_IoU', 'occ17_mIoU')})
    retrieval = _read(folder / 'retrieval.json')
    if retrieval is not None:
        means = retrieval['means']['all']
        row.update(AP=means['visible'], teacher_AP=means['teacher'], chance_AP=means['chance'])
    time = _read(folder / 'time.json')
    if time is not None:
        row['minutes'] = time['train_seconds'] / 60
    return row


def read_runs(root: Union[str, Path]) -> List[Dict[str, float]]:
    """Rows of every folder below ``root`` that has metrics, by name.

    Raises:
        FileNotFoundError: none has.
    """
    files = sorted(Path(root).glob('*/metrics.json'))
    if not files:
        raise FileNotFoundError(f'no */metrics.json below {root} (tools/test.py --out writes it)')
    return [read_run(path.parent) for path in files]


def rows_of_runs(root: Union[str, Path]) -> List[dict]:
    """The same folders whole, as the tables of :mod:`langocc.experiments` read rows."""
    rows = []
    for path in sorted(Path(root).glob('*/metrics.json')):
        row = dict(entry=path.parent.name, title=path.parent.name, budget=None, seed=None,
                   train_steps=None, metrics=_read(path))
        retrieval = _read(path.parent / 'retrieval.json')
        rows.append(row if retrieval is None else dict(row, retrieval=retrieval))
    return rows


def markdown_table(rows: Sequence[Dict[str, float]]) -> str:
    """The rows as a Markdown table; '-' where a run has no such value."""
    lines = ['| run | ' + ' | '.join(title for _, title in COLUMNS) + ' |',
             '|---|' + '---:|' * len(COLUMNS)]
    for row in rows:
        values = [row.get(key) for key, _ in COLUMNS]
        cells = ['-' if value is None else f'{value:.1f}' for value in values]
        lines.append(f'| {row["run"]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _read(path: Path):
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is not valid JSON: {error}') from error
