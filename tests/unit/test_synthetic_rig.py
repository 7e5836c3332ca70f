"""The rig of the synthetic car, its drive and its LiDAR."""
import numpy as np
import pytest
from plain_world import CAR, ROAD, PlainWorld, Solid

from langocc.occ3d import OCC3D_CLASSES
from langocc.synthetic.lidar import (
    ELEVATIONS, LIDARSEG_CATEGORIES, MAX_RANGE, NUM_BEAMS, RANGE_NOISE, beam_directions,
    category_to_class, raw_categories, scan
)
from langocc.synthetic.long_scenes import long_scene_note
from langocc.synthetic.plan import street_plan
from langocc.synthetic.records import Settings
from langocc.synthetic.rig import (
    CAMERAS, CHANNELS, LIDAR_CHANNEL, camera_intrinsics, sensor_to_ego, shutter_delay
)
from langocc.synthetic.trajectory import MAX_SPEED, MIN_SPEED, Drive, key_frame_time

SIZE = (400, 225)


def ego_directions_of_edges(channel):
    """Yaw in degrees of the left and the right edge of an image at its middle row."""
    cam2img, rotation = camera_intrinsics(channel, SIZE), sensor_to_ego(channel)[:3, :3]
    pixels = np.array([[-0.5, cam2img[1, 2], 1], [SIZE[0] - 0.5, cam2img[1, 2], 1]])
    rays = pixels @ np.linalg.inv(cam2img).T @ rotation.T
    return np.degrees(np.arctan2(rays[:, 1], rays[:, 0]))


def test_matrices_are_rigid_and_look_where_they_should():
    for channel in CHANNELS:
        matrix = sensor_to_ego(channel)
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    ahead, right = (sensor_to_ego('CAM_FRONT')[:3, axis] for axis in (2, 0))
    assert ahead[0] > 0.999 and right[1] < -0.999
    assert sensor_to_ego('CAM_FRONT_LEFT')[1, 2] > 0.7
    assert sensor_to_ego('CAM_BACK')[0, 2] < -0.999
    lidar = sensor_to_ego(LIDAR_CHANNEL)
    assert lidar[2, 3] == 1.84
    np.testing.assert_allclose(lidar[:3, 1], [1, 0, 0], atol=1e-12)  # nuScenes: y is forward


def test_the_ring_of_cameras_closes():
    edges = {channel: ego_directions_of_edges(channel) for channel in CAMERAS}
    ring = ['CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT',
            'CAM_FRONT_RIGHT']
    for channel, following in zip(ring, ring[1:] + ring[:1]):
        overlap = (edges[channel][0] - edges[following][1] + 180) % 360 - 180
        assert 10 < overlap < 30, (channel, following)
    for channel, fov in (('CAM_FRONT', 70), ('CAM_BACK', 110)):
        left, right = edges[channel]
        assert (left - right) % 360 == pytest.approx(fov, abs=1.)


def test_intrinsics_are_the_reference_resampled():
    """Where a point lies in the image, as a share of it, does not depend on the image's size."""
    point = np.array([3., -1., 10.])
    shares = []
    for size in ((1600, 900), (400, 225), (160, 90)):
        u, v, depth = camera_intrinsics('CAM_FRONT_LEFT', size) @ point
        shares.append([(u / depth + 0.5) / size[0], (v / depth + 0.5) / size[1]])
    np.testing.assert_allclose(shares, [shares[0]] * 3, atol=1e-12)
    with pytest.raises(ValueError, match=r'\(400, 400\), expected .* 16:9'):
        camera_intrinsics('CAM_FRONT', (400, 400))


def test_cameras_fire_within_45_ms_at_their_own_time():
    delays = [shutter_delay(c, np.random.default_rng(i)) for i, c in enumerate(CAMERAS)]
    assert min(delays) >= -0.045 and max(delays) <= 0 and len(set(delays)) == 6
    assert shutter_delay(LIDAR_CHANNEL, np.random.default_rng(0)) == 0


@pytest.mark.parametrize('seed', range(5))
def test_the_drive_integrates_its_speed(seed):
    drive = Drive(PlainWorld([], length=200.).route, 10, np.random.default_rng(seed))
    times = np.linspace(0, key_frame_time(9), 2001)
    speeds = np.array([drive.speed(time) for time in times])
    assert MIN_SPEED <= speeds.min() and speeds.max() <= MAX_SPEED
    driven = drive.arc_length(times[-1]) - drive.arc_length(0)
    assert driven == pytest.approx(np.trapz(speeds, times), rel=1e-5)
    assert 0 <= drive.arc_length(0) and drive.arc_length(drive.end) <= 200
    np.testing.assert_allclose(drive.pose(1.)[0, 3], drive.arc_length(1.))


def test_a_short_route_is_driven_slowly_or_refused():
    drive = Drive(PlainWorld([], length=10.).route, 10, np.random.default_rng(0))
    assert drive.arc_length(drive.end) == pytest.approx(10) and drive.scale < 0.5
    assert Drive(PlainWorld([], length=200.).route, 10, np.random.default_rng(0)).scale == 1
    with pytest.raises(ValueError, match='route of 1.0 m is too short for 10 key frames'):
        Drive(PlainWorld([], length=1.).route, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match='outside the drive'):
        drive.arc_length(drive.end + 1)


def test_long_scenes_are_told_what_they_lose():
    """24 key frames drive as they should; of 60 every street is too short, and ways may cross."""
    few = Settings(scenes_train=1, scenes_val=1, frames=24)
    assert long_scene_note(few) == ''
    note = long_scene_note(Settings(scenes_train=1, scenes_val=1, frames=60))
    assert 'of 60 key frames last 29.6 s' in note and 'for the first 12 s only' in note
    assert 'In 2 of 2 scenes the route is too short: the ego car drives at 0.' in note
    assert all(Drive(street_plan(0, scene.world_index).route, 24, scene.rng('drive')).scale > 0.9
               for scene in few.scenes())


def test_beams():
    directions, rings = beam_directions(90)
    assert directions.shape == (90 * NUM_BEAMS, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    elevations = np.degrees(np.arcsin(directions[:, 2]))
    np.testing.assert_allclose(elevations[rings == 0], ELEVATIONS[0])
    np.testing.assert_allclose(elevations[rings == NUM_BEAMS - 1], ELEVATIONS[1])


def test_a_scan_measures_the_world():
    """Points lie on road and car to the range noise; labels and ids are those of what was hit."""
    world = PlainWorld([Solid((8., 0., 0.8), (4., 2., 1.6), CAR, object_id=7)], yaw=0.3)
    lidar2global = world.pose(2.) @ sensor_to_ego(LIDAR_CHANNEL)
    sweep = scan(world.at(0.), lidar2global, np.random.default_rng(0), {7: 'vehicle.car'}, 360)
    assert sweep.points.dtype == np.float32 and sweep.points.shape[1] == 5
    names = np.array(LIDARSEG_CATEGORIES)[sweep.categories]
    assert set(names) == {'vehicle.car', 'flat.driveable_surface'}
    assert ((names == 'vehicle.car') == (sweep.objects == 7)).all()
    points = sweep.points[:, :3].astype(np.float64)
    measured = points @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    errors = np.linalg.norm(measured - sweep.hits, axis=1)
    assert 0.8 * RANGE_NOISE < np.sqrt((errors**2).mean()) < 1.2 * RANGE_NOISE
    np.testing.assert_allclose(sweep.hits[names == 'flat.driveable_surface', 2], 0, atol=1e-9)
    assert np.linalg.norm(points, axis=1).max() < MAX_RANGE + 5 * RANGE_NOISE
    assert sweep.points[:, 3].min() >= 0 and sweep.points[:, 3].max() <= 255
    assert set(sweep.points[:, 4]) <= set(range(NUM_BEAMS))
    hits = world.at(0.).cast(np.broadcast_to(lidar2global[:3, 3], (360 * NUM_BEAMS, 3)),
                             beam_directions(360)[0] @ lidar2global[:3, :3].T)
    in_range = int((hits.distances < MAX_RANGE).sum())
    assert 0.7 * in_range < len(points) < in_range  # some beams are lost


def test_raw_categories():
    classes = np.array([7, 7, 2, 11, 10], np.uint8)
    objects = np.array([3, -1, 4, -1, 4], np.int32)
    names = {3: 'human.pedestrian.child', 4: 'vehicle.bicycle'}
    raw = [LIDARSEG_CATEGORIES[i] for i in raw_categories(classes, objects, names)]
    assert raw == ['human.pedestrian.child', 'human.pedestrian.adult', 'vehicle.bicycle',
                   'flat.driveable_surface', 'vehicle.truck']
    for name, label in zip(raw, classes):
        assert category_to_class(name) == label
    assert category_to_class('vehicle.emergency.police') == OCC3D_CLASSES.index('others')
    with pytest.raises(ValueError, match='object 3 has category'):
        raw_categories(classes, objects, {3: 'unicorn'})
    with pytest.raises(ValueError, match='class 255'):
        raw_categories(np.array([255], np.uint8), np.array([-1]), {})
    assert (raw_categories(np.array([ROAD], np.uint8), np.array([-1]), {}) == 24).all()
