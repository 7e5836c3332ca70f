"""Tables of rows: one line an entry and budget, mean and deviation over its seeds."""
import statistics
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..occ3d import OCC3D_CLASSES

Row = Dict[str, Any]
Reader = Callable[[Row], Optional[float]]

# title, key of langocc.apis.model_cost.measure_cost, its unit in the title's, digits
COST_COLUMNS = (('parameters, M', 'trained_parameters', 1e6, 2), ('GFLOPs', 'flops', 1e9, 1),
                ('s a prediction', 'seconds', 1, 2), ('MB a prediction', 'peak_memory_mb', 1, 0))


def group_rows(rows: Sequence[Row]) -> List[List[Row]]:
    """Rows of the same entry and budget together, in order of appearance."""
    groups: Dict[tuple, List[Row]] = {}
    for row in rows:
        groups.setdefault((row['entry'], row['budget']), []).append(row)
    return list(groups.values())


def mean_and_deviation(rows: Sequence[Row], read: Reader, digits: int = 1) -> str:
    """'mean ± sample standard deviation' over the rows that have the value, '-' for none.

    A single value has no deviation. Where rows lack it, their number is said: '1.0 (2 of 3)'.
    """
    values = [value for value in map(read, rows) if value is not None]
    if not values:
        return '-'
    text = f'{statistics.fmean(values):.{digits}f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.{digits}f}'
    return text + (f' ({len(values)} of {len(rows)})' if len(values) < len(rows) else '')


def comparison_table(rows: Sequence[Row]) -> str:
    """The main table in Markdown.

    Columns that no row has are left out, and those of cost unless all trained entries have it.
    """
    columns = [
        ('geometric IoU', lambda row: row['metrics'].get('geo_IoU'), 1),
        ('above 0.2 m', lambda row: row['metrics'].get('geo_IoU_above'), 1),
        ('mIoU (17)', lambda row: row['metrics'].get('occ17_mIoU'), 1),
        ('RayIoU', lambda row: row['metrics'].get('RayIoU'), 1),
        ('AP at LiDAR points', _retrieval_mean('visible'), 1),
        ("teacher's AP", _retrieval_mean('teacher'), 1),
        ('chance', _retrieval_mean('chance'), 1),
        ('training, min', _scaled('train_seconds', 1 / 60), 0),
        ('memory, GB', _scaled('peak_memory_mb', 1 / 1024), 1),
        ('GPU memory, GB', _scaled('gpu_peak_memory_mb', 1 / 1024), 1)]
    columns = [column for column in columns if any(column[1](row) is not None for row in rows)]
    trained = [group for group in group_rows(rows) if group[0]['train_steps'] is not None]
    if trained and all(any('cost' in row for row in group) for group in trained):
        columns += [(title, _cost(key, unit), digits) for title, key, unit, digits in COST_COLUMNS]
    counted = any(row['train_steps'] is not None or row['seed'] is not None for row in rows)
    titles = [*(['steps', 'seeds'] if counted else []), *(title for title, _, _ in columns)]
    lines = [_line('run', *titles), '|---|' + '---:|' * len(titles)]
    for group in group_rows(rows):
        steps = group[0]['train_steps']
        counts = ['-' if steps is None else steps,
                  '-' if group[0]['seed'] is None else len(group)] if counted else []
        lines.append(_line(group[0]['title'], *counts, *(
            mean_and_deviation(group, read, digits) for _, read, digits in columns)))
    return '\n'.join(lines)


def class_table(rows: Sequence[Row]) -> str:
    """IoU of every class, a column for each entry and budget; Markdown."""
    names = [name for name in OCC3D_CLASSES if any(
        row['metrics'].get(f'IoU_{name}') is not None for row in rows)]
    return _by_line('class', names, rows, lambda name: (
        lambda row: row['metrics'].get(f'IoU_{name}')))


def query_table(rows: Sequence[Row]) -> str:
    """Average precision at visible LiDAR points, a line for each query word; Markdown.

    A word that several frames ask is averaged over them first. Rows without retrieval are left out;
    the last columns, teacher and chance, are those of the first row.
    """
    rows = [row for row in rows if 'retrieval' in row]
    words = list(dict.fromkeys(
        query['query'] for row in rows for query in row['retrieval']['queries']))
    extra = {name: [_word_mean(word, name)(rows[0]) for word in words]
             for name in ('teacher', 'chance')} if rows else {}
    return _by_line('query', words, rows, lambda word: _word_mean(word, 'visible'), extra)


def _by_line(corner: str, names: Sequence[str], rows: Sequence[Row],
             reader: Callable[[str], Reader],
             extra: Optional[Dict[str, List[Optional[float]]]] = None) -> str:
    groups, extra = group_rows(rows), extra or {}
    titles = [group[0]['title'] + (f', {group[0]["budget"]}' if group[0]['budget'] else '')
              for group in groups]
    lines = [_line(corner, *titles, *extra), '|---|' + '---:|' * (len(groups) + len(extra))]
    for index, name in enumerate(names):
        more = [values[index] for values in extra.values()]
        lines.append(_line(
            name, *(mean_and_deviation(group, reader(name)) for group in groups),
            *('-' if value is None else f'{value:.1f}' for value in more)))
    return '\n'.join(lines)


def _word_mean(word: str, key: str) -> Reader:
    def read(row: Row) -> Optional[float]:
        values = [query[key] for query in row['retrieval']['queries']
                  if query['query'] == word and query.get(key) is not None]
        return statistics.fmean(values) if values else None
    return read


def _retrieval_mean(key: str) -> Reader:
    return lambda row: row.get('retrieval', {}).get('means', {}).get('all', {}).get(key)


def _scaled(key: str, factor: float) -> Reader:
    return lambda row: None if row.get(key) is None else row[key] * factor


def _cost(key: str, unit: float) -> Reader:
    return lambda row: row['cost'][key] / unit if 'cost' in row else None


def _line(*cells: Any) -> str:
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'
