"""Rays of several sources in one bundle."""
import numpy as np
import pytest
from mmdet3d.registry import TASK_UTILS
from test_rays_sources import RNG, make_info, make_results

from langocc.datasets.mixed_source import MixedSource
from langocc.datasets.ray_sources import CameraPixelSource, LidarPixelSource
from langocc.teachers.class_names import ClassNames

# In front of camera A, apart by more than a pixel.
POINTS = [(10., y, z) for y in np.linspace(-5, 5, 8) for z in (-1.5, -1., -0.5)]


class Labelled(LidarPixelSource):
    """LiDAR pixels, all of the class 'car'."""

    def __init__(self):
        super().__init__()
        self.labels = ClassNames(['road', 'car'], owner='test')

    def _columns(self, info, num_points):
        return [np.ones(num_points, dtype=np.int64)]


@pytest.fixture
def results(tmp_path):
    return make_results([make_info(tmp_path, 'k', POINTS), make_info(tmp_path, 'n', POINTS)])


def test_each_source_draws_its_part(results):
    source = TASK_UTILS.build(dict(
        type='MixedSource', shares=[0.25, 0.75],
        sources=[dict(type='LidarPixelSource'), dict(type='CameraPixelSource')]))
    draw = source.draw(results, 40, RNG(0))
    assert len(draw) == 40 and draw.classes is None
    assert (np.isfinite(draw.distances) == (np.arange(40) < 10)).all()
    info = results['ray_frames'][0]['info']
    seen = np.concatenate([pixels for pixels, _ in LidarPixelSource().visible_points(info, 'AB')])
    assert all((seen == pixel.astype(np.float32)).all(axis=1).any() for pixel in draw.pixels[:10])
    assert (draw.pixels[10:] % 1 == 0).all() and set(draw.frames[10:]) == {0, 1}
    rays = source(results, 40, RNG(0))
    assert len(rays) == 40 and np.isfinite(rays.targets['distances'].numpy()).sum() == 10


def test_the_last_source_draws_what_others_are_short_of(results):
    num_points = sum(len(pixels) for frame in results['ray_frames']
                     for pixels, _ in LidarPixelSource().visible_points(frame['info'], 'AB'))
    source = MixedSource([LidarPixelSource(), CameraPixelSource()], [0.9, 0.1])
    draw = source.draw(results, 200, RNG(0))
    assert 0 < num_points < 180 and len(draw) == 200
    assert np.isfinite(draw.distances).sum() == num_points
    assert len(source.draw(results, 0, RNG(0))) == 0


def test_sources_without_classes_leave_them_unknown(results):
    source = MixedSource([CameraPixelSource(), Labelled()], [0.5, 0.5])
    assert source.labels.class_names == ('road', 'car')
    draw = source.draw(results, 20, RNG(0))
    assert draw.classes.dtype == np.int64
    assert draw.classes.tolist() == [-1] * 10 + [1] * 10


@pytest.mark.parametrize('sources, shares, message', [
    ([], [], '0 sources and 0 shares'),
    ([CameraPixelSource()], [0.5, 0.5], '1 sources and 2 shares'),
    ([CameraPixelSource(), LidarPixelSource()], [0.5, 0.4], r'shares are \[0.5, 0.4\]'),
    ([CameraPixelSource(), LidarPixelSource()], [1.5, -0.5], 'greater than 0'),
    ([Labelled(), Labelled()], [0.5, 0.5], r"\['Labelled', 'Labelled'\] have classes"),
])
def test_settings_that_do_not_fit_are_named(sources, shares, message):
    with pytest.raises(ValueError, match=message):
        MixedSource(sources, shares)
