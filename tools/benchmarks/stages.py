"""Where the time of a prediction and of a training step goes, stage by stage.

A stage's time is without that of the stages inside it.
"""
import time
from contextlib import ExitStack, contextmanager
from typing import Callable, Dict, Iterator, List, Optional, Tuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .measure import synchronize
from .whole_case import WholeCase


class StageClock:
    """Seconds of named stages, each without the stages inside it.

    Args:
        device: whose work is waited for.
        reading: what is counted in place of seconds, for instance floating-point operations.
    """

    def __init__(self, device: torch.device = 'cpu', reading: Optional[Callable] = None):
        self.seconds: Dict[str, float] = {}
        self._device = device
        self._reading = reading or time.perf_counter
        self._open: List[float] = []  # what stages inside each open one took

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what is done inside as the stage ``name``."""
        synchronize(self._device)
        start = self._reading()
        self._open.append(0.)
        try:
            yield
        finally:
            synchronize(self._device)
            taken = self._reading() - start
            own = taken - self._open.pop()
            self.seconds[name] = self.seconds.get(name, 0.) + own
            if self._open:
                self._open[-1] += taken

    def wrap(self, name: str, function: Callable) -> Callable:
        """The function, counted as the stage ``name``."""
        def wrapped(*args, **kwargs):
            with self.stage(name):
                return function(*args, **kwargs)
        return wrapped


def parts_of(model: nn.Module) -> List[Tuple[object, str, str]]:
    """(owner, attribute, stage) of the parts of a LangOcc."""
    transformer, head = model.img_view_transformer, model.occ_head
    parts = [(model.img_backbone, 'forward', 'backbone'), (model.img_neck, 'forward', 'backbone'),
             (model, '_reference', 'backbone'), (transformer, '_cost_volume', 'cost volume'),
             (transformer, 'reduce', 'depth net'), (transformer, 'match', 'depth net'),
             (transformer, 'lift', 'depth net'), (transformer, 'splat', 'splat'),
             (model.img_bev_encoder_backbone, 'forward', '3D encoder'),
             (model.img_bev_encoder_neck, 'forward', '3D neck'),
             (head.final_conv.conv, 'forward', 'final conv'), (head, 'predict_by_field', 'density'),
             (head, 'classify', 'language'), (head, 'render', 'rendering'),
             (head, 'loss_by_field', 'loss')]
    if model.pre_process_net is not None:
        parts.append((model.pre_process_net, 'forward', 'pre-process'))
    return parts


@contextmanager
def watch(model: nn.Module, clock: Optional[StageClock]) -> Iterator[None]:
    """Counts the parts of a model as stages of the clock while the context is open."""
    with ExitStack() as stack:
        for owner, attribute, stage in parts_of(model) if clock else []:
            wrapped = clock.wrap(stage, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, wrapped))
        yield


def floors(case: WholeCase, side: Callable) -> Dict[str, float]:
    """Seconds that each stage's main operation takes alone, at the fastest it was seen.

    Convolutions and linear layers: their multiplications at the rate of a large float32 matrix
    product. Cost volume: reading the features' rows. Splat: the pooling with its geometry known.
    """
    device = case.samples[0]['imgs'].device
    with FlopCounterMode(display=False) as counter:
        clock = StageClock(device, counter.get_total_flops)
        side(case.samples[-1], clock)
    rate = matmul_rate(device)
    found = {name: flops / rate for name, flops in clock.seconds.items() if flops}
    return dict(found, **{'cost volume': row_reading_seconds(case),
                          'splat': pooling_seconds(case)})


def fastest(function: Callable, device: torch.device, repeats: int = 5) -> float:
    """Seconds of the fastest of some calls."""
    best = float('inf')
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def matmul_rate(device: torch.device, size: int = 2048) -> float:
    """Floating-point operations a second of a large float32 matrix product."""
    matrix = torch.randn(size, size, device=device)
    return 2 * size**3 / fastest(lambda: matrix @ matrix, device)


def row_reading_seconds(case: WholeCase) -> float:
    """Reading four rows for every pixel, depth, camera and lifted frame of a sample."""
    model, inputs = case.model, case.samples[0]
    with torch.no_grad():
        feats = model._reference(inputs['imgs'], inputs['rig'], None).stride4[0]
    cameras, channels, height, width = feats.shape
    table = feats[0].flatten(1).t().contiguous()
    depths, block = model.img_view_transformer.num_depths, 32
    first = torch.arange(block, device=table.device).repeat_interleave(depths)
    rows = (first[:, None] + torch.tensor([0, 1, width, width + 1], device=table.device)).int()
    shares = torch.full(rows.shape, 0.25, device=table.device)
    blocks = cameras * (1 + model.num_adj) * height * width / block

    def read():
        for _ in range(50):
            F.embedding_bag(rows % len(table), table, mode='sum', per_sample_weights=shares)
    return fastest(read, table.device) / 50 * blocks


def pooling_seconds(case: WholeCase) -> float:
    """Pooling of all lifted frames with the geometry known."""
    from voxelrender import LiftGeometry, lift_splat
    model, inputs = case.model, case.samples[0]
    net, rig = model.img_view_transformer, inputs['rig'].frame(0)
    points = net.points(rig, inputs['bev_aug_matrix'])
    shape = points.shape[:-1]
    depth = torch.rand(shape, device=points.device)
    context = torch.rand(*shape[:2], net.out_channels, *shape[3:], device=points.device)
    geometry = LiftGeometry.from_points(points, net.grid)
    geometry.pixel_ids
    return (1 + model.num_adj) * fastest(lambda: lift_splat(depth, context, geometry),
                                         points.device)
