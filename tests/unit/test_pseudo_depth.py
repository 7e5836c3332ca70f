"""Pseudo-depth of a synthetic set, on a world of a road and two boxes: truth, errors, restarts."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plain_world import PlainWorld, Solid

from langocc.datasets.depth_maps import ray_lengths
from langocc.synthetic import frames
from langocc.synthetic.frames import make_frame, open_scene, read_record
from langocc.synthetic.pseudo_depth import DepthErrors, estimate_depth, write_pseudo_depth
from langocc.synthetic.records import Settings
from langocc.synthetic.rig import CAMERAS, camera_intrinsics, sensor_to_ego
from langocc.synthetic.writer import claim_folder

SETTINGS = Settings(scenes_train=1, scenes_val=0, frames=1, image_size=(64, 36))
NONE = DepthErrors(stride=1., bleed=0., scale=0., bend=0., noise=0.)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    def make_world(seed, index):
        return PlainWorld([Solid((16., -4., .8), (4.4, 1.9, 1.6), 4, object_id=5, speed=4.),
                           Solid((30., 12., 3.), (60., 2., 6.), 15)], length=8.)

    open_scene.cache_clear()
    monkeypatch.setattr(frames, 'make_world', make_world)
    claim_folder(tmp_path / 'set', SETTINGS)
    make_frame(tmp_path / 'set', SETTINGS.scenes()[0], 0)
    yield tmp_path / 'set'
    open_scene.cache_clear()


def maps(root):
    return {path.stem: np.array(Image.open(path)) / 256
            for path in (root / 'pseudo_depth').glob('*.png')}


def test_without_errors_it_is_the_z_depth_of_the_picture(root):
    done = write_pseudo_depth(root, errors=NONE)
    assert done['images'] == 6 and done['abs_rel'] < 1e-9 and done['delta1'] == 1
    scene, = SETTINGS.scenes()
    world, drive = open_scene(scene)
    record, found = read_record(root, scene, 0), maps(root)
    v, u = np.mgrid[:36, :64].reshape(2, -1)
    for channel in CAMERAS:
        sensor = record['sensors'][channel]
        time = (sensor['timestamp'] - scene.timestamp(0.)) / 1e6
        cam2img = camera_intrinsics(channel, SETTINGS.image_size)
        view = world.at(time).render(cam2img, drive.pose(time) @ sensor_to_ego(channel), (64, 36))
        truth = view.distances / ray_lengths(np.stack([u, v], 1), cam2img).reshape(36, 64)
        known = truth <= 80
        np.testing.assert_allclose(found[sensor['token']][known], truth[known], atol=2 / 256)
        assert not found[sensor['token']][~known].any() and known.any() and not known.all()


def test_errors_are_as_stated():
    truth = np.full((30, 50), 20.)
    errors = DepthErrors(far=1000.)
    logs = np.stack([np.log(estimate_depth(truth, np.random.default_rng(seed), errors) / 20)
                     for seed in range(300)])
    assert abs(logs.mean()) < 0.01
    assert logs.std() == pytest.approx(np.sqrt(.06**2 + .06**2 + .01**2), rel=0.1)
    steps = np.diff(logs, axis=2)
    assert steps.std() < 0.03  # it bends smoothly
    edge = np.where(np.arange(50) < 25, 10., 40.) * np.ones((30, 1))
    edge[:10] = np.inf
    only = DepthErrors(scale=0., bend=0., noise=0., far=80.)
    bled = estimate_depth(edge, np.random.default_rng(0), only)
    assert 10.5 < bled[20, 25] < 38 and bled[20, 5] == pytest.approx(10) and bled[0, 5] == 0
    assert 10 < bled[9, 5] < 80  # a rim of the sky is taken for something


def test_it_goes_on_where_it_was_and_minds_what_is_there(root, tmp_path):
    write_pseudo_depth(root)
    expected = maps(root)
    next((root / 'pseudo_depth').glob('*.png')).unlink()
    ticks = []
    done = write_pseudo_depth(root, progress=ticks.append)
    assert done['images'] == 1 and ticks == [1]
    again = maps(root)
    assert all((again[token] == expected[token]).all() for token in expected)
    assert write_pseudo_depth(root)['images'] == 0
    with pytest.raises(ValueError, match='maps of other errors'):
        write_pseudo_depth(root, errors=NONE)
    with pytest.raises(ValueError, match=r"splits \['test'\] are unknown"):
        write_pseudo_depth(root, splits=('test',))
    with pytest.raises(FileNotFoundError, match='no set of make_synthetic.py'):
        write_pseudo_depth(tmp_path)
    settings = json.loads((root / 'synthetic.json').read_text())
    (root / 'synthetic.json').write_text(json.dumps(dict(settings, generator_version=0)))
    with pytest.raises(ValueError, match='generator 0, this is'):
        write_pseudo_depth(root)
