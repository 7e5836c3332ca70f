"""The ops: exact answers, and errors that name what is wrong."""
import math

import pytest
import torch
from test_net_view_transform import make_rig, make_transformer

from langocc.models.view_transforms import StereoReference
from voxelrender import VoxelGrid, lift_splat, sparse_product, stereo_cost_volume
from voxelrender.ops import LiftGeometry

GRID = VoxelGrid((0, 0, 0, 4, 3, 2), (1, 1, 1))


def test_sparse_product_of_nothing():
    nothing = torch.zeros(0, dtype=torch.long)
    values, feats = torch.zeros(0, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    out = sparse_product(nothing, nothing, values, feats, 5)
    assert out.shape == (5, 3) and out.abs().sum() == 0
    out.sum().backward()
    assert feats.grad.abs().sum() == 0 and values.grad.shape == (0,)
    assert sparse_product(nothing, nothing, values, feats[:0], 0).shape == (0, 3)


def test_sparse_product_names_bad_indices():
    ones, feats = torch.ones(2), torch.ones(3, 2)
    good = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r'rows span 0..4, expected indices in \[0, 2\)'):
        sparse_product(torch.tensor([0, 4]), good, ones, feats, 2)
    with pytest.raises(ValueError, match='cols span -1..1'):
        sparse_product(good, torch.tensor([-1, 1]), ones, feats, 2)
    with pytest.raises(ValueError, match='expected three times'):
        sparse_product(good, good, torch.ones(3), feats, 2)


def test_sparse_product_stays_in_full_precision_under_autocast():
    rows, cols = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    values, feats = torch.rand(3), torch.randn(2, 5)
    plain = sparse_product(rows, cols, values, feats, 2)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = sparse_product(rows, cols, values, feats, 2)
    assert cast.dtype == torch.float32 and torch.equal(cast, plain)
    assert sparse_product(rows, cols, values, feats.bfloat16(), 2).dtype == torch.float32


def test_lift_splat_puts_a_point_into_its_voxel():
    points = torch.tensor([[1.5, 2.5, 0.5], [-0.5, 0.5, 0.5], [5., 0.5, 0.5]])
    depth = torch.tensor([0.25, 0.5, 1.]).view(1, 1, 3, 1, 1)
    context = torch.tensor([2., 4.]).view(1, 1, 2, 1, 1)
    volume = lift_splat(depth, context, points.view(1, 1, 3, 1, 1, 3), GRID)
    assert volume.shape == (1, 2, 2, 3, 4)
    assert volume[0, :, 0, 2, 1].tolist() == [0.5, 1.]
    assert volume.count_nonzero() == 2
    folded = lift_splat(depth, context, points.view(1, 1, 3, 1, 1, 3), GRID, truncate=True)
    assert folded[0, :, 0, 0, 0].tolist() == [1., 2.]


def test_lift_splat_batch_equals_items_and_outside_is_empty():
    points = torch.rand(2, 3, 4, 2, 2, 3) * 5 - 0.5
    depth, context = torch.rand(2, 3, 4, 2, 2), torch.randn(2, 3, 5, 2, 2)
    batch = lift_splat(depth, context, points, GRID)
    for item in range(2):
        part = slice(item, item + 1)
        alone = lift_splat(depth[part], context[part], points[part], GRID)
        assert torch.allclose(alone[0], batch[item], atol=1e-6)
    depth.requires_grad_()
    away = lift_splat(depth, context, points + 100, GRID)
    assert away.abs().sum() == 0
    away.sum().backward()
    assert depth.grad.abs().sum() == 0
    with pytest.raises(ValueError, match='expected .B, N, D, h, w.'):
        lift_splat(depth, context, points[..., :2], GRID)


def test_a_geometry_is_made_once_and_serves_many_frames():
    points = torch.rand(2, 2, 3, 2, 4, 3) * 5 - 0.5
    geometry = LiftGeometry.from_points(points, GRID, truncate=True).to(torch.device('cpu'))
    for _ in range(2):
        depth, context = torch.rand(2, 2, 3, 2, 4), torch.randn(2, 2, 5, 2, 4)
        expected = lift_splat(depth, context, points, GRID, truncate=True)
        assert torch.equal(lift_splat(depth, context, geometry), expected)
    inside = GRID.contains(points, truncate=True)
    assert sorted(geometry.point_ids.tolist()) == inside.flatten().nonzero()[:, 0].tolist()
    items = inside.flatten(1).nonzero()[:, 0] * GRID.num_voxels
    voxels = items + GRID.flat_indices(GRID.to_indices(points, truncate=True)[inside])
    assert geometry.voxel_ids.tolist() == sorted(set(voxels.tolist()))
    assert geometry.starts[-1] == len(geometry.point_ids)


def test_a_geometry_fits_its_frustum_only():
    points = torch.rand(1, 2, 3, 2, 4, 3)
    geometry = LiftGeometry.from_points(points, GRID)
    depth, context = torch.rand(1, 2, 3, 2, 4), torch.rand(1, 2, 5, 2, 4)
    with pytest.raises(ValueError, match=r'frustum \(1, 2, 3, 2, 4\)'):
        lift_splat(depth[:, :1], context[:, :1], geometry)
    with pytest.raises(ValueError, match='need a grid'):
        lift_splat(depth, context, points)
    with pytest.raises(ValueError, match=r'\(B, N, D, h, w, 3\)'):
        LiftGeometry.from_points(points[0], GRID)


def test_lift_splat_of_an_empty_batch():
    depth = torch.rand(0, 2, 3, 2, 4, requires_grad=True)
    context = torch.rand(0, 2, 5, 2, 4, requires_grad=True)
    volume = lift_splat(depth, context, torch.rand(0, 2, 3, 2, 4, 3), GRID)
    assert volume.shape == (0, 5, 2, 3, 4)
    volume.sum().backward()
    assert depth.grad.shape == depth.shape and context.grad.shape == context.shape


def test_lift_splat_stays_in_full_precision_under_autocast():
    points = torch.rand(1, 2, 3, 2, 4, 3) * 3
    depth, context = torch.rand(1, 2, 3, 2, 4), torch.rand(1, 2, 5, 2, 4)
    plain = lift_splat(depth, context, points, GRID)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = lift_splat(depth, context, points, GRID)
    assert cast.dtype == torch.float32 and torch.equal(cast, plain)
    assert lift_splat(depth, context.bfloat16(), points, GRID).dtype == torch.float32


def sweep(baseline=0.8, focal=40., depth_true=6., size=(32, 64)):
    """A camera that moved along x before a wall at one depth; features one cell a pixel."""
    cam2img = torch.eye(4, dtype=torch.float64)
    cam2img[0, 0] = cam2img[1, 1] = focal
    cam2img[0, 2], cam2img[1, 2] = size[1] / 2, size[0] / 2
    move = torch.eye(4, dtype=torch.float64)
    move[0, 3] = baseline
    warp = cam2img @ move @ torch.linalg.inv(cam2img)
    shift = focal * baseline / depth_true
    texture = torch.randn(1, 32, size[0], 512)
    u = torch.arange(size[1])
    cur = texture[..., 100 + u]
    left = (100 + u - shift)
    low = left.floor().long()
    share = left - low
    prev = texture[..., low] * (1 - share) + texture[..., low + 1] * share
    return cur, prev, warp[None]


def test_cost_volume_finds_the_depth_of_a_wall():
    depths = torch.tensor([3., 4., 6., 9., 18.])
    cur, prev, warps = sweep(depth_true=4.)
    probs = stereo_cost_volume(cur, prev, warps, depths, (32, 64))
    assert probs.shape == (1, 5, 32, 64)
    assert torch.allclose(probs.sum(1), torch.ones(1, 32, 64), atol=1e-5)
    seen = probs[:, :, :, :40]
    assert (seen.argmax(1) == 1).all() and seen[:, 1].min() > 0.9


def test_cost_volume_penalises_what_lies_outside_or_behind():
    zeros = torch.zeros(1, 4, 2, 4)
    depths = torch.tensor([1., 2.])
    shifted = torch.eye(4)[None].clone()
    shifted[0, 0, 3] = 10.
    # At depth d the previous pixel is u + 10 / d: depth 1 leaves the image of width 8 at u > -2.5.
    probs = stereo_cost_volume(zeros, zeros, shifted, depths, (4, 8), bias=5.)
    low = 1 / (1 + math.exp(5.))
    assert probs[0, 0, 0, 0].item() == pytest.approx(low, rel=1e-4)
    assert probs[0, 0, 0, 3].item() == pytest.approx(0.5)
    behind = torch.eye(4)[None].clone()
    behind[0, 2, 3] = -1.5
    probs = stereo_cost_volume(zeros, zeros, behind, depths, (4, 8), bias=5.)
    assert probs[0, 0, 0, 0].item() == pytest.approx(low, rel=1e-4)


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('outwards', [-1, 1])
def test_cost_volume_takes_the_image_to_end_half_a_pixel_beyond(axis, outwards):
    zeros = torch.zeros(1, 4, 4, 4)
    warp = torch.eye(4)[None].clone()
    warp[0, axis, 3] = outwards
    # Moved by 1 / d pixels: 0.6 (outside), 0.4 and 0.1 (inside) at the border it moves to.
    probs = stereo_cost_volume(zeros, zeros, warp, 1 / torch.tensor([0.6, 0.4, 0.1]), (4, 4))
    border = probs[0].select(2 - axis, -1 if outwards > 0 else 0)
    low = math.exp(-5.) / (2 + math.exp(-5.))
    assert torch.allclose(border[0], torch.full_like(border[0], low), rtol=1e-4)
    assert torch.allclose(border[1], border[2])


def test_cost_volume_at_rest_is_valid_up_to_the_border():
    feats = torch.randn(1, 8, 5, 7)
    depths = torch.tensor([1., 7.3, 30.])
    probs = stereo_cost_volume(feats, feats, torch.eye(4)[None], depths, (20, 28))
    assert torch.allclose(probs, torch.full_like(probs, 1 / 3), atol=1e-3)


def test_published_invalid_takes_true_zeros_for_outside():
    feats = torch.zeros(1, 6, 2, 2)
    feats[:, 4, :, 0] = 1.
    depths = torch.tensor([1., 2.])
    warp = torch.eye(4)[None].clone()
    warp[0, 0, 3] = 1.5
    # At depth 2 the left column reads 0.75 pixels further, at depth 1 1.5: both inside W = 4.
    ours = stereo_cost_volume(feats, feats, warp, depths, (2, 4))
    theirs = stereo_cost_volume(feats, feats, warp, depths, (2, 4), published_invalid=True)
    assert torch.allclose(ours[0, :, 0, 0].log().diff(), torch.tensor([0.25]), atol=1e-5)
    assert torch.allclose(theirs[0, :, 0, 0], ours[0, :, 0, 0], atol=1e-5)
    rest = stereo_cost_volume(feats, feats, torch.eye(4)[None], depths, (2, 4),
                              published_invalid=True)
    assert torch.allclose(rest, torch.full_like(rest, 0.5))
    # The probe is channel 4, the first of the last group: zero it and all becomes invalid.
    blank = feats.clone()
    blank[:, 4] = 0
    blank[:, 5] = 1
    cost_free = stereo_cost_volume(blank, blank, warp, depths, (2, 4), published_invalid=True)
    assert torch.allclose(cost_free[0, :, 0, 0], torch.full((2,), 0.5), atol=1e-5)
    far = torch.eye(4)[None].clone()
    far[0, 0, 3] = 8.
    probs = stereo_cost_volume(feats, feats, far, torch.tensor([1., 100.]), (2, 4),
                               published_invalid=True)
    assert probs[0, 0, 0, 0] < 1 / (1 + math.exp(5.))
    # The view transformer hands its switch on.
    current = torch.randn(1, 2, 8, 16, 24)
    previous = current.clone()
    previous[:, :, 4, :, 12:] = 0
    stereo = StereoReference(previous, current, make_rig(forward=-1.))
    volumes = [make_transformer('LSSViewTransformerBEVStereo', published_invalid=switch)
               ._cost_volume(make_rig(), stereo) for switch in (False, True)]
    assert not torch.allclose(*volumes, atol=1e-2)


def test_cost_volume_carries_no_gradient_and_names_shapes():
    feats = torch.randn(1, 4, 2, 2, requires_grad=True)
    probs = stereo_cost_volume(feats, feats, torch.eye(4)[None], torch.ones(2), (4, 4))
    assert not probs.requires_grad
    with pytest.raises(ValueError, match='warps'):
        stereo_cost_volume(feats, feats, torch.eye(4), torch.ones(2), (4, 4))
