"""Our whole prediction against the published layout's, streamed and optimised too."""
import copy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from published_prediction import FREE, cost_volume_by_groups, published_prediction

from langocc.models import StreamState, optimize_for_inference

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(scope='module')
def case():
    """The benchmark's model and drive at its smallest size."""
    sys.path.insert(0, str(TOOLS))
    try:
        from benchmarks.whole_case import WholeCase
    finally:
        sys.path.remove(str(TOOLS))
    init_default_scope('mmdet3d')
    return WholeCase('tiny', samples=4)


def ours(case, model, inputs, stream=None):
    with torch.no_grad():
        field = model.extract_field(inputs, stream=stream)
        classes = model.occ_head.predict_by_field(field)[0].semantics.permute(2, 1, 0)
        return field.densities[0], classes


@pytest.mark.parametrize('optimized', [False, True])
@pytest.mark.parametrize('streamed', [False, True])
def test_prediction(case, optimized, streamed):
    model, stream = copy.deepcopy(case.model), StreamState() if streamed else None
    model = optimize_for_inference(model) if optimized else model
    for inputs in case.samples:
        theirs = published_prediction(case.model, inputs, dtype=torch.float64)
        densities, classes = ours(case, model, inputs, stream)
        assert (densities - theirs['densities'][0]).abs().max() < 1e-5
        best = theirs['scores'][0].topk(2).values
        clear = (best[:, 0] - best[:, 1] > 1e-4).view_as(classes)
        clear &= (theirs['densities'][0] - model.occ_head.density_threshold).abs() > 1e-5
        assert torch.equal(classes[clear], theirs['classes'][0][clear])
        assert clear.float().mean() > 0.95
        occupied = (classes != FREE).float().mean()
        assert 0.02 < occupied < 0.5 and len(classes.unique()) > 3
    assert not streamed or stream.hits == 3


def test_frames_and_geometry_take_part(case):
    """What the comparison above could be blind to: the result follows motion and earlier frames."""
    first, second = case.samples[:2]
    for change in (dict(rig=second['rig']), dict(imgs=first['imgs'][:, [0, 0, 0]])):
        moved, _ = ours(case, case.model, dict(first, **change))
        assert (moved - ours(case, case.model, first)[0]).abs().max() > 1e-2


def test_cost_volume_by_groups(case):
    net, rig = case.model.img_view_transformer, case.samples[1]['rig']
    shape = (len(rig.cam2img[0, 0]), 6, 16, 24)
    current, previous = torch.randn(2, *shape)
    from langocc.models.view_transforms import StereoReference
    probabilities = net._cost_volume(rig.frame(0), StereoReference(
        previous[None], current[None], rig.frame(1)))
    expected = cost_volume_by_groups(net, current, previous, rig.frame(0), rig.frame(1))
    assert (probabilities - expected).abs().max() < 1e-5
