"""Image and voxel backbones and necks against plain torch.nn.functional."""
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS

from langocc.models.backbones import CustomResNet3D, check_grid_shape, extract_stride4
from langocc.models.necks import LSSFPN3D, CustomFPN


def randomise_norms(module):
    """Running statistics and affine parameters away from the identity."""
    for name, value in module.state_dict().items():
        if value.ndim == 1:
            torch.nn.init.uniform_(value, 0.5, 1.5)
    return module


def test_extract_stride4_equals_the_backbone():
    backbone = MODELS.build(dict(type='mmdet.ResNet', depth=18, out_indices=(0, 3)))
    backbone.eval()  # mmdet's returns None
    images = torch.randn(2, 3, 36, 70)  # not a multiple of the strides
    ran = []
    backbone.layer2.register_forward_hook(lambda *_: ran.append('layer2'))
    feats = extract_stride4(backbone, images)
    assert not ran and feats.shape == (2, 64, 9, 18)
    assert torch.equal(feats, backbone(images)[0])


def test_extract_stride4_with_a_deep_stem():
    backbone = MODELS.build(dict(type='mmdet.ResNetV1d', depth=50, out_indices=(0, )))
    backbone.eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(extract_stride4(backbone, images), backbone(images)[0])


def test_extract_stride4_names_an_unsuitable_backbone():
    with pytest.raises(TypeError, match='Linear has no .*maxpool'):
        extract_stride4(torch.nn.Linear(1, 1), torch.zeros(1, 3, 8, 8))


def test_custom_fpn_against_functional():
    neck = CustomFPN(in_channels=[6, 10], out_channels=4, num_outs=1, start_level=0, out_ids=[0])
    fine, coarse = torch.randn(2, 6, 5, 7), torch.randn(2, 10, 3, 4)
    state = neck.state_dict()
    lateral = [
        F.conv2d(x, state[f'lateral_convs.{i}.conv.weight'], state[f'lateral_convs.{i}.conv.bias'])
        for i, x in enumerate([fine, coarse])]
    rows, cols = torch.arange(5) * 3 // 5, torch.arange(7) * 4 // 7  # nearest by hand
    merged = lateral[0] + lateral[1][:, :, rows][:, :, :, cols]
    expected = F.conv2d(merged, state['fpn_convs.0.conv.weight'], state['fpn_convs.0.conv.bias'],
                        padding=1)
    output = neck([fine, coarse])
    assert isinstance(output, tuple) and len(output) == 1
    torch.testing.assert_close(output[0], expected)
    assert (output[0] < 0).any()  # no activation


def test_custom_fpn_two_outputs_and_start_level():
    neck = CustomFPN([3, 6, 10], 4, num_outs=2, start_level=1, out_ids=[0, 1])
    outputs = neck([torch.randn(1, 3, 16, 16), torch.randn(1, 6, 8, 8), torch.randn(1, 10, 4, 4)])
    assert [tuple(x.shape) for x in outputs] == [(1, 4, 8, 8), (1, 4, 4, 4)]


def test_custom_fpn_errors():
    with pytest.raises(ValueError, match='num_outs=2'):
        CustomFPN([6, 10], 4, num_outs=2, out_ids=[0])
    with pytest.raises(ValueError, match='expected 2 levels'):
        CustomFPN([6, 10], 4)([torch.zeros(1, 6, 4, 4)])


def norm3d(x, state, name):
    return F.batch_norm(x, state[f'{name}.running_mean'], state[f'{name}.running_var'],
                        state[f'{name}.weight'], state[f'{name}.bias'])


def test_custom_resnet3d_block_against_functional():
    net = randomise_norms(CustomResNet3D(3, [1], [5], [2], [0])).eval()
    volume, state = torch.randn(2, 3, 4, 6, 8), net.state_dict()

    def conv(x, name, stride):
        weight = state[f'layers.0.0.{name}.conv.weight']
        x = F.conv3d(x, weight, stride=stride, padding=1)
        return norm3d(x, state, f'layers.0.0.{name}.bn')

    hidden = F.relu(conv(volume, 'conv1', 2))
    expected = F.relu(conv(hidden, 'conv2', 1) + conv(volume, 'downsample', 2))
    output, = net(volume)
    torch.testing.assert_close(output, expected)


def test_custom_resnet3d_stages_and_checkpointing():
    settings = dict(numC_input=4, num_layer=[1, 2, 1], num_channels=[4, 6, 8], stride=[1, 2, 2])
    plain = CustomResNet3D(**settings, backbone_output_ids=[0, 2])
    saving = CustomResNet3D(**settings, backbone_output_ids=[0, 2], with_cp=True)
    saving.load_state_dict(plain.state_dict())
    volume = torch.randn(1, 4, 4, 8, 12)
    outputs = plain(volume)
    assert [tuple(x.shape[1:]) for x in outputs] == [(4, 4, 8, 12), (8, 1, 2, 3)]
    for net in (plain, saving):
        sum(x.square().sum() for x in net(volume)).backward()
    for one, other in zip(plain.parameters(), saving.parameters()):
        torch.testing.assert_close(one.grad, other.grad)


def test_grid_that_the_strides_do_not_divide():
    net = CustomResNet3D(4, [1, 1, 1], [4, 4, 4], [1, 2, 2])
    message = r"grid \(Z, Y, X\) = \(16, 200, 202\) .* stride 4 along X=202"
    with pytest.raises(ValueError, match=message):
        net.check_grid((16, 200, 202))
    with pytest.raises(ValueError, match=r'\(4, 8, 10\).*stride 4 along X=10'):
        net(torch.zeros(1, 4, 4, 8, 10))
    check_grid_shape((16, 200, 200), 4, 'anything')
    with pytest.raises(ValueError, match=r'\(2, 4, 5\) does not divide .* \(4, 8, 9\).*stride 1.8'):
        LSSFPN3D(8, 4)([torch.zeros(1, 4, 4, 8, 9), torch.zeros(1, 4, 2, 4, 5)])


def test_custom_resnet3d_errors():
    with pytest.raises(ValueError, match='one entry a stage'):
        CustomResNet3D(4, [1, 1], [4, 4], [1])
    with pytest.raises(ValueError, match='backbone_output_ids'):
        CustomResNet3D(4, [1], [4], [1], backbone_output_ids=[1])


@pytest.fixture
def levels():
    return [torch.randn(2, 3, 4, 8, 12), torch.randn(2, 5, 2, 4, 6), torch.randn(2, 6, 1, 2, 3)]


@pytest.mark.parametrize('low_memory', [False, True])
def test_lss_fpn3d_against_functional(levels, low_memory):
    neck = randomise_norms(LSSFPN3D(14, 7, low_memory=low_memory)).eval()
    state = neck.state_dict()
    up = [levels[0]] + [
        F.interpolate(x, scale_factor=factor, mode='trilinear', align_corners=True)
        for x, factor in zip(levels[1:], (2, 4))]
    mixed = torch.einsum('oc,bczyx->bozyx', state['conv.conv.weight'].flatten(1), torch.cat(up, 1))
    expected = F.relu(norm3d(mixed, state, 'conv.bn'))
    torch.testing.assert_close(neck(levels), expected)


def test_lss_fpn3d_checkpointing_and_low_memory_give_the_same_gradients(levels):
    necks = [LSSFPN3D(14, 7), LSSFPN3D(14, 7, with_cp=True), LSSFPN3D(14, 7, low_memory=True)]
    gradients = []
    for neck in necks:
        neck.load_state_dict(necks[0].state_dict())
        inputs = [x.clone().requires_grad_() for x in levels]
        output = neck(inputs)
        (output * torch.linspace(0, 1, output.numel()).view_as(output)).sum().backward()
        gradients.append([x.grad for x in inputs] + [p.grad for p in neck.parameters()])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_lss_fpn3d_channels_are_checked(levels):
    with pytest.raises(ValueError, match='must have 99 channels'):
        LSSFPN3D(99, 7)(levels)
