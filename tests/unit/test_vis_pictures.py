"""Overlays, legends, grids of pictures, PLY and curves."""
import json

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from langocc.visualization import (
    OCC3D_PALETTE, class_colors, class_legend, colour_bar, distance_colors, draw_curves,
    overlay_heat, overlay_points, picture_grid, points_on_bev, present_classes, read_scalars,
    resize_picture, save_picture, similarity_colors, trailing_mean, with_caption, write_ply
)
from voxelrender import VoxelGrid


def grey(height=20, width=30):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def test_palette_has_18_different_colours_and_rejects_other_labels():
    assert OCC3D_PALETTE.shape == (18, 3) and len(np.unique(OCC3D_PALETTE, axis=0)) == 18
    assert class_colors(np.array([[4, 17]])).tolist() == [[[0, 150, 245], [255, 255, 255]]]
    with pytest.raises(ValueError, match='18'):
        class_colors(np.array([18]))
    assert present_classes(np.array([4, 17, 4, 1])) == (1, 4)


def test_colours_clamp_and_mark_what_is_unknown():
    colors = distance_colors(np.array([0., -5., 40., 400., np.nan]), 0., 40.)
    assert (colors[0] == colors[1]).all() and (colors[2] == colors[3]).all()
    assert (colors[0] != colors[2]).any() and colors[4].tolist() == [128] * 3
    brightness = similarity_colors(np.linspace(0, 1, 20)).astype(int).sum(1)
    assert (np.diff(brightness) > 0).all()


def test_points_are_drawn_at_their_pixel_and_near_ones_last():
    image = grey()
    pixels = np.array([[5.4, 7.6], [10., 3.], [10., 3.], [-1., 2.], [29.6, 2.], [2., 2.]])
    depths = np.array([10., 4., 30., 5., 5., -3.])
    drawn = overlay_points(image, pixels, depths, radius=0)
    rows, columns = np.nonzero((drawn != image).any(2))
    assert sorted(zip(rows.tolist(), columns.tolist())) == [(3, 10), (8, 5)]
    assert (drawn[8, 5] == distance_colors(np.array(10.))).all()
    assert (drawn[3, 10] == distance_colors(np.array(4.))).all()
    assert (image == 128).all(), 'the input must not change'
    near_wins = overlay_points(image, np.array([[10., 3.], [11., 3.]]), np.array([30., 4.]), 2)
    assert (near_wins[3, 9:14] == distance_colors(np.array(4.))).all()
    assert overlay_points(image, np.zeros((0, 2)), np.zeros(0)).shape == image.shape


def test_points_take_given_colours():
    colors = np.array([[1, 2, 3]], dtype=np.uint8)
    drawn = overlay_points(grey(), np.array([[0., 0.]]), np.array([1.]), 0, colors=colors)
    assert drawn[0, 0].tolist() == [1, 2, 3]


def test_heat_covers_the_image_and_unknown_shows_it():
    image = grey()
    heat = np.array([[0., 1.], [np.nan, np.nan]])
    drawn = overlay_heat(image, heat, alpha=1.)
    assert drawn.shape == image.shape
    assert (drawn[0, 0] == similarity_colors(np.array(0.))).all()
    assert (drawn[0, -1] == similarity_colors(np.array(1.))).all()
    assert (drawn[-1] == 128).all()
    assert (overlay_heat(image, heat, alpha=0.) == image).all()
    half = overlay_heat(image, np.ones((2, 2)), alpha=np.array([[1., 0.], [1., 0.]]))
    assert (half[0, 0] == similarity_colors(np.array(1.))).all() and (half[0, -1] == 128).all()
    with pytest.raises(ValueError, match='alpha'):
        overlay_heat(image, heat, alpha=np.ones((3, 3)))


def test_pictures_are_put_together_without_being_cut(tmp_path):
    red = np.zeros((10, 20, 3), dtype=np.uint8)
    red[..., 0] = 255
    grid = picture_grid([[red, red], [with_caption(grey(), 'caption', 12)]], gap=4)
    assert grid.shape == (4 + 10 + 4 + 42 + 4, 4 + 2 * 24, 3)
    assert (grid == red[0, 0]).all(2).sum() == 400
    with pytest.raises(ValueError, match='rows'):
        picture_grid([[]])
    assert resize_picture(grey(20, 30), 60).shape == (40, 60, 3)
    save_picture(tmp_path / 'new' / 'a.png', grid)
    assert (np.array(Image.open(tmp_path / 'new' / 'a.png')) == grid).all()
    with pytest.raises(ValueError, match='uint8'):
        save_picture(tmp_path / 'b.png', grid / 255.)
    assert [p.name for p in tmp_path.rglob('*') if p.is_file()] == ['a.png']


def test_legend_shows_what_occurs_and_wraps():
    labels = np.array([4, 17, 11])
    wide, narrow = class_legend(labels, 400), class_legend(labels, 120)
    assert wide.shape[1] == 400 and narrow.shape[0] > wide.shape[0]
    for legend in (wide, narrow):
        for label, shown in ((4, True), (11, True), (16, False)):
            assert (legend == OCC3D_PALETTE[label]).all(2).any() == shown
    bar = colour_bar(300, 0., 40., 'm', 'turbo')
    assert bar.shape[1] == 300 and len(np.unique(bar.reshape(-1, 3), axis=0)) > 50


def test_points_from_above_lie_where_they_are():
    grid = VoxelGrid(point_cloud_range=(-4., -4., -1., 4., 4., 1.), voxel_size=(1., 1., 1.))
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    points = np.array([[3.9, 3.9, 0.], [-3.9, -3.9, 0.], [0.1, -3.9, 0.], [5., 0., 0.]])
    drawn = points_on_bev(picture, points, grid, scale=2)
    rows, columns = np.nonzero(drawn.any(2))
    # x points up and y to the left.
    assert sorted(zip(rows.tolist(), columns.tolist())) == [(0, 0), (7, 15), (15, 15)]
    assert not picture.any()
    assert points_on_bev(picture, points, grid, scale=2, color=None).any()


def test_ply_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 3))
    colors = rng.integers(0, 256, (7, 3)).astype(np.uint8)
    values = dict(similarity=rng.random(7), label=np.arange(7, dtype=np.int32),
                  kind=np.arange(7, dtype=np.uint8))
    path = tmp_path / 'deep' / 'a.ply'
    write_ply(path, points, colors, values)
    assert b'format binary_little_endian 1.0' in path.read_bytes()
    vertex = PlyData.read(str(path))['vertex']
    assert np.array_equal(np.stack([vertex[n] for n in 'xyz'], 1), points.astype(np.float32))
    read = np.stack([vertex[n] for n in ('red', 'green', 'blue')], 1)
    assert np.array_equal(read, colors) and read.dtype == np.uint8
    for name, dtype in (('similarity', 'f4'), ('label', 'i4'), ('kind', 'u1')):
        assert np.array_equal(vertex[name], values[name].astype(dtype))
        assert vertex[name].dtype == np.dtype(dtype)
    write_ply(path, np.zeros((0, 3)))
    assert len(PlyData.read(str(path))['vertex'].data) == 0
    assert [p.name for p in tmp_path.rglob('*') if p.is_file()] == ['a.ply']


@pytest.mark.parametrize('points, colors, values, message', [
    (np.zeros((3, 2)), None, None, r'\(3, 2\)'),
    (np.zeros((3, 3)), np.zeros((3, 3)), None, 'uint8'),
    (np.zeros((3, 3)), np.zeros((2, 3), dtype=np.uint8), None, r'\(2, 3\)'),
    (np.zeros((3, 3)), None, dict(score=np.zeros(2)), 'score'),
    (np.zeros((3, 3)), None, {'two words': np.zeros(3)}, 'two words'),
    (np.zeros((3, 3)), None, {'x': np.zeros(3)}, "'x'"),
])
def test_ply_rejects_what_does_not_fit(tmp_path, points, colors, values, message):
    with pytest.raises(ValueError, match=message):
        write_ply(tmp_path / 'a.ply', points, colors, values)
    assert not list(tmp_path.iterdir())


def log(work_dir, time, lines):
    file = work_dir / time / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(json.dumps(line) for line in lines) + '\n')
    return file


def test_curves_of_a_resumed_run_replace_repeated_steps(tmp_path):
    log(tmp_path, '20260101_000000', [dict(loss=3., lr=.1, iter=1, step=1, time=2.),
                                      dict(loss=2., lr=.1, iter=2, step=2, time=2.)])
    log(tmp_path, '20260102_000000', [dict(loss=9., lr=.1, iter=2, step=2),
                                      dict(geo_IoU=float('nan'), step=1)])
    curves = read_scalars(tmp_path)
    assert curves['loss'][0].tolist() == [1., 2.] and curves['loss'][1].tolist() == [3., 9.]
    assert set(curves) == {'loss', 'lr', 'geo_IoU'}
    picture = draw_curves(dict(a=curves, b={'loss': curves['loss']}), smooth=2, dpi=50)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert picture.shape[1] == pytest.approx(2 * 4.2 * 50, abs=2)
    for color in ([31, 119, 180], [255, 127, 14]):  # matplotlib's first two
        assert (np.abs(picture.astype(int) - color).sum(2) < 30).any()
    with pytest.raises(KeyError, match='depth'):
        draw_curves(dict(a=curves), keys=['depth'])


def test_a_loss_that_falls_by_far_is_no_flat_line():
    steps = np.arange(40.)
    falling = dict(loss_a=(steps, np.where(steps < 2, 2., 1e-3 + 1e-3 * (steps % 2))))

    def rows(curves):
        blue = np.abs(draw_curves(dict(a=curves), dpi=50).astype(int) - [31, 119, 180]).sum(2) < 90
        return np.flatnonzero(blue[:, 60:180].any(1))  # in the middle of the panel

    assert len(rows(falling)) > 5
    falling['loss_a'][1][5] = 0.  # no logarithm
    assert len(rows(falling)) < 4


def test_curves_name_a_bad_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json'):
        read_scalars(tmp_path)
    file = log(tmp_path, 't', [dict(loss=1., step=1)])
    file.write_text(file.read_text() + '{"loss": 2')
    with pytest.raises(ValueError, match='scalars.json:2'):
        read_scalars(tmp_path)


def test_trailing_mean():
    values = np.array([1., 3., 5., 7.])
    assert trailing_mean(values, 2).tolist() == [1., 2., 4., 6.]
    assert trailing_mean(values, 10).tolist() == [1., 2., 3., 4.]
