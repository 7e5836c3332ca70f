"""Pictures of samples during validation and test."""
import os.path as osp
from typing import Optional, Sequence

import torch
from mmdet3d.registry import HOOKS
from mmdet3d.structures import Det3DDataSample
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..visualization.rendered_views import has_field, render_camera_views
from ..visualization.visualizer import OccVisualizer


@HOOKS.register_module()
class OccVisualizationHook(Hook):
    """Draws every ``interval``-th sample of validation and test, the first one included.

    Needs ``visualizer = dict(type='OccVisualizer', ...)``, which says what is drawn. It is switched
    on in a config, in mmdet3d's slot:

    >>> default_hooks = dict(visualization=dict(type='OccVisualizationHook', draw=True))

    or by ``--cfg-options default_hooks.visualization.draw=True``. Backends get the pictures as
    ``val_<index>_<view>`` and ``test_<index>_<view>``, index counting the process's samples, step
    being the training iteration, so that TensorBoard shows a sample's course over a training.

    Data samples keep predictions only: for each sample that is drawn the network runs once more, on
    that sample alone; its field is rendered into the cameras and dropped. A drawn sample costs a
    prediction, the rendering of N * ``map_width`` * h rays (the tiny model: about 10 s on two
    cores) and about 2 s of drawing; the others cost nothing. With several processes the first one
    draws, of its own samples.

    Args:
        draw: whether to draw at all.
        interval: every how many samples.
        num_samples: at most so many of a validation or test run; None for no limit.
        out_dir: folder for ``<val|test>_<index>/<view>.png`` instead of the backends; relative to
            ``<work_dir>/<timestamp>``. Validation adds ``_<iteration>`` to the name.
        draw_gt: labels.
        draw_pred: predictions.

    Raises:
        ValueError: ``interval`` or ``num_samples`` is not positive.
        TypeError: the runner's visualizer is no OccVisualizer (at the start of the run).
    """

    def __init__(self, draw: bool = False, interval: int = 50, num_samples: Optional[int] = 2,
                 out_dir: Optional[str] = None, draw_gt: bool = True, draw_pred: bool = True):
        if interval < 1 or (num_samples is not None and num_samples < 1):
            raise ValueError('OccVisualizationHook: interval and num_samples must be at least 1, '
                             f'got {interval} and {num_samples}')
        self.draw = draw
        self.interval, self.num_samples = interval, num_samples
        self.out_dir = out_dir
        self.draw_gt, self.draw_pred = draw_gt, draw_pred
        self._seen = 0

    def before_run(self, runner: Runner) -> None:
        """Refuses a visualizer that cannot draw samples before hours are spent."""
        if self.draw and not isinstance(runner.visualizer, OccVisualizer):
            raise TypeError("OccVisualizationHook needs visualizer = dict(type='OccVisualizer', "
                            f'...), the config has {type(runner.visualizer).__name__}')

    def before_val_epoch(self, runner: Runner) -> None:
        """Samples are counted from the start of each validation."""
        self._seen = 0

    before_test_epoch = before_val_epoch

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                       outputs: Optional[Sequence[Det3DDataSample]] = None) -> None:
        """Draws those of the batch whose turn it is."""
        self._draw_batch(runner, data_batch, outputs, 'val')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                        outputs: Optional[Sequence[Det3DDataSample]] = None) -> None:
        """As :meth:`after_val_iter`."""
        self._draw_batch(runner, data_batch, outputs, 'test')

    def _draw_batch(self, runner: Runner, data_batch: Optional[dict],
                    outputs: Optional[Sequence[Det3DDataSample]], mode: str) -> None:
        if not self.draw or not is_main_process():
            return
        for item, data_sample in enumerate(outputs):
            index, self._seen = self._seen, self._seen + 1
            drawn, turn = divmod(index, self.interval)
            if turn == 0 and (self.num_samples is None or drawn < self.num_samples):
                self._draw_sample(runner, data_batch, item, data_sample, f'{mode}_{index:05d}')

    def _draw_sample(self, runner: Runner, data_batch: dict, item: int,
                     data_sample: Det3DDataSample, name: str) -> None:
        out_dir = self.out_dir
        if out_dir is not None:
            out_dir = osp.join(runner.work_dir, runner.timestamp, out_dir)
            name = f'{name}_{runner.iter}' if name.startswith('val') else name
        visualizer, rendered = runner.visualizer, None
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if self.draw_pred and visualizer.needs_maps and has_field(model):
            rendered = render_batch_item(model, data_batch, item, visualizer.map_width)
        visualizer.add_datasample(name, data_sample=data_sample, draw_gt=self.draw_gt,
                                  draw_pred=self.draw_pred, step=runner.iter, rendered=rendered,
                                  out_dir=out_dir)


@torch.no_grad()
def render_batch_item(model: torch.nn.Module, data_batch: dict, item: int, width: int) -> dict:
    """Runs the network on one item of a collated batch and renders its field into the cameras.

    Args:
        model: detector for which :func:`has_field` holds; in eval mode.
        data_batch: of the data loader: ``inputs`` (name -> list) and ``data_samples``.
        item: place in the batch.
        width: columns of a map.

    Returns:
        Camera -> maps.
    """
    single = dict(inputs={key: values[item:item + 1] for key, values in
                          data_batch['inputs'].items()},
                  data_samples=data_batch['data_samples'][item:item + 1])
    batch = model.data_preprocessor(single, False)
    info = single['data_samples'][0].metainfo
    field = model.extract_field(batch['inputs'])
    return render_camera_views(model.occ_head, field, info, width,
                               bev_aug_matrix=batch['inputs']['bev_aug_matrix'][0].cpu())
