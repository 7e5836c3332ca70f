"""Rows that must not be averaged: of one entry and budget, and yet of different runs."""
import json
from typing import Any, Dict, List, Sequence

from .fingerprint import describe_change

Row = Dict[str, Any]


def set_apart(rows: Sequence[Row]) -> List[Row]:
    """Rows such that those of one entry and budget, which tables average, are alike.

    Alike are rows that differ in their seeds and, at the most, in the code of the config. Of others
    the most numerous kind (of equals, the first) stays; the rest get an entry of their own and a
    title that says what is different. Where configs' code differs, titles say of how many kinds it
    is.

    Args:
        rows: any rows.

    Returns:
        The rows in their order.
    """
    groups: Dict[tuple, Dict[str, List[Row]]] = {}
    for row in rows:
        kinds = groups.setdefault((row['entry'], row['budget']), {})
        kinds.setdefault(json.dumps(_nature(row), sort_keys=True), []).append(row)
    changed: Dict[int, Row] = {}
    for kinds in groups.values():
        usual = max(kinds.values(), key=len)
        for number, kind in enumerate(kinds.values(), start=1):
            marks, values = [], {}
            if kind is not usual:
                marks.append(describe_change(_nature(usual[0]), _nature(kind[0])))
                values['entry'] = f'{kind[0]["entry"]} ({number})'
            configs = {row.get('definition', {}).get('config') for row in kind}
            if len(configs) > 1:
                marks.append(f'{len(configs)} versions of the config')
            for row in kind:
                title = ', '.join([row['title'], *marks])
                changed[id(row)] = dict(row, title=title, **values)
    return [changed[id(row)] for row in rows]


def _nature(row: Row) -> Dict[str, Any]:
    """What two rows must share to be averaged."""
    definition = row.get('definition', {})
    return dict({key: definition.get(key) for key in ('options', 'environment', 'data', 'train')},
                steps=row['train_steps'])
