"""Axes of foreign volumes, and the necks between volume, bird's eye view and three planes."""
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope

import langocc  # noqa: F401
from langocc.models.volumes import in_zyx

init_default_scope('mmdet3d')
B, C, Z, Y, X = 2, 3, 4, 5, 6


def cell_numbers(order):
    """(1, 1, ...) with 100 z + 10 y + x in every cell, axes as in ``order``."""
    sizes = dict(z=Z, y=Y, x=X)
    values = torch.zeros([sizes[axis] for axis in order])
    for axis, factor in dict(z=100, y=10, x=1).items():
        if axis in order:
            shape = [-1 if other == axis else 1 for other in order]
            values = values + factor * torch.arange(sizes[axis]).view(shape)
    return values[None, None].float()


def build(**config):
    torch.manual_seed(0)
    return MODELS.build(config).eval()


@pytest.mark.parametrize('order', ['zyx', 'xyz', 'yxz', 'zxy', 'yx', 'xy', 'xz'])
def test_axes_are_sorted(order):
    sorted_order = ''.join(sorted(order, reverse=True))
    assert torch.equal(in_zyx(cell_numbers(order), order), cell_numbers(sorted_order))


def test_wrong_orders_and_shapes_are_named():
    for order in ('xyw', 'xx', 'x', ''):
        with pytest.raises(ValueError, match=f"order is '{order}', expected the axes"):
            in_zyx(torch.zeros(1, 1, 2, 2, 2), order)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 2, 2\).*\(B, C, X, Y, Z\).*'xyz'"):
        in_zyx(torch.zeros(1, 1, 2, 2), 'xyz')


def test_a_column_of_voxels_comes_from_its_cell_alone():
    neck = build(type='BEVToVolume', in_channels=C, out_channels=2, num_layers=Z)
    bev = torch.randn(B, C, Y, X)
    volume = neck(bev)
    assert volume.shape == (B, 2, Z, Y, X) and (volume.flatten(3).std(-1) > 0).any()
    bev[1, :, 2, 3] += 10
    changed = (neck(bev) != volume).any(1)
    assert changed[1, :, 2, 3].any() and changed.sum() == changed[1, :, 2, 3].sum()
    # Layer z is made by weights [z * 2, z * 2 + 2), as LSSViewTransformer(collapse_z) stacks them.
    with torch.no_grad():
        neck.conv.conv.weight[4:] = 0  # the norm's running statistics are 0 and 1
    volume = neck(bev)
    assert volume[:, :, :2].any() and not volume[:, :, 2:].any()


def test_bev_of_the_other_order_and_of_a_level():
    neck = build(type='BEVToVolume', in_channels=C, out_channels=2, num_layers=Z)
    other = build(type='BEVToVolume', in_channels=C, out_channels=2, num_layers=Z, order='xy',
                  level=1)
    bev = torch.randn(B, C, Y, X)
    assert torch.equal(other([torch.zeros(1), bev.transpose(2, 3)]), neck(bev))
    with pytest.raises(ValueError, match=r'level 1 of 1: \[\(2, 3, 5, 6\)\]'):
        other([bev])
    with pytest.raises(ValueError, match=r'in_channels=3, its input has 2: \(1, 2, 5, 6\)'):
        neck(torch.zeros(1, 2, Y, X))


def test_volume_to_bev_keeps_cells_in_place():
    volume = torch.randn(B, C, Z, Y, X)
    neck = build(type='VolumeToBEV', in_channels=C, num_layers=Z, out_channels=7)
    bev, = neck(volume)
    assert bev.shape == (B, 7, Y, X)
    turned = build(type='VolumeToBEV', in_channels=C, num_layers=Z, out_channels=7, order='xyz')
    assert torch.equal(turned([volume.permute(0, 1, 4, 3, 2)])[0], bev)
    volume[0, 1, 2, 1, 1] += 10
    changed = (neck(volume)[0] != bev).any(1)
    assert changed[0, 1, 1] and not changed[0, 3:].any() and not changed[1].any()
    with pytest.raises(ValueError, match=r'num_layers=4, the volume has 3 layers: \(2, 3, 3, 5, 6'):
        neck(volume[:, :, :3])
    with pytest.raises(ValueError, match='in_channels=3, its input has 2'):
        neck(volume[:, :2])


def test_stacked_layers_of_the_lift_come_back():
    """VolumeToBEV reads the channels in the order that BEVToVolume writes them."""
    to_bev = build(type='VolumeToBEV', in_channels=C, num_layers=Z, out_channels=7)
    volume = torch.randn(B, C, Z, Y, X)
    stacked = volume.transpose(1, 2).flatten(1, 2)
    assert torch.equal(to_bev(volume)[0], to_bev.conv(stacked))
    assert torch.equal(stacked.unflatten(1, (Z, -1)).transpose(1, 2), volume)


def test_planes_add_up():
    neck = build(type='TPVToVolume', in_channels=1, out_channels=1)
    with torch.no_grad():
        neck.conv.conv.weight.fill_(1)
    planes = [cell_numbers('yx'), 1000 * cell_numbers('zx'), cell_numbers('zy')]
    expected = (planes[0][:, :, None] + planes[1][:, :, :, None] + planes[2][..., None])
    torch.testing.assert_close(neck(planes), expected / (1 + 1e-5)**0.5)
    former = build(type='TPVToVolume', in_channels=1, out_channels=1, planes=('yx', 'zy', 'xz'))
    with torch.no_grad():
        former.conv.conv.weight.fill_(1)
    assert torch.equal(former([planes[0], planes[2], planes[1].transpose(2, 3)]), neck(planes))


def test_planes_of_a_volume():
    neck = build(type='VolumeToTPV', in_channels=C, out_channels=7, num_convs=0)
    volume = torch.randn(B, C, Z, Y, X)
    for plane, axis in zip(neck(volume), (2, 3, 4)):
        assert torch.equal(plane, volume.mean(axis))
    neck = build(type='VolumeToTPV', in_channels=C, out_channels=7, order='xyz')
    shapes = [tuple(plane.shape) for plane in neck(volume.permute(0, 1, 4, 3, 2))]
    assert shapes == [(B, 7, Y, X), (B, 7, Z, X), (B, 7, Z, Y)]


def test_wrong_planes_are_named():
    neck = build(type='TPVToVolume', in_channels=1, out_channels=1)
    planes = [cell_numbers('yx'), cell_numbers('zx'), cell_numbers('zy')]
    with pytest.raises(ValueError, match='three with 1 channels'):
        neck(planes[:2])
    with pytest.raises(ValueError, match=r'\(1, 1, 5, 6\), \(1, 1, 3, 6\).* are not of one grid'):
        neck([planes[0], planes[1][:, :, :3], planes[2]])
    with pytest.raises(ValueError, match='expected three pairs of axes'):
        build(type='TPVToVolume', in_channels=1, out_channels=1, planes=('yx', 'xy', 'zy'))


def test_stages_follow_each_other():
    neck = build(type='SequentialNeck', stages=[
        dict(type='VolumeToTPV', in_channels=C, out_channels=7),
        dict(type='TPVToVolume', in_channels=7, out_channels=2)])
    assert neck(torch.randn(B, C, Z, Y, X)).shape == (B, 2, Z, Y, X)
    assert {name.split('.')[0] for name in neck.state_dict()} == {'0', '1'}
    with pytest.raises(ValueError, match='at least one stage'):
        build(type='SequentialNeck', stages=[])
