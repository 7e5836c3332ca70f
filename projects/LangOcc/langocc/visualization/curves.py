"""Training curves from what mmengine logs (``<work_dir>/<time>/vis_data/scalars.json``).

Legend: T logged values of one curve.
"""
import json
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# key -> (steps (T,), values (T,))
Curves = Dict[str, Tuple[np.ndarray, np.ndarray]]
# A loss whose highest value is so many times its lowest is a flat line on a linear axis.
_WIDE = 20.
_NO_CURVES = ('step', 'iter', 'epoch', 'time', 'data_time', 'memory')


def read_scalars(work_dir: Union[str, Path]) -> Curves:
    """Reads all runs in a work directory; a resumed run replaces the steps it repeats.

    Args:
        work_dir: an mmengine work directory, or one ``scalars.json``.

    Returns:
        Curves by key, sorted by step: the iteration for training values, the epoch (or iteration,
        as the runner logs it) for validation.

    Raises:
        FileNotFoundError: nothing was logged there.
        ValueError: a line is no JSON object, named by file and number.
    """
    work_dir = Path(work_dir)
    files = [work_dir] if work_dir.is_file() else sorted(
        work_dir.glob('*/vis_data/scalars.json')) + sorted(work_dir.glob('vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'no vis_data/scalars.json under {work_dir}: expected the work '
                                'directory of a training')
    series: Dict[str, Dict[float, float]] = {}
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            for key, step, value in _parse(line, f'{file}:{number}'):
                series.setdefault(key, {})[step] = value
    curves = {}
    for key, values in series.items():
        steps = sorted(values)
        curves[key] = np.array(steps, dtype=float), np.array([values[s] for s in steps])
    return curves


def draw_curves(runs: Mapping[str, Curves],
                keys: Optional[Sequence[str]] = None,
                smooth: int = 1,
                dpi: int = 110) -> np.ndarray:
    """One panel a key, one line a run; the axis of a loss that falls by far is logarithmic.

    Args:
        runs: curves by the run's name, as :func:`read_scalars` returns them.
        keys: what to draw, in order; default every loss, then mIoU and geometric IoU.
        smooth: logged values in a trailing mean; the raw values stay as a faint line.
        dpi: dots an inch; a panel is 4.2 x 3 inches.

    Returns:
        (H, W, 3) uint8.

    Raises:
        KeyError: no run has one of ``keys``, or there is nothing to draw.
    """
    known = sorted({key for curves in runs.values() for key in curves})
    keys = _default_keys(known) if keys is None else list(keys)
    missing = [key for key in keys if key not in known]
    if missing or not keys:
        raise KeyError(f'no run logged {missing or "a loss or metric"}, logged are {known}')
    columns = min(len(keys), 3)
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(4.2 * columns, 3. * rows), dpi=dpi, layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, key in zip(panels, keys):
        for number, (name, curves) in enumerate(runs.items()):
            if key in curves:
                _draw_line(panel, *curves[key], name, f'C{number}', smooth)
        shown = np.concatenate([curves[key][1] for curves in runs.values() if key in curves])
        if 'loss' in key and (shown > 0).all() and shown.max() > _WIDE * shown.min():
            panel.set_yscale('log')
        panel.set_title(key, fontsize=10)
        panel.set_xlabel('iteration' if 'loss' in key or key in ('lr', 'grad_norm') else
                         'epoch or iteration of validation', fontsize=8)
        panel.tick_params(which='both', labelsize=8)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    for panel in panels[len(keys):]:
        panel.axis('off')
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_line(panel, steps: np.ndarray, values: np.ndarray, name: str, color: str,
               smooth: int) -> None:
    marker = 'o' if len(steps) < 15 else None
    if smooth > 1:
        panel.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        values = trailing_mean(values, smooth)
    panel.plot(steps, values, color=color, label=name, linewidth=1.4, marker=marker, markersize=3)


def trailing_mean(values: np.ndarray, length: int) -> np.ndarray:
    """(T,) mean of the last ``length`` values up to each one (fewer at the start)."""
    sums = np.concatenate([[0.], np.cumsum(values)])
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(stops - length, 0)
    return (sums[stops] - sums[starts]) / (stops - starts)


def _parse(line: str, place: str) -> List[Tuple[str, float, float]]:
    """(key, step, value) of every number on one logged line."""
    if not line.strip():
        return []
    try:
        logged = json.loads(line)
        step = float(logged['step'])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{place}: expected a JSON object with 'step', got {line[:80]!r}"
                         ) from error
    numbers = {k: v for k, v in logged.items() if k not in _NO_CURVES}
    return [(k, step, float(v)) for k, v in numbers.items() if isinstance(v, (int, float))]


def _default_keys(known: Sequence[str]) -> List[str]:
    """Losses (their sum first), then the summary metrics."""
    losses = sorted((k for k in known if 'loss' in k), key=lambda k: (k != 'loss', k))
    metrics = [k for k in known if 'mIoU' in k or 'geo_IoU' in k]
    return losses + metrics
