"""Rays cast through labels: exact distances and classes, in the frames that they are in."""
import numpy as np
import pytest
import torch

from langocc.visualization import camera_rays, cast_rays, label_camera_views, ring_order
from voxelrender import VoxelGrid

GRID = VoxelGrid(point_cloud_range=(-10., -10., -1., 10., 10., 3.), voxel_size=(1., 1., 1.))
FREE, CAR, WALL = 17, 4, 15
AHEAD = np.array([[0., 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # camera -> ego


def yaw(degrees):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def at(x, y, z):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def rig(pose=np.eye(4), **yaws):
    """Info of cameras at (0, 0.5, 0.5) whose centre pixel (10, 5) looks along their yaw."""
    image = dict(cam2img=[[10., 0, 10], [0, 10., 5], [0, 0, 1]], ego2global=pose, width=21,
                 height=11)
    images = {name: dict(image, cam2ego=at(0, 0.5, 0.5) @ yaw(angle) @ AHEAD)
              for name, angle in yaws.items()}
    return dict(token='t', camera_names=list(images), images=images, ego2global=pose,
                key_ego2global=pose)


def volume(**voxels):
    semantics = np.full(GRID.grid_shape, FREE, np.uint8)
    for label, cells in voxels.items():
        for cell in cells:
            semantics[cell] = dict(car=CAR, wall=WALL)[label]
    return semantics


def test_one_voxel_ahead_gives_its_distance_and_class():
    # Cell (16, 10, 1) spans x in [6, 7), y in [0, 1), z in [0, 1): the camera looks at its middle.
    semantics = volume(car=[(16, 10, 1)], wall=[(18, 10, 1)])
    maps = label_camera_views(semantics, GRID, rig(FRONT=0., BACK=180.), width=21)
    front, back = maps['FRONT'], maps['BACK']
    assert front.distances.shape == (11, 21) and front.distances.dtype == np.float32
    assert front.distances[5, 10] == pytest.approx(6., abs=1e-6)
    assert front.classes[5, 10] == CAR and front.opacities[5, 10] == 1
    # The face subtends +-0.5 / 6 of the focal length, less than a pixel; the wall is hidden.
    assert (front.classes != FREE).sum() == 1
    assert np.isnan(front.distances[5, 9]) and front.opacities[5, 9] == 0
    assert (back.classes == FREE).all() and np.isnan(back.distances).all()


def test_distance_is_along_the_ray_not_depth():
    wall = volume(wall=[(16, y, z) for y in range(20) for z in range(4)])
    maps = label_camera_views(wall, GRID, rig(FRONT=0.), width=21)['FRONT']
    ray = np.array([1., -(13 - 10) / 10, 0.])  # pixel 13 looks 3 / 10 to the right
    assert maps.distances[5, 13] == pytest.approx(6 * np.linalg.norm(ray), abs=1e-5)


def test_left_is_left_and_up_is_up():
    semantics = volume(car=[(14, 12, 1)], wall=[(14, 10, 2)])  # y = 2.5, and z = 1.5
    classes = label_camera_views(semantics, GRID, rig(FRONT=0.), width=21)['FRONT'].classes
    assert np.argwhere(classes == CAR)[:, 1].max() < 10
    assert np.argwhere(classes == WALL)[:, 0].max() < 5


def test_a_ray_that_starts_inside_meets_at_once_and_far_things_are_not_seen():
    inside = label_camera_views(volume(car=[(10, 10, 1)]), GRID, rig(FRONT=0.), width=21)['FRONT']
    assert (inside.distances == 0).all() and (inside.classes == CAR).all()
    ahead = volume(car=[(16, 10, 1)])
    for far, seen in ((6.1, 1), (5.9, 0)):
        maps = label_camera_views(ahead, GRID, rig(FRONT=0.), 21, max_distance=far)['FRONT']
        assert maps.opacities.sum() == seen


def test_poses_and_augmentation_place_the_rays():
    info = rig(at(100., 50., 3.) @ yaw(40), FRONT=0.)
    semantics = volume(car=[(16, 10, 1)])
    assert label_camera_views(semantics, GRID, info, 21)['FRONT'].distances[5, 10] == \
        pytest.approx(6., abs=1e-4)
    # The car moved 2 m ahead between the camera's time and the labels'.
    moved = dict(info, ego2global=info['ego2global'] @ at(2., 0, 0))
    assert label_camera_views(semantics, GRID, moved, 21)['FRONT'].distances[5, 10] == \
        pytest.approx(8., abs=1e-4)
    assert label_camera_views(semantics, GRID, moved, 21, ego_key='key_ego2global')[
        'FRONT'].distances[5, 10] == pytest.approx(6., abs=1e-4)
    flip = torch.diag(torch.tensor([1., -1., 1., 1.]))
    flipped = label_camera_views(semantics[:, ::-1], GRID, info, 21, bev_aug_matrix=flip)['FRONT']
    assert flipped.distances[5, 10] == pytest.approx(6., abs=1e-4)


def test_rays_on_faces_and_edges_are_deterministic():
    """Along a face's plane a ray is in the upper voxel, as floor says; at a corner it goes on."""
    occupied = volume(car=[(16, 10, 1)]) != FREE
    forward = np.array([[1., 0., 0.]])
    assert cast_rays(occupied, GRID, np.array([[0., 0., 0.]]), forward).distances[0] == 6
    missed = cast_rays(occupied, GRID, np.array([[0., 1., 0.]]), forward)
    assert missed.cells[0].tolist() == [-1, -1, -1]
    assert cast_rays(occupied, GRID, np.array([[-20., .5, .5]]), forward).distances[0] == 26
    assert np.isinf(cast_rays(occupied, GRID, np.array([[20., .5, .5]]), forward).distances[0])
    none = cast_rays(occupied, GRID, np.zeros((0, 3)), np.zeros((0, 3)))
    assert none.distances.shape == (0,) and none.cells.shape == (0, 3)


def test_rays_cover_the_image_and_cameras_stand_in_a_ring():
    info = rig(BACK=180., RIGHT=-60., FRONT=0., LEFT=60., BACK_RIGHT=-120., BACK_LEFT=120.)
    assert ring_order(info) == ['BACK_LEFT', 'LEFT', 'FRONT', 'RIGHT', 'BACK_RIGHT', 'BACK']
    rays, shape = camera_rays(info, 'FRONT', 42)  # half pixels: no centre coincides
    assert shape == (22, 42) and len(rays) == 22 * 42
    middle = rays.directions.view(*shape, 3)
    # Columns 20 and 21 lie a quarter of a pixel left and right of the centre.
    assert (middle[0, 20, 1] / middle[0, 20, 0]).item() == pytest.approx(0.25 / 10, abs=1e-6)
    assert (middle[0, 21, 1] / middle[0, 21, 0]).item() == pytest.approx(-0.25 / 10, abs=1e-6)


def test_what_does_not_fit_is_named():
    occupied = np.zeros(GRID.grid_shape, bool)
    with pytest.raises(ValueError, match=r'\(3, 3, 3\)'):
        cast_rays(np.zeros((3, 3, 3), bool), GRID, np.zeros((1, 3)), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r'\(2, 3\)'):
        cast_rays(occupied, GRID, np.zeros((1, 3)), np.ones((2, 3)))
    with pytest.raises(KeyError, match='SIDE'):
        camera_rays(rig(FRONT=0.), 'SIDE', 10)
    with pytest.raises(ValueError, match='0'):
        camera_rays(rig(FRONT=0.), 'FRONT', 0)
