"""ColumnEncoder: every layer of a column sees the others, columns far away are not seen."""
import pytest
import torch
from mmdet3d.registry import MODELS

import langocc  # noqa: F401


def make_encoder(**changes):
    torch.manual_seed(0)
    return MODELS.build(dict(dict(type='ColumnEncoder', in_channels=3, num_layers=4,
                                  out_channels=5, channels=8, num_blocks=1), **changes)).eval()


def test_shape_and_reach():
    encoder = make_encoder()
    volume = torch.randn(2, 3, 4, 12, 10, requires_grad=True)
    output, = encoder(volume)
    assert output.shape == (2, 5, 4, 12, 10)
    output[1, :, 3, 6, 5].sum().backward()  # the top layer of one column
    reached = volume.grad.abs().sum(1)  # (B, Z, Y, X)
    assert not reached[0].any() and (reached[1, :, 6, 5] > 0).all()
    far = reached[1].clone()
    far[:, 4:9, 3:8] = 0  # a block of two 3 x 3 convolutions
    assert not far.any()


def test_layers_keep_their_order():
    encoder = make_encoder(num_blocks=0, out_channels=1)
    with torch.no_grad():
        encoder.columns_out.weight.zero_()
        encoder.columns_out.bias.copy_(torch.arange(4.))
    assert encoder(torch.randn(1, 3, 4, 2, 2))[0][0, 0, :, 1, 0].tolist() == [0, 1, 2, 3]


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match='num_layers=4, the grid .* has 8'):
        make_encoder().check_grid((8, 10, 10))
    with pytest.raises(ValueError, match='expected C = 3, Z = 4'):
        make_encoder()(torch.zeros(1, 3, 5, 2, 2))
