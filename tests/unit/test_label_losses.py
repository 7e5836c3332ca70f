"""Classes and distances of rays: rendered probabilities, their losses, weights, wrong targets."""
import math

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.models import RenderedRays
from voxelrender import RayBundle

init_default_scope('mmdet3d')


def rendered(probs, ends=None, **targets):
    """Rays that rendered class probabilities (R, K) and end at distances (R,)."""
    count = len(probs)
    blank = torch.zeros(count, 3)
    rays = RayBundle(blank, blank, targets={n: torch.as_tensor(v) for n, v in targets.items()})
    ends = torch.ones(count) if ends is None else ends
    samples = torch.zeros(count, 1)
    return RenderedRays(rays, torch.zeros(count, dtype=torch.long), samples, samples, samples,
                        samples, probs.sum(1), ends, dict(semantic=probs))


def class_loss(**settings):
    return MODELS.build(dict(dict(type='RenderedClassLoss', num_classes=3, eps=1e-6), **settings))


PROBS = torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.1, 0.1], [0., 0., 0.], [0.2, 0.3, 0.4]])


def test_cross_entropy_of_what_rays_end_at():
    loss = class_loss()(rendered(PROBS, classes=[0, 2, -1, 1]), None)
    expected = -(math.log(0.5) + math.log(0.1) + math.log(0.3)) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_given_a_hit_only_classes_are_taught():
    probs = PROBS.clone().requires_grad_()
    loss = class_loss(given_hit=True)(rendered(probs, classes=[0, 2, 1, 1]), None)
    expected = -(math.log(5 / 8) + 2 * math.log(1 / 3) + math.log(3 / 9)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    grad, = torch.autograd.grad(loss, probs)
    assert abs((grad * probs).sum(1)[0]) < 1e-5  # more of everything changes nothing
    unknown = class_loss()(rendered(probs, classes=[0, 2, 1, 1]), None)
    assert (torch.autograd.grad(unknown, probs)[0] * probs).sum(1)[0] < -0.2  # opacity is taught


def test_sky_is_left_out_whatever_its_class():
    rays = rendered(PROBS, classes=[0, 7, 7, -1], sky=[False, True, True, False])
    assert class_loss()(rays, None).item() == pytest.approx(-math.log(0.5), rel=1e-4)


def test_weights_of_classes():
    weights = [1., 0., 3.]
    loss = class_loss(class_weight=weights)(rendered(PROBS, classes=[0, 2, 1, 1]), None)
    expected = -(math.log(0.5) + 3 * math.log(0.1)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_running_weights_follow_the_rays():
    loss = class_loss(class_weight='running').train()
    even = loss._weights(torch.tensor([], dtype=torch.long))
    torch.testing.assert_close(even, even[:1].expand(3))
    for _ in range(600):
        loss(rendered(PROBS, classes=[0, 0, 0, 2]), None)
    torch.testing.assert_close(loss.shares, torch.tensor([0.75, 0., 0.25]), atol=2e-3, rtol=0)
    weights = loss._weights(torch.tensor([], dtype=torch.long))
    torch.testing.assert_close(weights, 1 / (1.02 + loss.shares).log())
    assert weights[1] > 30 > weights[2] > weights[0] > 1.4
    again = class_loss(class_weight='running')
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.shares, loss.shares)
    loss.eval()(rendered(PROBS, classes=[1, 1, 1, 1]), None)
    assert torch.equal(again.shares, loss.shares)  # only training counts


@pytest.mark.parametrize('given_hit', [False, True])
def test_no_known_class_and_no_ray_are_a_connected_zero(given_hit):
    for probs, classes in ((PROBS.clone(), [-1] * 4), (torch.zeros(0, 3), torch.zeros(0).long())):
        probs.requires_grad_()
        for settings in (dict(), dict(class_weight='running')):
            loss = class_loss(given_hit=given_hit, **settings)(rendered(probs, classes=classes),
                                                               None)
            assert loss.item() == 0
            assert not torch.autograd.grad(loss, probs)[0].any()


def test_wrong_classes_are_named():
    for wrong in ([1., 2.], [1., -1., 0.]):
        with pytest.raises(ValueError, match=r'expected 3 numbers >= 0'):
            class_loss(class_weight=wrong)
    with pytest.raises(ValueError, match="num_classes is 4, the decoder 'semantic' has 3"):
        class_loss(num_classes=4)(rendered(PROBS, classes=[0, 0, 0, 0]), None)
    with pytest.raises(ValueError, match='a ray has class 3, expected 0 ... 2 or -1'):
        class_loss()(rendered(PROBS, classes=[0, 3, 0, 0]), None)
    with pytest.raises(KeyError, match="needs the ray target 'classes'.*PrepareRays"):
        class_loss()(rendered(PROBS, distances=[0, 0, 0, 0]), None)


def test_silog():
    found = torch.tensor([2., 3., 5., 0., 7.], requires_grad=True)
    target = torch.tensor([1., 4., float('nan'), 9., 50.])
    errors = torch.tensor([2., 3 / 4]).log()
    for focus in (0., 0.85, 1.):
        loss = MODELS.build(dict(type='SILogDepthLoss', far=40., variance_focus=focus, eps=0.))
        value = loss(rendered(torch.zeros(5, 3), found, distances=target), None)
        expected = (errors.square().mean() - focus * errors.mean()**2).sqrt()
        torch.testing.assert_close(value, expected)
        grad, = torch.autograd.grad(value, found)
        assert grad[:2].all() and not grad[2:].any()
    exact = MODELS.build(dict(type='SILogDepthLoss'))
    value = exact(rendered(torch.zeros(5, 3), found, distances=found.detach()), None)
    assert torch.isfinite(torch.autograd.grad(value, found)[0]).all()
    nothing = exact(rendered(torch.zeros(5, 3), found, distances=torch.full((5,), math.nan)), None)
    assert nothing.item() == 0
    with pytest.raises(ValueError, match='variance_focus is 2'):
        MODELS.build(dict(type='SILogDepthLoss', variance_focus=2))


def test_probabilities_are_rendered_and_logits_decide():
    torch.manual_seed(0)
    decoder = MODELS.build(dict(type='ClassProbabilityDecoder', in_channels=4, num_classes=3,
                                hidden_channels=8, num_hidden=1))
    feats = torch.randn(6, 4)
    values, factors = decoder.encode(feats)
    torch.testing.assert_close(values, decoder(feats).softmax(-1))
    assert factors is None and torch.equal(values.argmax(-1), decoder(feats).argmax(-1))
    half, _ = decoder.to(torch.bfloat16).encode(feats.bfloat16())
    assert half.dtype == torch.float32
