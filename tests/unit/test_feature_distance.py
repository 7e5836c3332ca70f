"""FeatureDistance 'centered_cosine': by hand, its running mean, and where there is nothing."""
import pytest
import torch
import torch.nn.functional as F
from test_losses import make_field, make_rendered, unit

from langocc.models.losses import FeatureDistance, RenderedFeatureLoss


def test_centered_cosine_by_hand():
    pred, target = unit(4, 6), unit(4, 6)
    values = FeatureDistance('centered_cosine')(pred, target)
    mean = target.mean(0)
    expected = [1 - float((p - mean) @ (t - mean) / (p - mean).norm() / (t - mean).norm())
                for p, t in zip(pred, target)]
    torch.testing.assert_close(values, torch.tensor(expected))
    plain = [1 - float(p @ t) for p, t in zip(pred, target)]
    torch.testing.assert_close(FeatureDistance('cosine')(pred, target), torch.tensor(plain))


def test_what_all_targets_share_does_not_count():
    shared = torch.tensor([10., 0, 0])
    target = F.normalize(shared + torch.tensor([[0., 1, 0], [0, -1, 0]]), dim=-1)
    wrong = target.flip(0)
    assert FeatureDistance('cosine')(wrong, target).max() < 0.03  # nearly right
    torch.testing.assert_close(FeatureDistance('centered_cosine')(wrong, target),
                               torch.tensor([2., 2.]))


def test_mean_is_of_all_batches_and_only_of_training():
    distance = FeatureDistance('centered_cosine')
    first, second = unit(3, 5), unit(3, 5)
    distance(unit(3, 5), first)
    distance(unit(3, 5), second, torch.tensor([True, False, True]))
    mean = (first.mean(0) + second[[0, 2]].mean(0)) / 2
    torch.testing.assert_close(distance.mean, mean)
    distance.eval()(unit(3, 5), unit(3, 5))
    torch.testing.assert_close(distance.mean, mean)
    assert not distance.state_dict()  # checkpoints stay those of the published model


def test_without_any_target_it_is_zero_and_connected():
    pred = unit(2, 5).requires_grad_()
    values = FeatureDistance('centered_cosine').eval()(pred, unit(2, 5))
    values.sum().backward()
    assert not values.any() and not pred.grad.any()


def test_rendered_loss_takes_its_mean_without_the_sky():
    target = unit(3, 5)
    loss = RenderedFeatureLoss('centered_cosine')
    loss(make_rendered(outputs=dict(lang=torch.randn(3, 5)),
                       targets=dict(lang_feats=target, sky=torch.tensor([False, True, False]))),
         make_field())
    torch.testing.assert_close(loss.distance.mean, target[[0, 2]].mean(0))


def test_a_prediction_at_the_mean_has_a_finite_gradient():
    target = unit(4, 5)
    pred = target.mean(0).expand(4, 5).clone().requires_grad_()
    FeatureDistance('centered_cosine')(pred, target).sum().backward()
    assert torch.isfinite(pred.grad).all() and pred.grad.any()


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="'l1', expected one of"):
        FeatureDistance('l1')
