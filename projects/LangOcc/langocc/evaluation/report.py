"""Finished runs in work directories, as rows for the tables of :mod:`langocc.experiments`."""
import json
from pathlib import Path
from typing import Any, Dict, List, Union


def read_run(folder: Union[str, Path]) -> Dict[str, Any]:
    """One row: ``metrics.json``, and ``retrieval.json`` and ``time.json`` where they are there.

    Raises:
        FileNotFoundError: the folder has no ``metrics.json``.
        ValueError: a file is not valid JSON.
    """
    folder = Path(folder)
    if not (folder / 'metrics.json').is_file():
        raise FileNotFoundError(f'{folder} has no metrics.json (tools/test.py --out writes it)')
    row = dict(run=folder.name, entry=folder.name, title=folder.name, budget=None, seed=None,
               train_steps=None, metrics=_read(folder / 'metrics.json'))
    if (folder / 'retrieval.json').is_file():
        row['retrieval'] = _read(folder / 'retrieval.json')
    if (folder / 'time.json').is_file():
        row['train_seconds'] = _read(folder / 'time.json')['train_seconds']
    return row


def read_runs(root: Union[str, Path]) -> List[Dict[str, Any]]:
    """Rows of every folder below ``root`` that has metrics, by name.

    Raises:
        FileNotFoundError: none has.
    """
    files = sorted(Path(root).glob('*/metrics.json'))
    if not files:
        raise FileNotFoundError(f'no */metrics.json below {root} (tools/test.py --out writes it)')
    return [read_run(path.parent) for path in files]


def _read(path: Path) -> Dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is not valid JSON: {error}') from error
