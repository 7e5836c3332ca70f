"""The order of colours, folded into the first convolution."""
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS

import langocc  # noqa: F401
from langocc.checkpoints import fold_colors


@pytest.fixture
def tensors():
    return {'img_backbone.conv1.weight': torch.randn(8, 3, 7, 7) / 12,
            'img_backbone.bn1.running_mean': torch.randn(8), 'img_backbone.bn1.bias': torch.ones(8)}


def normalised(images, bgr):
    return MODELS.build(dict(type='OccDataPreprocessor', bgr=bgr))(dict(inputs=dict(
        imgs=[images[None, None]], bev_aug_matrix=[torch.eye(4)], rig=[rig()])))['inputs']['imgs']


def rig():
    from langocc.structures import CameraRig
    eye = torch.eye(4)[None, None]
    return CameraRig(eye, eye, eye, eye, torch.eye(4))


def test_the_folded_network_gives_the_same_inside_the_border(tensors):
    images = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)

    def stem(weights, bgr):
        x = F.conv2d(normalised(images, bgr)[0, 0], weights['img_backbone.conv1.weight'], stride=2,
                     padding=3)
        return x - weights['img_backbone.bn1.running_mean'].view(1, -1, 1, 1)

    theirs, ours = stem(tensors, True), stem(fold_colors(tensors, to_rgb=True), False)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ours[inner], theirs[inner], atol=1e-5, rtol=1e-5)
    assert (ours - theirs).abs().max() > 1e-3  # at the border padding is zero in both
    assert (stem(tensors, False) - theirs)[inner].abs().max() > 0.1  # without folding


def test_there_and_back(tensors):
    there = fold_colors(tensors, to_rgb=True)
    back = fold_colors(there, to_rgb=False)
    assert set(back) == set(tensors) and there['img_backbone.bn1.bias'] is tensors[
        'img_backbone.bn1.bias']
    for name, value in tensors.items():
        torch.testing.assert_close(back[name], value, atol=1e-6, rtol=1e-6)


def test_another_backbone_is_named(tensors):
    with pytest.raises(ValueError, match=r"missing \['img_backbone.bn1.running_mean'\]"):
        fold_colors({'img_backbone.conv1.weight': torch.ones(8, 3, 7, 7)}, to_rgb=True)
    tensors['img_backbone.conv1.weight'] = torch.ones(8, 1, 7, 7)
    with pytest.raises(ValueError, match=r'\(8, 1, 7, 7\), expected three'):
        fold_colors(tensors, to_rgb=True)
