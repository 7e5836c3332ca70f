"""The result of a benchmark as tables with a legend, and as a JSON file."""
import json
import os
from pathlib import Path
from typing import Dict, List, Sequence

from .columns import legend

# What decides timings from outside: how memory is kept, how many threads there are.
_SETTINGS = ('MALLOC_', 'GLIBC_TUNABLES', 'OMP_', 'MKL_', 'LD_PRELOAD')


def columns_of(rows: Dict[str, Dict]) -> List[str]:
    """The names of numbers in rows, in their order."""
    return list(dict.fromkeys(name for row in rows.values() for name, value in row.items()
                              if isinstance(value, (int, float))))


def table(rows: Dict[str, Dict]) -> str:
    """Rows of numbers under their names."""
    columns = columns_of(rows)
    width = [max(len(name), 9) for name in columns]
    first = max(map(len, rows))
    lines = [' ' * first + ''.join(f'  {name:>{w}}' for name, w in zip(columns, width))]
    for name, row in rows.items():
        lines.append(f'{name:{first}}' + ''.join(
            f'  {row[column] if column in row else "":>{w}.4g}' if column in row else ' ' * (w + 2)
            for column, w in zip(columns, width)))
    return '\n'.join(lines)


def rows_of(result: Dict) -> Dict[str, Dict]:
    """The rows of a result, by name."""
    rows = {}
    for name, value in result.items():
        if isinstance(value, list):
            rows.update({str(row.get('name', row.get('threshold'))): row for row in value})
        elif isinstance(value, dict):
            nested = {key: row for key, row in value.items() if isinstance(row, dict)}
            if len(value) > 12 and not nested:  # too wide for a row
                nested = {key: dict(value=number) for key, number in value.items()}
            rows.update(nested or {name: value})
    return rows


def quantities(rows: Dict[str, Dict]) -> List[str]:
    """What rows tell: their columns, or their names where a row was too wide for a table."""
    return list(dict.fromkeys(name if column == 'value' else column for name, row in rows.items()
                              for column in columns_of({name: row})))


def show(command: str, tables: Sequence[Dict[str, Dict]]) -> str:
    """Tables of rows, and what they tell in words."""
    names = dict.fromkeys(name for rows in tables for name in quantities(rows))
    return '\n\n'.join([*map(table, tables), '\n'.join(legend(command, names))])


def settings() -> Dict[str, str]:
    """The environment's variables that decide timings, as they are set."""
    return {name: value for name, value in sorted(os.environ.items())
            if name.startswith(_SETTINGS)}


def write_result(path: Path, result: Dict) -> None:
    """Writes JSON so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_text(json.dumps(result, indent=1) + '\n')
    partial.replace(path)
