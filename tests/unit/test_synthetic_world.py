"""The synthetic street: exact hits on single solids, and what every scene promises."""
import subprocess
import sys
import zlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from langocc.synthetic import SKY, make_world
from langocc.synthetic.ground import Ground, Road, Verges
from langocc.synthetic.light import Light
from langocc.synthetic.paths import Path
from langocc.synthetic.plan import street_plan
from langocc.synthetic.random import generator
from langocc.synthetic.snapshot import Snapshot, pixel_directions
from langocc.synthetic.solids import SolidBuilder, Solids, pose_at, turn_about
from langocc.synthetic.things import Places

FREE, CAR, DRIVEABLE = 17, 4, 11
SIZE = (64, 36)
CAM2IMG = np.array([[40., 0., 31.5], [0., 40., 17.5], [0., 0., 1.]])
FORWARD = np.array([[0., 0., 1., 0.], [-1., 0., 0., 0.], [0., -1., 0., 0.], [0., 0., 0., 1.]])


def flat_ground(slope=(0., 0.)):
    """A road along x, 4 m to either side, on the plane z = slope . (x, y)."""
    road = Road(Path.of((-10., 0., 0.), [(20., 0.)]), 1, 4., 0.)
    ground = Ground([road], Verges(0., 2., 2., 0.), generator(0), np.zeros(2), 30.)
    rows, columns = ground.arrays.heights.shape
    y, x = np.mgrid[:rows, :columns] * ground.arrays.cell - 30.
    heights = (slope[0] * x + slope[1] * y).astype(np.float32)
    ground.arrays = ground.arrays._replace(heights=heights, top=float(heights.max()))
    return ground


def snapshot_of(solids, slope=(0., 0.)):
    return Snapshot(solids, flat_ground(slope), Light.drawn(generator(0)), [])


def one(method, *args, **kwargs):
    builder = SolidBuilder(CAR, 7)
    getattr(builder, method)(*args, **kwargs)
    return snapshot_of(builder.build())


def hit(snapshot, origin, direction):
    direction = np.array(direction, float)
    hits = snapshot.cast(np.array([origin], float), direction[None] / np.linalg.norm(direction))
    return (hits.distances[0], hits.classes[0], hits.objects[0], hits.normals[0])


def check(result, distance, normal, semantic_class=CAR, object_id=7):
    assert_allclose(result[0], distance, atol=1e-6)
    assert (result[1], result[2]) == (semantic_class, object_id)
    assert_allclose(result[3], np.array(normal) / np.linalg.norm(normal), atol=1e-6)


@pytest.fixture(scope='module')
def worlds():
    second = make_world(0, 6)  # before the first: the order must not matter
    return [make_world(0, 0), second]


@pytest.fixture(scope='module')
def street(worlds):
    """A snapshot, the ego pose in it and rays all round from above the car."""
    world = worlds[0]
    pose = world.route.pose(world.route.length / 2)
    directions = np.random.default_rng(0).standard_normal((6000, 3)) * (1, 1, 0.3) - (0, 0, 0.1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.tile(pose[:3, 3] + (0., 0., 1.8), (len(directions), 1))
    return world.at(1.), pose, origins, directions


def test_box_is_hit_on_its_faces():
    snapshot = one('box', (10., 0., 2.), (2., 4., 1.), (1, 1, 1))
    check(hit(snapshot, (0, 1, 2), (1, 0, 0)), 9., (-1, 0, 0))
    check(hit(snapshot, (10, -9, 2.2), (0, 1, 0)), 7., (0, -1, 0))
    check(hit(snapshot, (10, 0, 9), (0, 0, -1)), 6.5, (0, 0, 1))
    assert hit(snapshot, (0, 2.01, 2), (1, 0, 0))[1] == SKY


def test_turned_box_is_hit_on_its_corner():
    snapshot = one('box', (10., 0., 2.), (2., 2., 1.), (1, 1, 1), turn=turn_about(2, np.pi / 4))
    check(hit(snapshot, (0, 0.5, 2), (1, 0, 0)), 10 - np.sqrt(2) + 0.5, (-1, 1, 0))


def test_roof_is_hit_on_its_slope():
    snapshot = one('box', (0., 0., 2.), (4., 4., 2.), (1, 1, 1), taper=(0., 1.))
    check(hit(snapshot, (0, 1, 9), (0, 0, -1)), 7., (0, 1, 1))


def test_cylinder_mantle_cap_and_cone():
    lying = one('cylinder', (10., 0., 2.), (2., 2., 4.), (1, 1, 1), turn=turn_about(0, np.pi / 2))
    check(hit(lying, (0, 1.5, 2), (1, 0, 0)), 9., (-1, 0, 0))
    check(hit(lying, (10.5, 9, 2), (0, -1, 0)), 7., (0, 1, 0))
    cone = one('cylinder', (10., 0., 2.), (2., 2., 2.), (1, 1, 1), taper=1.)
    check(hit(cone, (0, 0, 2), (1, 0, 0)), 9.5, (-2, 0, 1))
    assert hit(cone, (0, 0.6, 2), (1, 0, 0))[1] == SKY


def test_ellipsoid_is_hit_with_its_normal():
    snapshot = one('ellipsoid', (10., 0., 3.), (4., 2., 1.), (1, 1, 1))
    y = 0.6
    normal = np.array([-0.8 / 2, y / 1, 0])
    check(hit(snapshot, (0, y, 3), (1, 0, 0)), 10 - 2 * 0.8, normal)


def test_ray_from_inside_a_solid_does_not_see_it():
    snapshot = one('box', (0., 0., 2.), (2., 2., 2.), (1, 1, 1))
    assert hit(snapshot, (0, 0, 2), (1, 0, 0.5))[1] == SKY


def test_rod_joins_its_ends():
    builder = SolidBuilder(CAR, 7)
    builder.rod((0., 0., 1.), (3., 0., 5.), 0.2, (1, 1, 1))
    lower, upper = builder.build().bounds()
    # The caps of a rod along (3, 0, 4) / 5 reach 0.1 * (4, 5, 3) / 5 beyond its ends.
    assert_allclose(lower[0], (-0.08, -0.1, 0.94), atol=1e-9)
    assert_allclose(upper[0], (3.08, 0.1, 5.06), atol=1e-9)


def test_sloping_ground_is_hit_exactly():
    snapshot = snapshot_of(Solids.joined([]), slope=(0.1, 0.))
    result = hit(snapshot, (0, 0, 2), (1, 0, -0.4))
    # 2 - 0.4 x = 0.1 x at x = 4.
    assert_allclose(result[0], 4 * np.hypot(1, 0.4), atol=1e-5)
    assert (result[1], result[2]) == (DRIVEABLE, -1)
    assert_allclose(result[3], np.array([-0.1, 0, 1]) / np.hypot(1, 0.1), atol=1e-6)


def test_sky_has_no_point():
    hits = snapshot_of(Solids.joined([])).cast(np.array([[0., 0., 1.]]), np.array([[0., 0., 1.]]))
    assert hits.distances[0] == np.inf and hits.classes[0] == SKY and hits.objects[0] == -1
    assert np.isnan(hits.points).all() and not hits.normals.any()


def test_cast_rejects_wrong_shapes():
    with pytest.raises(ValueError, match=r'must both be \(R, 3\), not \(3,\) and \(1, 3\)'):
        snapshot_of(Solids.joined([])).cast(np.zeros(3), np.ones((1, 3)))


def test_path_projection_inverts_positions():
    path = Path.of((1., 2., 0.3), [(20., 0.), (30., 1 / 40.), (25., -1 / 25.)])
    s, lateral = np.linspace(-15., 90., 60), np.tile([-3., 4.], 30)
    along, left = path.project(path.at(s, lateral)[:, :2])
    assert_allclose(along, s, atol=1e-6)
    assert_allclose(left, lateral, atol=1e-6)


def test_offset_path_keeps_its_distance():
    path = Path.of((1., 2., 0.3), [(20., 0.), (30., 1 / 40.), (25., -1 / 25.)])
    other = path.offset(-3.)
    _, lateral = path.project(other.at(np.linspace(0., other.length, 50))[:, :2])
    assert_allclose(lateral, -3., atol=1e-6)
    with pytest.raises(ValueError, match='cannot be moved 50.0 m'):
        path.offset(50.)


@pytest.mark.parametrize('place, free', [((0., 3., 0.), False), ((0., 6.5, 0.), True),
                                         ((4., 6.5, np.pi / 4), False), ((0., 0.2, 0.), False)])
def test_places_keep_footprints_apart(place, free):
    ground = flat_ground()
    places = Places(ground, Path.of((-10., -2., 0.), [(20., 0.)]))
    extents = np.array([-2., -1., 0.]), np.array([2., 1., 1.])
    assert places.take(np.array([3., 4., 0.]), extents)
    assert places.take(np.array(place), extents) == free


def test_render_shows_what_cast_hits(street):
    snapshot, pose, _, _ = street
    cam2global = pose @ pose_at((1.5, 0., 1.5), 0.4) @ FORWARD
    view = snapshot.render(CAM2IMG, cam2global, SIZE)
    v, u = np.mgrid[:SIZE[1], :SIZE[0]]
    directions = pixel_directions(CAM2IMG, cam2global, np.stack([u.ravel(), v.ravel()], 1))
    hits = snapshot.cast(np.tile(cam2global[:3, 3], (len(directions), 1)), directions)
    assert_allclose(view.distances.ravel(), hits.distances, atol=1e-6)
    assert_array_equal(view.classes.ravel(), hits.classes)
    assert_array_equal(view.objects.ravel(), hits.objects)
    assert view.image.shape == (36, 64, 3) and view.image.dtype == np.uint8
    assert view.image.std() > 20


@pytest.mark.parametrize('half, same', [(0.2, 0.96), (0.04, 0.99)])
def test_occupancy_agrees_with_hits(street, half, same):
    """Just behind a hit the voxel is occupied; its class may differ where two meet in a voxel."""
    snapshot, _, origins, directions = street
    hits = snapshot.cast(origins, directions)
    near = hits.distances < 40
    points = hits.points[near] + 1e-4 * directions[near]
    voxels = (np.floor(points / (2 * half)) + 0.5) * 2 * half
    classes = snapshot.occupancy(voxels, half)
    assert (classes != FREE).mean() > 0.99
    assert (classes == hits.classes[near]).mean() > same


def test_nothing_occupied_on_the_way_to_a_hit(street):
    snapshot, _, origins, directions = street
    hits = snapshot.cast(origins, directions)
    way = np.minimum(hits.distances, 60.) * np.random.default_rng(1).uniform(0.2, 0.9, len(origins))
    points = origins + way[:, None] * directions
    clear = snapshot.occupancy(points, 0.01) == FREE
    assert clear.mean() > 0.995


def test_single_box_fills_its_voxels():
    snapshot = one('box', (10., 0., 2.), (2., 1., 1.), (1, 1, 1))
    points = np.array([[10., 0., 2.], [11.19, 0., 2.], [11.25, 0., 2.], [10., 0.65, 2.7],
                       [10., 0.75, 2.], [0., 0., 0.1], [0., 0., 0.3], [0., 0., -0.3]])
    assert_array_equal(snapshot.occupancy(points, 0.2),
                       [CAR, CAR, FREE, CAR, FREE, DRIVEABLE, FREE, FREE])


def test_boxes_contain_their_objects(street):
    snapshot, _, origins, directions = street
    hits = snapshot.cast(origins, directions)
    boxes = {box.object_id: box for box in snapshot.boxes}
    assert len(boxes) == len(snapshot.boxes)
    boxed = [k for k in np.flatnonzero(hits.objects >= 0) if hits.objects[k] in boxes]
    assert len(boxed) > 200
    for k in boxed:
        box = boxes[hits.objects[k]]
        offset = turn_about(2, box.yaw).T @ (hits.points[k] - box.center)
        assert (np.abs(offset[[1, 0, 2]]) <= np.array(box.size) / 2 + 1e-6).all(), box


def test_boxes_move_with_their_velocity(worlds):
    first, second = worlds[0].at(1.), worlds[0].at(1.1)
    speeds = []
    for before, after in zip(first.boxes, second.boxes):
        moved = (after.center - before.center)[:2] / 0.1
        assert_allclose(moved, before.velocity, atol=0.25)  # bends turn it a little in 0.1 s
        speeds.append(np.linalg.norm(before.velocity))
    assert min(speeds) == 0 and max(speeds) > 3


def test_streets_cross_and_the_ego_car_turns():
    """Of a dozen streets of the default set; a route that leaves the main road takes another."""
    crossings, turns = set(), []
    for index in range(12):
        plan = street_plan(0, index)
        crossings.add(len(plan.roads) - 1)
        first, last = plan.route.path.at(np.array([0., plan.route.length]))
        gaps = [abs(road.path.project(last[None, :2])[1][0]) for road in plan.roads]
        if gaps[0] > plan.roads[0].half_width:
            turns.append(abs((last[2] - first[2] + np.pi) % (2 * np.pi) - np.pi))
            assert gaps[0] > 20 and gaps[1] < plan.roads[1].half_width
    assert crossings == {0, 1, 2} and 2 <= len(turns) <= 8
    assert np.deg2rad(60) < min(turns) <= max(turns) < np.deg2rad(120)


def test_what_may_park_parks_and_moves(worlds):
    found = {}
    for box in [box for world in worlds for box in world.at(0.).boxes]:
        speed = np.linalg.norm(box.velocity)
        found.setdefault((box.category, box.attribute), []).append(speed)
    moving = {'vehicle.moving', 'cycle.with_rider', 'pedestrian.moving'}
    for (_, attribute), speeds in found.items():
        assert min(speeds) > 0.5 if attribute in moving else max(speeds) == 0, attribute
    kinds = {(category.split('.')[1], attribute.split('.')[-1]) for category, attribute in found}
    for name in ('car', 'truck', 'bus'):
        assert {(name, 'parked'), (name, 'moving')} <= kinds, name
    for name in ('bicycle', 'motorcycle'):
        assert {(name, 'without_rider'), (name, 'with_rider')} <= kinds, name
    assert {('pedestrian', 'moving'), ('pedestrian', 'standing')} <= kinds


def test_all_classes_occur(worlds):
    seen = set()
    for world in worlds:
        snapshot = world.at(0.)
        seen |= set(snapshot.solids.classes.tolist())
        seen |= set(world.ground.classes(world.ground.fields.reshape(-1, 7)).tolist())
    assert seen == set(range(1, 17))


def test_ego_lane_is_clear_and_on_the_road(worlds):
    """A car's room along the whole route is free of solids at any time, on driveable ground."""
    for world in worlds:
        assert world.route.length >= 80
        poses = np.array([world.route.pose(s) for s in np.arange(0., world.route.length, 0.5)])
        room = np.array([[x, y, z, 1.] for x in (-1., 1., 3.) for y in (-0.9, 0., 0.9)
                         for z in (0.5, 1.5)])
        points = (poses[:, None, :3] @ room[None, :, :, None])[..., 0].reshape(-1, 3)
        for time in (0., 2.5, 5.):
            assert (world.at(time).occupancy(points, 0.05) == FREE).all()
        wheels = (poses[:, None, :3] @ room[None, ::2, :, None])[..., 0].reshape(-1, 3)
        assert (world.ground.classes(world.ground.sample(wheels)) == DRIVEABLE).all()


def test_route_poses_are_rigid_and_on_the_ground(worlds):
    route = worlds[0].route
    pose = route.pose(12.)
    assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert pose[2, 2] > 0.98
    step = route.pose(12.2)[:3, 3] - pose[:3, 3]
    assert_allclose(np.linalg.norm(step[:2]), 0.2, atol=1e-3)
    assert step @ pose[:3, 0] > 0.19
    with pytest.raises(ValueError, match='arc length -1 is not on the route'):
        route.pose(-1)


def test_streets_differ(worlds):
    first, second = worlds
    assert len(first.at(0.).solids) != len(second.at(0.).solids)
    assert not np.array_equal(first.route.pose(10.), second.route.pose(10.))


def test_same_bytes_in_another_process(street):
    snapshot, pose, _, _ = street
    code = ('import sys, zlib\nimport numpy as np\nfrom langocc.synthetic import make_world\n'
            'sys.path.insert(0, sys.argv[1])\n'
            'from test_synthetic_world import CAM2IMG, FORWARD, SIZE\n'
            'world = make_world(0, 0)\n'
            'pose = world.route.pose(world.route.length / 2)\n'
            'view = world.at(1.).render(CAM2IMG, pose @ FORWARD, SIZE)\n'
            'print(zlib.crc32(view.image.tobytes() + view.distances.tobytes()))')
    result = subprocess.run([sys.executable, '-c', code, __file__.rsplit('/', 1)[0]],
                            capture_output=True, text=True, check=True)
    view = snapshot.render(CAM2IMG, pose @ FORWARD, SIZE)
    assert int(result.stdout) == zlib.crc32(view.image.tobytes() + view.distances.tobytes())


def test_generators_depend_on_all_keys():
    draws = {generator(*keys).integers(2 ** 62) for keys in
             ((0, 1, 'plan'), (1, 0, 'plan'), (0, 1, 'light'), (0, 1, 'plan', 0))}
    assert len(draws) == 4
    assert generator(0, 'a').integers(2 ** 62) == generator(0, 'a').integers(2 ** 62)
    with pytest.raises(ValueError, match='must be >= 0, not -1'):
        make_world(-1, 0)


def test_sizes_and_tapers_of_solids_are_checked():
    with pytest.raises(ValueError, match='three positive lengths'):
        SolidBuilder(CAR, 0).box((0, 0, 0), (1., 0., 1.), (1, 1, 1))
    with pytest.raises(ValueError, match=r'in \[0, 1\]'):
        SolidBuilder(CAR, 0).box((0, 0, 0), (1., 1., 1.), (1, 1, 1), taper=(0., 1.2))
