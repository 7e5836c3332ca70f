"""Occupancy pictures: orientation, colours, hiding, and the geometry of projected voxels."""
import numpy as np
import pytest

from langocc.visualization import (
    OCC3D_PALETTE, draw_occupancy_3d, draw_occupancy_bev, draw_values_3d, draw_values_bev, look_at,
    overlay_occupancy, project, similarity_colors, visible_faces
)
from voxelrender import VoxelGrid

GRID = VoxelGrid(point_cloud_range=(-4., -6., -1., 4., 6., 3.), voxel_size=(1., 1., 1.))
FREE = np.full((8, 12, 4), 17, dtype=np.uint8)
SIZE = (64, 48)
CAM2IMG = np.array([[40., 0., 31.5], [0., 40., 23.5], [0., 0., 1.]])


def hues(picture):
    """Every pixel's colour at full brightness, to compare shaded colours."""
    picture = picture.astype(float)
    return (picture / np.maximum(picture.max(2, keepdims=True), 1) * 255).round()


def has_colour(picture, color):
    color = np.asarray(color, float)
    return (np.abs(hues(picture) - color / color.max() * 255) < 8).all(2).any()


def test_bev_puts_forward_up_and_left_left():
    semantics = FREE.copy()
    semantics[7, 11, 3] = 4  # x front, y left, top: full brightness
    picture = draw_occupancy_bev(semantics, GRID, scale=2, ego=False)
    assert picture.shape == (16, 24, 3) and picture.dtype == np.uint8
    assert (picture[:2, :2] == OCC3D_PALETTE[4]).all()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 2


def test_bev_shows_the_topmost_voxel_and_its_height():
    semantics = FREE.copy()
    semantics[2, 3, 0], semantics[2, 3, 2] = 11, 7
    semantics[5, 3, 0] = 7
    picture = draw_occupancy_bev(semantics, GRID, scale=1, ego=False)
    high, low = picture[8 - 1 - 2, 12 - 1 - 3], picture[8 - 1 - 5, 12 - 1 - 3]
    assert high[1:].tolist() == [0, 0] and low[1:].tolist() == [0, 0] and high[0] > low[0] > 100
    marked = draw_occupancy_bev(semantics, GRID, scale=4)
    assert (marked != draw_occupancy_bev(semantics, GRID, scale=4, ego=False)).any()


def test_bev_of_values_takes_the_highest_occupied():
    values = np.zeros(FREE.shape)
    occupied = np.zeros(FREE.shape, dtype=bool)
    values[1, 1] = [.2, .9, .4, np.nan]
    occupied[1, 1] = [True, False, True, True]
    picture = draw_values_bev(values, occupied, GRID, scale=1, ego=False)
    assert (picture[8 - 1 - 1, 12 - 1 - 1] == similarity_colors(np.array(.4))).all()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 2


def test_wrong_shapes_and_classes_are_errors():
    for draw in (draw_occupancy_bev, draw_occupancy_3d):
        with pytest.raises(ValueError, match=r'\(8, 12, 4\)'):
            draw(FREE[:-1], GRID)
        with pytest.raises(ValueError, match='18'):
            draw(np.full_like(FREE, 18), GRID)


def test_3d_view_has_the_asked_size_and_class_colours():
    semantics = FREE.copy()
    semantics[:, :, 0] = 11
    semantics[6, 9, 1:3] = 4
    view = dict(image_size=(160, 100), eye=(-14., 0., 9.), target=(0., 0., 0.), field_of_view=60.)
    picture = draw_occupancy_3d(semantics, GRID, **view)
    assert picture.shape == (100, 160, 3) and picture.dtype == np.uint8
    car = (np.abs(hues(picture) - [0, 156, 255]) < 8).all(2)
    assert has_colour(picture, OCC3D_PALETTE[11]) and car.any()
    assert not has_colour(picture, OCC3D_PALETTE[7])
    assert np.nonzero(car)[1].max() < 80, 'y = +3.5 lies on the left'
    assert np.nonzero(car)[0].max() < 55, 'x = +2.5 lies in the upper half'
    similar = draw_values_3d(np.ones(FREE.shape), semantics != 17, GRID, **view)
    assert has_colour(similar, similarity_colors(np.array(1.))) and similar.shape == picture.shape


def test_look_at_is_a_rotation_that_centres_its_target():
    pose = look_at((-5., 1., 3.), (2., 0., 0.))
    assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3))
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.)
    pixel, depth = project(np.array([2., 0., 0.]), CAM2IMG, pose)
    assert pixel == pytest.approx([31.5, 23.5]) and depth == pytest.approx(np.sqrt(59))
    up, _ = project(np.array([2., 0., 1.]), CAM2IMG, pose)
    left, _ = project(np.array([2., 1., 0.]), CAM2IMG, pose)
    assert up[1] < 23.5 and left[0] < 31.5


def test_one_voxel_shows_the_faces_that_turn_to_the_camera():
    occupied = np.zeros(FREE.shape, dtype=bool)
    occupied[5, 5, 1] = True  # x 1..2, y -1..0, z 0..1
    faces = visible_faces(occupied, GRID, CAM2IMG, look_at((-3.5, .5, 2.5), (1.5, -.5, .5)), SIZE)
    assert faces.cells.tolist() == [[5, 5, 1]] * 3
    straight = visible_faces(occupied, GRID, CAM2IMG, look_at((-3., -.5, .5), (1., -.5, .5)), SIZE)
    assert len(straight.cells) == 1 and straight.depths == pytest.approx([4.])
    corners = straight.polygons[0]
    assert corners.min(0) == pytest.approx([31.5 - 5, 23.5 - 5])
    assert corners.max(0) == pytest.approx([31.5 + 5, 23.5 + 5])
    behind = look_at((3., -.5, .5), (3.9, -.5, .5))
    assert len(visible_faces(occupied, GRID, CAM2IMG, behind, SIZE).cells) == 0


@pytest.mark.parametrize('seed', range(4))
def test_overlay_equals_ray_casting(seed):
    """Each pixel shows the voxel that a ray through its centre meets first."""
    rng = np.random.default_rng(seed)
    semantics = np.where(rng.random(FREE.shape) < 0.12, rng.integers(1, 17, FREE.shape),
                         17).astype(np.uint8)
    pose = look_at(rng.uniform([-12, -2, 1], [-7, 2, 6]), rng.uniform(-1, 1, 3))
    cam2img = np.diag([8., 8., 1.]) @ CAM2IMG
    drawn = overlay_occupancy(np.zeros((384, 512, 3), dtype=np.uint8), semantics, GRID, cam2img,
                              pose, alpha=1., max_depth=100.)
    agree, hit = [], []
    for v in range(20, 384, 40):
        for u in range(20, 512, 40):
            ray = pose[:3, :3] @ np.linalg.inv(cam2img) @ [u, v, 1.]
            label = first_hit(semantics, pose[:3, 3], ray)
            agree.append(explains(drawn[v, u], label))
            hit.append(label != 17)
    # What is left are pixels on the border of two faces.
    assert np.mean(agree) > 0.97 and np.mean(hit) > 0.2


def first_hit(semantics, origin, direction):
    """Class of the first occupied voxel along a ray, by small steps; 17 = none."""
    points = origin + np.linspace(0., 30., 6000)[:, None] * direction / np.linalg.norm(direction)
    cells = np.floor(points - GRID.point_cloud_range[:3]).astype(int)
    inside = ((cells >= 0) & (cells < FREE.shape)).all(1)
    labels = semantics[tuple(cells[inside].T)]
    return int(labels[labels != 17][0]) if (labels != 17).any() else 17


def explains(color, label):
    """Whether a drawn colour is some shade of the class's (black: none)."""
    if label == 17 or not color.any():
        return label == 17 and not color.any()
    full = OCC3D_PALETTE[label].astype(float)
    return bool(np.abs(color / color.max() - full / full.max()).max() < 0.03)


def test_overlay_leaves_the_rest_of_the_image_and_far_voxels_alone():
    semantics = FREE.copy()
    semantics[7, 5, 1] = 7
    image = np.full((48, 64, 3), 100, dtype=np.uint8)
    pose = look_at((-3., -.5, .5), (1., -.5, .5))
    drawn = overlay_occupancy(image, semantics, GRID, CAM2IMG, pose, alpha=0.5)
    changed = (drawn != image).any(2)
    assert changed[24, 32] and not changed[:10].any() and (image == 100).all()
    assert drawn[24, 32, 0] == pytest.approx(50 + 0.5 * 255 * 0.72, abs=2)
    assert drawn[24, 32, 1] == 50
    near_only = overlay_occupancy(image, semantics, GRID, CAM2IMG, pose, max_depth=5.)
    assert (near_only == image).all()
