"""A whole prediction: the published layout against ours, alone, streamed and in bfloat16.

Legend: V voxels, K prompts.
"""
import copy
import ctypes
import gc
import sys
import time
from contextlib import nullcontext, suppress
from typing import Callable, Dict, Optional, Tuple

import torch
from torch import Tensor, nn

from .head import FREE
from .measure import median, peak_in_child, synchronize
from .progress import say
from .stages import StageClock, floors, watch
from .whole_case import ROOT, WholeCase, reduced_precision

Side = Callable[[dict, Optional[StageClock]], Tuple[Tensor, Tensor]]
WARM_UP = 2  # samples that fill the streams, not timed


def reference():
    """tests/reference/published_prediction.py."""
    folder = str(ROOT / 'tests' / 'reference')
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import published_prediction
    return published_prediction


def published_side(model: nn.Module) -> Side:
    """Densities and classes (Z, Y, X) in the published layout."""
    module = reference()

    def predict(inputs, clock=None):
        stage = (lambda name: nullcontext()) if clock is None else clock.stage
        result = module.published_prediction(model, inputs, stage)
        return result['densities'][0], result['classes'][0]
    return predict


def expected_of(model: nn.Module, inputs: dict) -> Dict[str, Tensor]:
    """The published computation with its largest roundings taken out; see the reference."""
    result = reference().published_prediction(model, inputs, dtype=torch.float64)
    return {name: result[name][0].cpu() for name in ('densities', 'scores', 'classes')}


def our_side(model: nn.Module, dtype: torch.dtype = torch.float32, streamed: bool = False) -> Side:
    """Densities and classes (Z, Y, X) by LangOcc; streamed ones remember the calls before."""
    from langocc.models import StreamState
    state = StreamState() if streamed else None

    @torch.no_grad()
    def predict(inputs, clock=None):
        device = inputs['imgs'].device.type
        with torch.autocast(device, dtype, enabled=dtype != torch.float32), watch(model, clock):
            field = model.extract_field(inputs, stream=state)
            occupancy, = model.occ_head.predict_by_field(field)
        return field.densities[0], occupancy.semantics.permute(2, 1, 0)
    return predict


def make_sides(case: WholeCase, device: str) -> Dict[str, Side]:
    """Name -> side."""
    from langocc.models import optimize_for_inference
    fast = optimize_for_inference(copy.deepcopy(case.model))
    sides = dict(published=published_side(case.model), ours=our_side(fast),
                 streaming=our_side(fast, streamed=True))
    if reduced_precision(device):
        sides.update(bf16=our_side(fast, torch.bfloat16),
                     bf16_streaming=our_side(fast, torch.bfloat16, True))
    return sides


def compare(density: Tensor, classes: Tensor, expected: Dict[str, Tensor], threshold: float
            ) -> Dict[str, float]:
    """How far a prediction is from the expected one.

    Returns:
        max_error: of densities (1/m). agreement: share of the voxels that either calls occupied in
        which both say the same class. different_where_clear: voxels of other classes though the
        best prompt leads by a cosine of 1e-4 and the density is 1e-4 from the threshold.
    """
    best = expected['scores'].topk(2, dim=-1).values
    clear = (best[:, 0] - best[:, 1] > 1e-4).view_as(classes) | (expected['classes'] == FREE)
    clear &= (expected['densities'] - threshold).abs() > 1e-4
    either = (classes != FREE) | (expected['classes'] != FREE)
    same = classes == expected['classes']
    return dict(max_error=(density - expected['densities']).abs().max().item(),
                agreement=(same & either).sum().item() / max(either.sum().item(), 1),
                different_where_clear=(~same & clear).sum().item())


def run_sides(case: WholeCase, sides: Dict[str, Side], repeats: int):
    """Seconds of every side on every sample after the warm-up, in turns; the worst differences."""
    threshold, device = case.model.occ_head.density_threshold, case.samples[0]['imgs'].device
    times, worst = {name: [] for name in sides}, {name: {} for name in sides}
    for index, inputs in enumerate(case.samples[:WARM_UP + repeats]):
        found, which = {}, f'sample {index + 1} of {WARM_UP + repeats}'
        for name, side in sides.items():
            say(f'{name}: {which}' + (', warm-up' if index < WARM_UP else ''))
            synchronize(device)
            start = time.perf_counter()
            density, classes = side(inputs)
            synchronize(device)
            times[name].append(time.perf_counter() - start)
            found[name] = density.cpu(), classes.cpu()
        if index < WARM_UP:
            continue
        say(f'what is expected (float64): {which}')
        expected = expected_of(case.model, inputs)
        for name, prediction in found.items():
            for key, value in compare(*prediction, expected, threshold).items():
                pick = min if key == 'agreement' else max
                worst[name][key] = pick(worst[name].get(key, value), value)
    return {name: values[WARM_UP:] for name, values in times.items()}, worst


def predict_row(times: Dict, worst: Dict) -> Dict[str, float]:
    """The row of the result."""
    seconds = {name: median(values) for name, values in times.items()}
    row = {f'{name}_s': value for name, value in seconds.items()}
    for name in seconds:
        prefix = '' if name == 'ours' else f'{name}_'
        if name != 'published':
            row[f'{prefix}speedup'] = seconds['published'] / seconds[name]
        row.update({f'{prefix}{key}': value for key, value in worst[name].items()})
    return row


def stage_table(case: WholeCase, sides: Dict[str, Side], repeats: int) -> Dict[str, Dict]:
    """Stage -> seconds of each side (the fastest of some runs), and the floor."""
    clocks = {name: [StageClock(case.samples[0]['imgs'].device) for _ in range(repeats)]
              for name in sides}
    for turn in range(repeats):  # the last samples, so that streams follow the ones before
        inputs = case.samples[WARM_UP + repeats + turn]
        for name, side in sides.items():
            say(f'{name}: stages, run {turn + 1} of {repeats}')
            with clocks[name][turn].stage('rest'):
                side(inputs, clocks[name][turn])
    names = list(dict.fromkeys(name for runs in clocks.values() for clock in runs
                               for name in clock.seconds))
    table = {name: {f'{side}_s': min(clock.seconds.get(name, 0.) for clock in runs)
                    for side, runs in clocks.items()} for name in names}
    say('floors of the stages')
    for name, floor in floors(case, sides['ours']).items():
        table.setdefault(name, {})['floor_s'] = floor
    return table


def benchmark_predict(arguments) -> Dict:
    """Both sides on the same samples and weights; then once more with stages timed."""
    peaks = {name: peak_in_child(arguments, name) for name in ('published', 'ours')}
    say('making the model and its samples')
    case = WholeCase(arguments.preset, WARM_UP + 2 * arguments.repeats, arguments.device,
                     arguments.rays)
    sides = make_sides(case, arguments.device)
    row = predict_row(*run_sides(case, sides, arguments.repeats))
    row.update({f'{name}_peak_mb': peak for name, peak in peaks.items()})
    return dict(predict=row, stages=stage_table(case, sides, arguments.repeats))


def peak_side(arguments) -> Callable[[], object]:
    """One prediction of the side ``arguments.peak_of``, for a child that measures memory."""
    case = WholeCase(arguments.preset, 1, arguments.device, arguments.rays)
    side = make_sides(case, arguments.device)[arguments.peak_of]
    gc.collect()
    with suppress(OSError, AttributeError):  # what making the case has freed: glibc keeps it
        ctypes.CDLL('libc.so.6').malloc_trim(0)
    return lambda: side(case.samples[0])
