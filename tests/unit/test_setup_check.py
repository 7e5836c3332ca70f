"""Runs whose grids or numberings do not fit are stopped before their first sample."""
from types import SimpleNamespace

import pytest
from mmdet3d.registry import METRICS, MODELS
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from torch import nn

from langocc.datasets.transforms import LoadOccGTFromFile
from langocc.datasets.transforms.rays import PrepareRays
from langocc.engine import SetupCheckHook, check_setup
from langocc.occ3d import OCC3D_CLASSES, OCC3D_RANGE
from langocc.teachers import LabelMapTeacher

init_default_scope('mmdet3d')
BELOW = [-40, -40, -3, 40, 40, 3.4]
OCC3D = OCC3D_CLASSES[:17]


class Model(nn.Module):
    """A head that is taught classes, and nothing else."""

    def __init__(self, place=OCC3D_RANGE, num_classes=17):
        super().__init__()
        self.occ_head = MODELS.build(dict(
            type='LangOccHead', in_channels=2, feat_channels=2,
            grid=dict(point_cloud_range=place, voxel_size=[0.4] * 3),
            density_decoder=dict(type='DensityDecoder', hidden_channels=2),
            decoders=dict(semantic=dict(type='ClassProbabilityDecoder', num_classes=num_classes,
                                        hidden_channels=2)),
            renderer=dict(type='VolumeRenderer'),
            losses=dict(semantic=dict(type='RenderedClassLoss', num_classes=num_classes))))


def dataset(*transforms):
    wrapped = SimpleNamespace(pipeline=Compose(transforms))
    return SimpleNamespace(dataset=wrapped)  # as RepeatDataset


def rays(root, names, targets=('classes',)):
    return PrepareRays(dict(type='CameraPixelSource'), LabelMapTeacher(root, names),
                       targets=targets)


def test_grids_of_one_shape_in_two_places():
    metrics = [METRICS.build(dict(type=name)) for name in ('OccMetric', 'RayIoUMetric')]
    for metric in ([], *([metric] for metric in metrics)):
        check_setup(Model(), dataset(LoadOccGTFromFile()), metric)
        check_setup(Model(), dataset(), metric)
    check_setup(Model(BELOW), dataset(LoadOccGTFromFile(point_cloud_range=BELOW)), metrics[:1])
    two = r'of LangOccHead in \[-40.0, -40.0, -3.0, .* in \[-40.0, -40.0, -1.0, '
    for data, metric in ((LoadOccGTFromFile(), []),
                         *([None, [metric]] for metric in metrics),
                         (LoadOccGTFromFile(point_cloud_range=BELOW), metrics[1:])):
        with pytest.raises(ValueError, match=two):
            check_setup(Model(BELOW), dataset(*[data] if data else []), metric)
    metrics[0].dataset_meta = dict(point_cloud_range=BELOW)  # files of one's own
    check_setup(Model(BELOW), dataset(), metrics[:1])


def test_a_decoder_of_17_classes_has_occ3ds_numbers(tmp_path):
    for names in (OCC3D, (*OCC3D, 'sky'), (*OCC3D, 'sky', 'tram')):
        check_setup(Model(), dataset(rays(tmp_path, names)))
    check_setup(Model(), dataset(rays(tmp_path, ('car', 'sky'), ('sky',))))  # numbers of nobody
    check_setup(Model(), dataset(rays(tmp_path, [f'my {name}' for name in sorted(OCC3D)])))
    with pytest.raises(ValueError, match="LabelMapTeacher: the order .*'barrier' is 0, expected 1"):
        check_setup(Model(), dataset(rays(tmp_path, sorted(OCC3D))))
    with pytest.raises(ValueError, match="'car' is 3, expected 4"):  # nuScenes-lidarseg's 16
        check_setup(Model(), dataset(rays(tmp_path, (*OCC3D[1:], 'sky'))))
    with pytest.raises(ValueError, match=r"has 2 class_names \['car', 'sky'\], .* by them 17"):
        check_setup(Model(), dataset(rays(tmp_path, ('car', 'sky'))))


def test_other_numbers_of_classes_are_free(tmp_path):
    check_setup(Model(num_classes=3), dataset(rays(tmp_path, ('car', 'barrier', 'tram', 'sky'))))
    with pytest.raises(ValueError, match='has 2 class_names .* by them 3'):
        check_setup(Model(num_classes=3), dataset(rays(tmp_path, ('car', 'barrier'))))


def test_the_hook_looks_before_the_run(tmp_path):
    from mmengine.runner import BaseLoop

    class Loop(BaseLoop):
        def __init__(self, data, metrics):
            self.dataloader = SimpleNamespace(dataset=data)
            self.evaluator = SimpleNamespace(metrics=metrics)

        def run(self):
            pass

    ray_iou = METRICS.build(dict(type='RayIoUMetric'))
    runner = SimpleNamespace(model=Model(BELOW), _train_loop=dict(not_built='in this run'),
                             _val_loop=None, _test_loop=Loop(dataset(), []))
    SetupCheckHook().before_run(runner)
    runner._val_loop = Loop(dataset(), [ray_iou])
    with pytest.raises(ValueError, match='scoring by RayIoUMetric: not one place'):
        SetupCheckHook().before_run(runner)
