"""Lifting by sampling: a voxel holds the features at its pixels, and nothing else."""
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from test_net_view_transform import eye, make_rig

import langocc  # noqa: F401
from langocc.models.view_transforms import lift_matrices, sample_pixels

GRID = dict(x=[-8, 8, 1], y=[-8, 8, 1], z=[-1, 3, 1])


def make_transformer(**changes):
    return MODELS.build(dict(
        dict(type='SamplingViewTransformer', grid_config=GRID, input_size=(64, 96), downsample=16,
             in_channels=8, out_channels=4), **changes)).eval()


def by_hand(image, u, v, downsample=16):
    """Bilinear between the four cells whose centres surround pixel (u, v)."""
    height, width = image.shape[1:]
    x = min(max((u - (downsample - 1) / 2) / downsample, 0), width - 1)
    y = min(max((v - (downsample - 1) / 2) / downsample, 0), height - 1)
    x0, y0 = min(int(x), width - 2), min(int(y), height - 2)
    x, y = x - x0, y - y0
    return ((1 - y) * ((1 - x) * image[:, y0, x0] + x * image[:, y0, x0 + 1])
            + y * ((1 - x) * image[:, y0 + 1, x0] + x * image[:, y0 + 1, x0 + 1]))


@pytest.mark.parametrize('flip', [False, True])
def test_every_voxel_reads_its_pixel(flip):
    torch.manual_seed(0)
    net, rig = make_transformer(), make_rig(cameras=2)
    feats = torch.randn(2, 3, 4, 6)  # (BN, C - 1, h, w)
    bev = torch.diag(torch.tensor([1., -1 if flip else 1, 1, 1]))[None]
    volume, depth = net.lift(feats, None, rig, bev)
    assert depth is None and volume.shape == (1, 4, 4, 16, 16)
    seen_by_none = 0
    for z, y, x in [(2, 8, 14), (1, 3, 15), (0, 12, 1), (3, 9, 0), (2, 0, 8), (1, 15, 9)]:
        place = torch.tensor([x - 7.5, (y - 7.5) * (-1 if flip else 1), z - 0.5])
        forward = place[0].item()  # camera 0 looks along +x from (0, 0, 1), camera 1 along -x
        camera = 0 if forward > 0 else 1
        right = -place[1] if camera == 0 else place[1]
        u = 48 + 48 * right.item() / abs(forward)
        v = 32 - 48 * (place[2].item() - 1) / abs(forward)
        if -0.5 <= u <= 95.5 and -0.5 <= v <= 63.5:
            expected = torch.cat([by_hand(feats[camera], u, v), torch.ones(1)])
        else:
            expected, seen_by_none = torch.zeros(4), seen_by_none + 1
        torch.testing.assert_close(volume[0, :, z, y, x], expected)
    assert seen_by_none == 2


def test_cameras_that_see_the_same_are_averaged():
    net, rig = make_transformer(), make_rig(cameras=4)  # 0 and 2 look the same way, 1 and 3 too
    feats = torch.arange(4.)[:, None, None, None].expand(4, 3, 4, 6)
    volume = net.lift(feats, None, rig, eye())[0]
    ahead, behind = volume[0, :, 2, 8, 14], volume[0, :, 2, 8, 1]
    torch.testing.assert_close(ahead, torch.tensor([1., 1, 1, 1]))
    torch.testing.assert_close(behind, torch.tensor([2., 2, 2, 1]))


def test_image_augmentation_is_followed():
    net, rig = make_transformer(), make_rig(cameras=1)
    plain = net.lift(torch.randn(1, 3, 4, 6), None, rig, eye())[0]
    rig.img_aug_matrix = rig.img_aug_matrix.clone()
    rig.img_aug_matrix[..., 0, 3] = 1000.  # the whole scene is moved out of the image
    moved = net.lift(torch.randn(1, 3, 4, 6), None, rig, eye())[0]
    assert plain.any() and not moved.any()


def test_agrees_with_the_matrices_of_lift_splat():
    rig, point = make_rig(cameras=1), torch.tensor([5., -2., 0.5, 1], dtype=torch.float64)
    u, v, d, _ = (torch.linalg.inv(lift_matrices(rig, eye())[0, 0]) @ point).tolist()
    assert (u / d, v / d, d) == pytest.approx((48 + 48 * 2 / 5, 32 + 48 * 0.5 / 5, 5))


def test_batch_items_do_not_mix_and_gradients_reach_images():
    net = make_transformer().train()
    images = torch.randn(2, 2, 8, 4, 6, requires_grad=True)
    volume, _ = net(images, make_rig(2), eye(2))
    volume[1].sum().backward()
    assert images.grad[1].any()
    net.eval()
    one = net(images[1:], make_rig(1), eye(1))[0]
    torch.testing.assert_close(net(images, make_rig(2), eye(2))[0][1:], one)


def test_sampling_at_centres_gives_cells():
    image = torch.randn(3, 4, 6)
    centres = torch.tensor([[7.5, 7.5], [87.5, 55.5], [23.5, 39.5]], dtype=torch.float64)
    sampled = sample_pixels(image, centres, 16)
    torch.testing.assert_close(sampled, torch.stack(
        [image[:, 0, 0], image[:, 3, 5], image[:, 2, 1]]))
    assert F.mse_loss(sample_pixels(image, torch.tensor([[-0.5, -0.5]]).double(), 16)[0],
                      image[:, 0, 0]) < 1e-10


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match='out_channels must be at least 2'):
        make_transformer(out_channels=1)
    with pytest.raises(ValueError, match=r'expected \(1, 2, 8, 4, 6\)'):
        make_transformer().reduce(torch.zeros(1, 2, 8, 5, 6), make_rig())
