"""What a model costs: parameters, floating-point operations, seconds and memory of a prediction.

Operations are counted as they are dispatched (torch's ``FlopCounterMode``), so whatever module or
function they come from: convolutions and matrix products of any kind, two operations for each
multiplication with its addition. Not counted: element-wise operations, norms, interpolation,
pooling, scatter and gather (the splat of the lift, the sparse product of the renderer), sorting.
"""
import ctypes
import math
import resource
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..experiments.machine import machine_in_words
from ..experiments.table import COST_COLUMNS
from ..structures import CameraRig
from ..synthetic.rig import CAMERAS, camera_intrinsics, sensor_to_ego
from .init_model import build_dataset, init_model

_MEGABYTE = 2**20


def measure_cost(config: Union[str, Path, Config], checkpoint: Optional[str] = None,
                 device: str = 'cpu', repeats: int = 3, sample: Optional[int] = 0,
                 cfg_options: Optional[dict] = None) -> Dict[str, Any]:
    """Cost of predicting one sample, batch 1, preprocessing on the device included, loading not.

    Memory on a CPU is the process's high-water mark, so call it in a process that has done little
    else (tools/model_cost.py does).

    Args:
        config: Config file or config.
        checkpoint: Weights; with None they are random, and what is decoded only where space is
            occupied (language, text) costs what random densities make of it.
        device: 'cpu', 'cuda:0' ...
        repeats: Timed predictions, after one that warms up.
        sample: Index in ``test_dataloader``'s data set; None takes random images and nuScenes' rig
            (:func:`random_batch`) and needs no data.
        cfg_options: Dotted keys to override in the config.

    Returns:
        ``config``, ``checkpoint``, ``input``, ``device``, ``parameters``, ``trained_parameters``,
        ``flops`` and ``flops_by_operation``, ``seconds`` (median) and ``seconds_all``,
        ``peak_memory_mb`` (beyond the weights and the input), ``threads``, ``machine``, ``torch``.

    Raises:
        FileNotFoundError: no such config, checkpoint or data.
        ValueError: ``repeats`` below 1, or no such sample.
        RuntimeError: the checkpoint is not of this model.
    """
    if repeats < 1:
        raise ValueError(f'repeats is {repeats}, expected at least 1')
    model = init_model(config, checkpoint, device, cfg_options)
    batch = random_batch(model) if sample is None else _sample_batch(model.cfg, sample)

    def predict() -> None:
        with torch.no_grad():
            model.test_step(batch)

    peak = peak_memory(predict, torch.device(device))
    counter = FlopCounterMode(display=False)
    with counter:
        predict()
    seconds = seconds_of(predict, torch.device(device), repeats)
    counts = counter.get_flop_counts()['Global']
    return dict(
        config=str(model.cfg.filename or ''), checkpoint=checkpoint, device=device,
        input='random images' if sample is None else f'test sample {sample}',
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        flops=counter.get_total_flops(),
        flops_by_operation={str(name).split('.')[-1]: count for name, count in counts.items()},
        seconds=statistics.median(seconds), seconds_all=seconds, peak_memory_mb=peak,
        threads=torch.get_num_threads(), machine=machine_in_words(), torch=torch.__version__)


def random_batch(model: nn.Module) -> Dict[str, Any]:
    """A collated sample of random images, seen from nuScenes' six mounts, standing still.

    Raises:
        ValueError: the model does not say its frames and image size (``num_adj``, ``stereo``,
            ``img_view_transformer.input_size``): measure it on a sample.
    """
    try:
        frames = 1 + model.num_adj + int(model.stereo)
        height, width = model.img_view_transformer.input_size
    except AttributeError as error:
        raise ValueError(f'random input is for models with num_adj, stereo and '
                         f'img_view_transformer, not a {type(model).__name__} ({error}): give a '
                         'sample') from error
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (frames, len(CAMERAS), 3, height, width), generator=generator,
                           dtype=torch.uint8)
    cam2img = torch.eye(4).repeat(len(CAMERAS), 1, 1)
    full_height = round(width * 9 / 16)  # the images are cut from the top, as in training
    for index, name in enumerate(CAMERAS):
        cam2img[index, :3, :3] = torch.from_numpy(camera_intrinsics(name, (width, full_height)))
        cam2img[index, 1, 2] -= full_height - height
    cam2ego = torch.stack([torch.from_numpy(sensor_to_ego(name)).float() for name in CAMERAS])
    shape = (frames, len(CAMERAS), 4, 4)
    eye = torch.eye(4)
    rig = CameraRig(cam2img.expand(shape), cam2ego.expand(shape), eye.expand(shape),
                    eye.expand(shape), eye)
    return dict(inputs=dict(imgs=[images], rig=[rig], bev_aug_matrix=[eye]),
                data_samples=[Det3DDataSample(metainfo=dict(token='random'))])


def _sample_batch(cfg: Config, index: int) -> Dict[str, Any]:
    dataset = build_dataset(cfg)
    if not 0 <= index < len(dataset):
        raise ValueError(f'sample {index} of a data set of {len(dataset)}')
    return pseudo_collate([dataset[index]])


def seconds_of(function: Callable[[], None], device: torch.device, repeats: int
               ) -> List[float]:
    """Seconds of ``repeats`` calls."""
    times = []
    for _ in range(repeats):
        _synchronize(device)
        start = time.perf_counter()
        function()
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return times


def peak_memory(function: Callable[[], None], device: torch.device) -> float:
    """MB that a call takes beyond what is held now: resident memory, or a GPU's allocator's.

    On a CPU free memory is given back to the system first, and the kernel's high-water mark is
    reset where that is allowed (Linux); elsewhere an earlier peak can hide this one.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / _MEGABYTE
    _forget_freed_memory()
    before = _high_water_mark()
    function()
    return _high_water_mark() - before


def _forget_freed_memory() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
    except (AttributeError, OSError):  # no glibc, no Linux, not allowed
        return


def _high_water_mark() -> float:
    """Peak resident memory of this process, MB."""
    status = Path('/proc/self/status')
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith('VmHWM'))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def cost_table(rows: Sequence[Dict[str, Any]]) -> str:
    """Markdown table of rows of :func:`measure_cost`, with ``name`` and, where scored, ``metrics``.

    GFLOPs are as counted, two a multiplication with its addition.
    """
    columns = [
        *((title, lambda row, key=key, unit=unit: row[key] / unit, digits)
          for title, key, unit, digits in COST_COLUMNS),
        ('geometric IoU', lambda row: row.get('metrics', {}).get('geo_IoU'), 1),
        ('mIoU (17)', lambda row: row.get('metrics', {}).get('occ17_mIoU'), 1),
        ('RayIoU', lambda row: row.get('metrics', {}).get('RayIoU'), 1)]
    columns = [column for column in columns if any(_is_number(column[1](row)) for row in rows)]
    lines = ['| model | ' + ' | '.join(title for title, _, _ in columns) + ' |',
             '|---|' + '---:|' * len(columns)]
    for row in rows:
        cells = [f'{read(row):.{digits}f}' if _is_number(read(row)) else '-'
                 for _, read, digits in columns]
        lines.append(f'| {row["name"]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)
