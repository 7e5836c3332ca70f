"""The error model of the synthetic teacher: what it gets wrong, where, and the same way again."""
import hashlib

import numpy as np
import pytest
import torch
from mmengine.config import Config
from street_views import SIZE, camera_at, render

from langocc.occ3d import OCC3D_CLASSES
from langocc.synthetic.confusions import CONFUSIONS, THINGS, Confusion
from langocc.synthetic.region_noise import RegionNoise
from langocc.synthetic.teacher import (
    SKY, SYNTHETIC_CLASSES, SYNTHETIC_DYNAMIC, SYNTHETIC_PROMPTS, Camera, TeacherErrors,
    teacher_probabilities, write_teacher
)
from langocc.teachers import OfflineTextEncoder, ProbabilityTeacher

CLEAN = TeacherErrors.none()
CAR, TRUCK, ROAD, MANMADE = (OCC3D_CLASSES.index(name) for name in
                             ('car', 'truck', 'driveable_surface', 'manmade'))


def say(classes, objects=None, distances=None, seed=0, scene_seed=0, camera=None, errors=CLEAN):
    objects = np.full(classes.shape, -1, np.int32) if objects is None else objects
    distances = np.full(classes.shape, 10.) if distances is None else distances
    return teacher_probabilities(classes, objects, distances, np.random.default_rng(seed),
                                 scene_seed, camera or camera_at(0), errors)


def at_pixels(probs, size):
    """Most probable class of the patch that each pixel lies in, (H, W)."""
    best = probs[:-1].argmax(0)
    height, width = size
    rows = ((np.arange(height) + 0.5) * best.shape[0] / height).astype(int)
    return best[rows][:, ((np.arange(width) + 0.5) * best.shape[1] / width).astype(int)]


@pytest.fixture(scope='module')
def views():
    """(camera, classes, objects, distances) of six images of the test street."""
    cameras = [camera_at(x, yaw=yaw) for x in (0, 6) for yaw in (0, .6, -.6)]
    return [(camera, *render(camera)) for camera in cameras]


@pytest.fixture(scope='module')
def confusion(views):
    """(18, 18) pixels by true and seen class, over five seeds."""
    matrix = np.zeros(18 * 18)
    for seed in range(5):
        for camera, classes, objects, distances in views:
            probs = say(classes, objects, distances, seed, seed, camera, TeacherErrors())
            true = np.where(classes == SKY, 17, classes)
            pairs = true.astype(int) * 18 + at_pixels(probs, classes.shape)
            matrix += np.bincount(pairs.ravel(), minlength=18 * 18)
    return matrix.reshape(18, 18)


def test_accuracy_is_a_real_segmenters(confusion):
    right = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
    assert 0.78 < np.trace(confusion) / confusion.sum() < 0.87
    name = SYNTHETIC_CLASSES.index
    assert right[name('driveable_surface')] > 0.85 and right[name('car')] > 0.75
    small = right[[name(word) for word in ('bicycle', 'motorcycle', 'traffic_cone', 'barrier')]]
    assert small.max() < 0.75 < right[name('car')]
    assert right[name('truck')] < right[name('car')]


def test_mistakes_follow_the_table(confusion):
    name = SYNTHETIC_CLASSES.index
    assert confusion[name('truck'), name('bus')] > confusion[name('truck'), name('terrain')]
    for word, other in (('sidewalk', 'driveable_surface'), ('terrain', 'vegetation'),
                        ('vegetation', 'manmade')):
        row = confusion[name(word)].copy()
        row[name(word)] = 0
        assert row.argmax() == name(other), word


@pytest.mark.parametrize('value', [*range(1, 17), SKY])
def test_an_image_of_one_class_gives_that_class(value):
    classes = np.full((225, 400), value, np.uint8)
    probs = say(classes)
    assert probs.shape == (19, 28, 50) and probs.dtype == np.uint8
    channel = 17 if value == SKY else value
    assert (probs[channel] == 255).all() and probs.sum() == 255 * 28 * 50
    noisy = say(classes, errors=TeacherErrors(confusion=0.))
    assert (noisy[:-1].argmax(0) == channel).mean() > 0.85
    assert abs(noisy.astype(int).sum(0) - 255).max() <= 10  # rounding of 19 numbers


def test_patches_are_averages_over_their_pixels():
    classes = np.full((16, 24), ROAD, np.uint8)
    classes[:6, :8] = CAR
    probs = say(classes)
    assert probs.shape == (19, 2, 3)
    assert probs[[CAR, ROAD], 0, 0].tolist() == [191, 64]  # 48 of 64 pixels
    assert (probs[ROAD].reshape(-1)[1:] == 255).all()
    assert say(np.full((3, 3), CAR, np.uint8)).shape == (19, 1, 1)
    classes = np.full((13, 8), ROAD, np.uint8)  # 2 patches of 13 rows: the middle one is below
    classes[6:7] = CAR
    assert say(classes)[CAR, :, 0].tolist() == [0, 36]


def test_bleeding_stays_near_boundaries():
    classes = np.full((224, 400), ROAD, np.uint8)
    classes[:, 200:] = CAR
    objects = np.where(classes == CAR, 3, -1).astype(np.int32)
    sharp, soft = (say(classes, objects, errors=TeacherErrors.none()), say(
        classes, objects, errors=TeacherErrors(confusion=0., doubt=0., noise=0., temperature=1.)))
    assert set(np.unique(sharp[CAR])) == {0, 255}
    assert (soft[CAR, :, 24] > 5).all() and (soft[CAR, :, 25] < 250).all()  # either side
    far = np.r_[0:21, 29:50]  # more than three patches away
    assert (soft[CAR][:, far] == soft[CAR][:, [0]].repeat(42, 1) * (far < 25)
            + soft[CAR][:, [49]].repeat(42, 1) * (far >= 25)).all()


def test_thin_things_are_washed_out_more_than_thick_ones():
    def peak(width):
        classes = np.full((224, 400), ROAD, np.uint8)
        classes[64:160, 200:200 + width] = MANMADE
        objects = np.where(classes == MANMADE, 3, -1).astype(np.int32)
        errors = TeacherErrors(confusion=0., doubt=0., noise=0.)
        clean = say(classes, objects)[MANMADE].max() / 255
        return say(classes, objects, errors=errors)[MANMADE].max() / 255 / clean
    assert peak(2) < 0.8 * peak(8) and peak(8) < peak(64) and peak(64) > 0.9


def test_a_thing_is_confused_the_same_way_in_all_frames_of_a_scene():
    classes = np.full((224, 400), ROAD, np.uint8)
    objects = np.full(classes.shape, -1, np.int32)
    for row in range(4):
        for column in range(5):
            there = np.s_[56 * row:56 * row + 40, 80 * column:80 * column + 56]
            classes[there], objects[there] = TRUCK, 5 * row + column
    errors = TeacherErrors(noise=0.)

    def seen(seed, scene_seed, shift=0):
        moved = np.roll(classes, shift, 1), np.roll(objects, shift, 1)
        probs = say(*moved, seed=seed, scene_seed=scene_seed, camera=camera_at(shift),
                    errors=errors)
        found = at_pixels(probs, classes.shape)
        return np.array([np.bincount(found[moved[1] == i]).argmax() for i in range(20)])
    first = seen(0, 7)
    assert (first != TRUCK).sum() >= 2 and (first == TRUCK).sum() >= 8
    assert set(first) <= {SYNTHETIC_CLASSES.index(n) for n in CONFUSIONS['truck'].others} | {TRUCK}
    assert (seen(1, 7, shift=16) == first).mean() >= 0.95  # another frame: noise in how strongly
    assert (seen(0, 8) != first).any()
    near, far = (sum((say(classes, objects, np.full(classes.shape, distance), scene_seed=seed,
                          errors=errors)[TRUCK] > 127).mean() for seed in range(8))
                 for distance in (5., 60.))
    assert near > 1.1 * far


def test_a_place_is_confused_the_same_way_from_everywhere():
    errors = TeacherErrors(noise=0., doubt=0., bleed=0., small_bleed=0.)
    points, roads = [], []
    for x in (0., 4.):
        camera = camera_at(x)
        classes, objects, distances = render(camera)
        found = at_pixels(say(classes, objects, distances, camera=camera, scene_seed=3,
                              errors=errors), classes.shape)
        ground = (classes >= ROAD) & (classes <= 14) & (distances < 15)
        points.append(camera.points(distances)[ground])
        roads.append(found[ground] == classes[ground])
    cells = [dict(zip(map(tuple, np.floor(p[:, :2] / 0.5).astype(int)), r))
             for p, r in zip(points, roads)]
    both = [(cells[0][c], cells[1][c]) for c in cells[0].keys() & cells[1].keys()]
    assert len(both) > 200
    first, second = np.array(both).T
    assert (first == second).mean() > 0.85 and 0.02 < 1 - first.mean() < 0.4


def test_noise_is_correlated_in_space_and_new_in_every_image():
    classes = np.full((224, 400), ROAD, np.uint8)
    errors = TeacherErrors(confusion=0.)
    one, other = (say(classes, seed=seed, errors=errors)[ROAD].astype(float) for seed in (0, 1))

    def correlation(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert correlation(one[:, 1:], one[:, :-1]) > 0.5 > 0.2 > abs(correlation(one, other))
    assert abs(correlation(one[:, 8:], one[:, :-8])) < 0.2


def test_regions_have_the_rate_that_was_asked_for():
    points = np.random.default_rng(0).uniform(-500, 500, (20000, 3)).astype(np.float32)
    table = Confusion(0.2, dict(car=3., bus=1.), extent=6.)
    shares, cars = [], []
    for seed in range(8):
        channels, strength = RegionNoise((seed,), table.extent).confuse(points, table, table.rate)
        shares.append((strength > 0.5).mean())
        cars.append((channels == CAR).mean())
        assert strength.min() == 0 and set(channels) == {CAR, OCC3D_CLASSES.index('bus')}
    assert abs(np.mean(shares) - 0.2) < 0.03 and abs(np.mean(cars) - 0.75) < 0.03
    noise = RegionNoise((0,), 6.)
    step = np.abs(noise.values(points)[0] - noise.values(points + np.float32([.5, 0, 0]))[0])
    assert step.mean() < 0.2 and abs(noise.values(points).std() - 1) < 0.1


def test_points_are_where_the_pixels_look():
    camera = camera_at(3., 1., 0.4)
    classes, _, distances = render(camera)
    points = camera.points(distances)
    ground = (classes >= ROAD) & (classes <= 14)
    assert np.abs(points[ground][:, 2]).max() < 1e-3
    centre = Camera(np.array([[300., 0, 2], [0, 300., 1], [0, 0, 1]]), camera.cam2global)
    distances = np.full((3, 5), np.inf)
    middle = centre.points(distances)[1, 2]
    np.testing.assert_allclose(middle, camera.cam2global[:3, 3] + 200 * camera.cam2global[:3, 2],
                               atol=1e-3)


def test_tables_name_known_classes():
    assert set(CONFUSIONS) == set(SYNTHETIC_CLASSES) and set(THINGS) < set(SYNTHETIC_CLASSES)
    for name, table in CONFUSIONS.items():
        assert set(table.others) <= set(SYNTHETIC_CLASSES) - {name} and 0 < table.rate < 1
        assert table.choose(0.) in table.others and table.choose(1 - 1e-12) in table.others
    table = CONFUSIONS['truck']
    draws = [table.choose(draw) for draw in np.linspace(0, 1, 1000, endpoint=False)]
    assert abs(draws.count('bus') - 400) < 3 and abs(draws.count('manmade') - 100) < 3


def test_the_config_names_these_classes_and_words(repository, data_roots):
    teacher = Config.fromfile(repository / 'configs/_base_/datasets/synthetic_occ.py').teacher
    assert tuple(teacher.class_names) == SYNTHETIC_CLASSES
    assert tuple(teacher.prompts) == SYNTHETIC_PROMPTS
    assert tuple(teacher.dynamic_classes) == SYNTHETIC_DYNAMIC


def test_files_are_what_the_probability_teacher_reads(tmp_path, views):
    camera, classes, objects, distances = views[0]
    for token in ('abc', 'again'):
        path = write_teacher(tmp_path, token, classes, objects, distances,
                             np.random.default_rng(5), scene_seed=1, camera=camera)
    probs = say(classes, objects, distances, 5, 1, camera, TeacherErrors())
    assert path.read_bytes() == (tmp_path / 'teacher_probs/abc.npz').read_bytes()
    teacher = ProbabilityTeacher(tmp_path / 'teacher_probs', OfflineTextEncoder(),
                                 class_names=SYNTHETIC_CLASSES, prompts=SYNTHETIC_PROMPTS,
                                 dynamic_classes=SYNTHETIC_DYNAMIC)
    info = dict(token='frame', images=dict(CAM=dict(
        sample_data_token='abc', width=SIZE[0], height=SIZE[1])))
    pixels = np.stack(np.meshgrid(np.arange(400), np.arange(225)), -1).reshape(-1, 2)
    found = teacher.classes(info, 'CAM', torch.from_numpy(pixels)).reshape(225, 400).numpy()
    assert (found == at_pixels(probs, (225, 400))).mean() > 0.9
    assert (found == np.where(classes == SKY, 17, classes)).mean() > 0.7
    assert teacher.is_sky(torch.tensor([17, 16])).tolist() == [True, False]
    assert teacher.features(info, 'CAM', torch.from_numpy(pixels[:7])).shape == (7, 512)


def test_the_same_bytes_for_the_same_seeds(views):
    camera, classes, objects, distances = views[0]
    first = say(classes, objects, distances, 5, 1, camera, TeacherErrors())
    for seed, scene_seed, same in ((5, 1, True), (6, 1, False), (5, 2, False)):
        again = say(classes, objects, distances, seed, scene_seed, camera, TeacherErrors())
        assert (hashlib.sha256(again).digest() == hashlib.sha256(first).digest()) == same


def test_bad_images_are_named():
    classes = np.full((16, 16), CAR, np.uint8)
    with pytest.raises(ValueError, match=r'objects \(3, 3\)'):
        say(classes, np.zeros((3, 3), np.int32))
    classes[2, 2] = 17
    with pytest.raises(ValueError, match='class 17 in an image; expected 0 ... 16 or 255'):
        say(classes)
