"""What data, head and metrics must agree on, looked at before the first sample."""
from typing import Any, Iterator, Sequence

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop
from torch import nn

from ..datasets.transforms import LoadOccGTFromFile, PrepareRays
from ..evaluation import OccMetric, RayIoUMetric
from ..models.losses import RenderedClassLoss, RenderedSemanticLoss
from ..structures import check_one_place
from ..teachers.class_names import check_numbering


@HOOKS.register_module()
class SetupCheckHook(Hook):
    """Stops a run whose parts do not fit each other, before weights are loaded or a step is made.

    :func:`~langocc.engine.build_runner` adds it to every run; see :func:`check_setup`.
    """

    def before_run(self, runner) -> None:
        """Look at every loop that was built for this run."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # The properties without an underscore would build what this run does not need.
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                evaluator = getattr(loop, 'evaluator', None)
                check_setup(model, loop.dataloader.dataset, getattr(evaluator, 'metrics', ()))


def check_setup(model: nn.Module, dataset: Any, metrics: Sequence[Any] = ()) -> None:
    """Whether a model with an ``occ_head``, a data set and metrics have one grid and one numbering.

    Parts that do not tell are not checked: another kind of head, labels of an unknown place.

    Raises:
        ValueError: labels or a metric lie in another place than the head's grid, or the classes of
            rays are not numbered as the head's decoder.
    """
    head = getattr(model, 'occ_head', None)
    if head is None:
        return
    transforms = list(_transforms(dataset))
    grid = getattr(head, 'grid', None)
    if grid is not None:
        places = {f'the grid of {type(head).__name__}': grid.point_cloud_range}
        loads = [item for item in transforms if isinstance(item, LoadOccGTFromFile)]
        for load in loads:
            check_one_place({**places, 'the labels (LoadOccGTFromFile)': load.point_cloud_range},
                            'occupancy labels')
        for metric in metrics:
            _check_metric(metric, places, tuple(grid.volume_shape)[::-1], bool(loads))
    for prepare in transforms:
        if isinstance(prepare, PrepareRays) and 'classes' in prepare.targets:
            _check_classes(prepare, model, head)


def _check_metric(metric: Any, places: dict, shape: Sequence[int], loaded: bool) -> None:
    """``loaded``: whether the samples bring their labels, so that the metric reads no files."""
    if isinstance(metric, (OccMetric, RayIoUMetric)):
        name = type(metric).__name__
        of_files = None if loaded else metric.place_of_files(shape)
        check_one_place({**places, name: metric.point_cloud_range, 'the label files': of_files},
                        f'scoring by {name}')


def _check_classes(prepare: PrepareRays, model: nn.Module, head: nn.Module) -> None:
    """Every decoder that is taught classes against the classes of the rays."""
    labeller = model.data_preprocessor.online_teacher if prepare.is_online else prepare.labeller
    if prepare.is_online and labeller is not None:  # else the data preprocessor refuses the batch
        labeller = labeller.build()
    losses = getattr(head, 'losses', nn.ModuleDict()).values()
    for loss in losses:
        if isinstance(loss, (RenderedClassLoss, RenderedSemanticLoss)) and labeller is not None:
            check_numbering(labeller.class_names, head.decoder(loss.output).out_channels,
                            labeller.owner)


def _transforms(dataset: Any) -> Iterator[Any]:
    """Transforms of a data set and of those that it wraps."""
    yield from getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    for inner in (getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())):
        if inner is not None:
            yield from _transforms(inner)
