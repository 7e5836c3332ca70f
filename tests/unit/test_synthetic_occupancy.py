"""Occupancy labels and masks of the synthetic writer against naive traversal."""
import numpy as np
import pytest
from plain_world import CAR, ROAD, PlainWorld, Solid

from langocc.occ3d import FREE_CLASS, OCC3D_RANGE
from langocc.synthetic.occupancy import (
    GRID_SHAPE, GridSpec, label_voxels, mark_observed, pixel_rays, pixel_stride
)
from langocc.synthetic.rig import camera_intrinsics

SMALL = GridSpec(low=(-2., -1., -0.4), shape=(10, 8, 5), voxel_size=0.4)


def naive_mask(origin, directions, distances, grid):
    """Every voxel whose box the segment crosses over a length, by clipping against its faces."""
    mask = np.zeros(grid.shape, bool)
    sure = np.ones(grid.shape, bool)
    low = np.array(grid.low)
    for index in np.ndindex(*grid.shape):
        box = low + np.array(index) * grid.voxel_size
        for direction, length in zip(directions, distances):
            enter, leave = 0., length
            for axis in range(3):
                faces = box[axis] - origin[axis], box[axis] + grid.voxel_size - origin[axis]
                if direction[axis] == 0:
                    if not faces[0] <= 0 < faces[1]:
                        leave = -np.inf
                    continue
                near, far = sorted(face / direction[axis] for face in faces)
                enter, leave = max(enter, near), min(leave, far)
            mask[index] |= leave >= enter
            sure[index] &= abs(leave - enter) > 1e-9  # rounding decides at corners
    return mask, sure


@pytest.mark.parametrize('origin', [(0.1, 0.3, 0.5), (-5., -3., 3.), (0.05, 0., 1.9)])
def test_traversal_is_exact(origin):
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(60, 3))
    directions[:6] = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, -1], [0, -1, 0], [0, 0, 1]]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances = rng.uniform(0.01, 6., 60)
    distances[::5] = np.inf
    for rays in (slice(0, 6), slice(6, 60), *(slice(i, i + 1) for i in range(10))):
        mask = np.zeros(SMALL.shape, np.uint8)
        mark_observed(mask, origin, directions[rays], distances[rays], SMALL)
        expected, sure = naive_mask(np.array(origin), directions[rays], distances[rays], SMALL)
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(mask.astype(bool)[sure], expected[sure])


def test_a_ray_ends_in_the_voxel_of_its_hit():
    mask = np.zeros(SMALL.shape, np.uint8)
    mark_observed(mask, (-1.9, -0.9, -0.3), np.array([[1., 0, 0]]), np.array([1.0]), SMALL)
    assert np.flatnonzero(mask[:, 0, 0]).tolist() == [0, 1, 2] and mask.sum() == 3
    with pytest.raises(ValueError, match=r'mask has shape \(2, 2, 2\), the grid \(10, 8, 5\)'):
        mark_observed(np.zeros((2, 2, 2), np.uint8), (0, 0, 0), np.eye(3), np.ones(3), SMALL)


def test_no_rays_and_rays_that_miss_mark_nothing():
    mask = np.zeros(SMALL.shape, np.uint8)
    mark_observed(mask, (0, 0, 0), np.zeros((0, 3)), np.zeros(0), SMALL)
    mark_observed(mask, (0, 0, 9.), np.array([[0, 0, 1.], [1., 0, 0]]), np.full(2, np.inf), SMALL)
    mark_observed(mask, (-9, 0, 0.), np.array([[1., 0, 0]]), np.array([6.9]), SMALL)
    assert not mask.any()


def test_labels_are_in_the_key_ego_frame():
    """A car 10 m ahead and 3 m to the left of the ego is there in the grid, whatever the pose."""
    assert GridSpec().shape == GRID_SHAPE
    world = PlainWorld([Solid((13., 3., 0.8), (4., 2., 1.6), CAR, object_id=1)])
    labels = label_voxels(world.at(0.), world.pose(3.))
    assert labels.shape == GRID_SHAPE and labels.dtype == np.uint8
    centers = GridSpec().centers().reshape(*GRID_SHAPE, 3)
    np.testing.assert_allclose(centers[0, 0, 0], np.array(OCC3D_RANGE[:3]) + 0.2)
    np.testing.assert_allclose(centers[-1, -1, -1], np.array(OCC3D_RANGE[3:]) - 0.2)
    cars = centers[labels == CAR]
    np.testing.assert_allclose(cars.mean(axis=0)[:2], [10, 3], atol=0.21)
    assert (labels[centers[..., 2] < -0.5] == FREE_CLASS).all()
    assert (labels[..., 2] == np.where(labels[..., 2] == CAR, CAR, ROAD)).all()


def test_pixel_rays_are_dense_enough_at_40_m():
    for size in ((400, 225), (1600, 900)):
        for channel in ('CAM_FRONT', 'CAM_BACK'):
            cam2img = camera_intrinsics(channel, size)
            assert 40 * pixel_stride(cam2img) / cam2img[0, 0] <= 0.4 / np.sqrt(2) * 1.02
    assert pixel_stride(camera_intrinsics('CAM_FRONT', (160, 90))) == 1


def test_pixel_rays_are_those_of_pixel_centres():
    cam2img = camera_intrinsics('CAM_FRONT', (800, 450))
    distances = np.random.default_rng(0).uniform(1, 9, (450, 800))
    cam2key = np.eye(4)
    cam2key[:3, 3] = [1, 2, 3]
    origin, directions, lengths = pixel_rays(distances, cam2img, cam2key)
    stride = pixel_stride(cam2img)
    assert stride > 1 and np.array_equal(origin, [1, 2, 3])
    pixels = directions @ cam2img.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-9)
    u, v = np.round(pixels).astype(int).T
    assert (u % stride == 0).all() and np.array_equal(lengths, distances[v, u])


def test_a_wall_hides_what_is_behind_it():
    """Seen from pixels: free before the wall, the wall's front, nothing in or behind it."""
    world = PlainWorld([Solid((10., 0., 2.), (2., 30., 8.), 15)])
    pose = world.pose(0.)
    cam2key = np.eye(4)
    cam2key[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    cam2key[:3, 3] = [0, 0, 1.5]
    cam2img = camera_intrinsics('CAM_FRONT', (400, 225))
    view = world.at(0.).render(cam2img, pose @ cam2key, (400, 225))
    mask = np.zeros(GRID_SHAPE, np.uint8)
    mark_observed(mask, *pixel_rays(view.distances, cam2img, cam2key))
    labels, row = label_voxels(world.at(0.), pose), 100
    x = GridSpec().centers().reshape(*GRID_SHAPE, 3)[:, 0, 0, 0]
    at_eye = mask[:, row, 6]  # z = 1.4 ... 1.8
    np.testing.assert_array_equal(at_eye.astype(bool), (x > 0) & (x < 9.2))
    assert labels[at_eye.astype(bool), row, 6][-1] == 15
    assert (labels[at_eye.astype(bool), row, 6][:-1] == FREE_CLASS).all()
