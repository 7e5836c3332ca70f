"""Plane sweeps along pixels' rays: which distance other images agree with."""
import numpy as np
import pytest

from langocc.datasets.geometry import camera_to_global, project
from langocc.datasets.photometric_sweep import PhotometricSweep
from langocc.datasets.transforms.rays import PrepareRays

WIDTH, HEIGHT = 95, 64  # odd, so that halves are no whole number of pixels
K = np.array([[60., 0., 47.], [0., 60., 31.5], [0., 0., 1.]])
PIXELS = np.array([[40., 30.], [52.5, 25.25], [60., 40.], [33., 36.]])


def pose(x=0., y=0., z=0., yaw=0.):
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0., s, x], [0., 1., 0., y], [-s, 0., c, z], [0., 0., 0., 1.]])


def texture(points, phase=0.):
    """Colours in [0, 255] of points (..., 3), of x and y alone."""
    x, y = points[..., 0], points[..., 1]
    waves = [np.sin(2.3 * x + phase) + np.cos(3.1 * y), np.sin(1.7 * x - 2. * y + phase),
             np.cos(2.9 * x + 1.1 * y + phase)]
    return 127.5 + 60 * np.stack(waves, axis=-1)


class World:
    """Frames that see a wall at ``depth`` m, of global coordinates; offsets -> camera poses."""

    def __init__(self, depth=7., poses=None, phases=None):
        poses = {-1: pose(x=-0.7, z=-0.4), 0: pose(), 1: pose(x=0.6, y=0.1, z=0.5, yaw=0.1)
                 } if poses is None else poses
        self.images, self.frames, phases = {}, [], phases or {}
        for offset, camera in poses.items():
            name = f'frame{offset}'
            ego2global = camera @ pose(y=-1.)
            record = dict(img_path=name, width=WIDTH, height=HEIGHT, cam2img=K, cam2ego=pose(y=1.),
                          ego2global=ego2global)
            self.frames.append(dict(offset=offset, info=dict(token=name, images=dict(CAM=record))))
            u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
            rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T @ camera[:3, :3].T
            points = camera[:3, 3] + rays * ((depth - camera[2, 3]) / rays[..., 2:])
            self.images[name] = np.round(texture(points, phases.get(offset, 0.))).astype(np.uint8)
        self.index = list(poses).index(0)

    def costs(self, pixels=PIXELS, index=None, **kwargs):
        sweep = PhotometricSweep(near=2., far=30., num_distances=80, **kwargs)
        return sweep.costs(self.frames, self.index if index is None else index, 'CAM', pixels,
                           lambda record: self.images[record['img_path']])


def true_distances(depth, pixels=PIXELS):
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ np.linalg.inv(K).T
    return depth * np.linalg.norm(rays, axis=1)


@pytest.mark.parametrize('depth', [3., 7., 15.])
@pytest.mark.parametrize('downscale', [1, 2])
def test_the_true_distance_is_cheapest(depth, downscale):
    distances, costs = World(depth).costs(downscale=downscale)
    assert distances.shape == costs.shape == (4, 81) and np.isinf(distances[:, -1]).all()
    best = distances[np.arange(4), np.nanargmin(costs, axis=1)]
    np.testing.assert_allclose(1 / best, 1 / true_distances(depth), atol=0.5 * 0.47 / 79 + 2e-3)
    assert np.nanmin(costs, axis=1).max() < 0.03 < 0.1 < np.nanmax(costs, axis=1).min()


def bilinear(image, u, v):
    u, v = np.clip(u, 0, image.shape[1] - 1), np.clip(v, 0, image.shape[0] - 1)
    left, top = min(int(u), image.shape[1] - 2), min(int(v), image.shape[0] - 2)
    a, b = u - left, v - top
    return ((image[top, left] * (1 - a) + image[top, left + 1] * a) * (1 - b)
            + (image[top + 1, left] * (1 - a) + image[top + 1, left + 1] * a) * b)


def test_costs_are_those_of_a_naive_loop():
    world = World()
    pixels = np.concatenate([PIXELS, [[3., 30.], [91.5, 6.]]])
    distances, costs = world.costs(pixels, patch=3, downscale=1)
    info = world.frames[world.index]['info']
    images = {name: image / 255. for name, image in world.images.items()}
    expected = np.full(costs.shape, np.nan)
    for r, pixel in enumerate(pixels):
        length = true_distances(1., pixel[None])[0]
        for d, distance in enumerate(distances[r]):
            for other in (world.frames[0]['info'], world.frames[2]['info']):
                to_other = np.linalg.inv(camera_to_global(other, 'CAM')) @ camera_to_global(
                    info, 'CAM')
                total = 0.
                for du in (-1, 0, 1):
                    for dv in (-1, 0, 1):
                        place = pixel + [du, dv]
                        ray = np.linalg.inv(K) @ [*place, 1.]
                        point = ray * min(distance / length, 1e9)
                        (u, v), = project(point[None], to_other, K)[0]
                        if not (-0.5 <= u <= WIDTH - 0.5 and -0.5 <= v <= HEIGHT - 0.5):
                            total = np.nan
                            continue
                        total += np.abs(bilinear(images[other['token']], u, v)
                                        - bilinear(images[info['token']], *place)).mean()
                expected[r, d] = np.fmin(expected[r, d], total / 9)
    assert 0.5 < np.isfinite(expected).mean() < 1
    # OpenCV rounds places to 1/32 of a pixel, where colours change by up to 0.02 a pixel.
    np.testing.assert_allclose(costs, expected, atol=2e-3)


def test_what_nobody_sees_is_unknown():
    world = World(poses={0: pose(), 1: pose(yaw=np.pi)})  # looks the other way
    assert np.isnan(world.costs()[1]).all()
    corner = np.array([[88., 58.]])
    distances, costs = World(poses={0: pose(), 1: pose(z=5.)}).costs(corner)
    behind = distances[0] < true_distances(5., corner)[0]
    assert behind.any() and np.isnan(costs[0][behind]).all()
    world = World(poses={0: pose(), 1: pose(x=3.)})
    edge = np.array([[1., 30.]])  # its patch leaves the other image unless it is far away
    distances, costs = world.costs(edge)
    seen = np.isfinite(costs[0])
    shifts = 60 * 3. / (distances[0] / true_distances(1., edge)[0])
    assert np.isnan(costs[0][shifts > 1]).all() and not seen.all()
    right = np.array([[90., 30.]])
    distances, costs = world.costs(right)
    shifts = 60 * 3. / (distances[0] / true_distances(1., right)[0])
    np.testing.assert_array_equal(np.isfinite(costs[0]), shifts <= 90 - 4 + 0.5)


def test_the_most_similar_of_several_images_counts():
    """One of the two sees something else."""
    clear, half = World(), World(phases={-1: 2.})
    only = World(poses={offset: frame for offset, frame in (
        (0, pose()), (1, pose(x=0.6, y=0.1, z=0.5, yaw=0.1)))})
    at = np.abs(1 / clear.costs()[0] - 1 / true_distances(7.)[:, None]).argmin(axis=1)
    rows = np.arange(4)
    np.testing.assert_array_equal(half.costs()[1][rows, at], only.costs()[1][rows, at])
    assert (half.costs()[1] <= np.where(np.isnan(only.costs()[1]), np.inf, only.costs()[1])).all()


def test_copies_of_the_key_frame_are_where_it_is():
    """Frames outside the scene are the key frame; its neighbours are those of offset 0."""
    world = World()
    frames = {frame['offset']: frame['info'] for frame in world.frames}
    expected = world.costs()[1]
    world.frames = [dict(offset=offset, info=frames.get(offset, frames[0]))
                    for offset in (-3, -2, -1, 0, 1, 2)]
    for index in (0, 1, 3, 5):
        np.testing.assert_array_equal(world.costs(index=index)[1], expected)
    before = world.costs(index=2)[1]  # sees the key frame alone, not what stands at offset -2
    alone = World(poses={0: pose(x=-0.7, z=-0.4), 1: pose()})
    np.testing.assert_allclose(before, alone.costs()[1], atol=1e-6)
    assert np.isnan(world.costs(offsets=(7,))[1]).all()


def test_many_pixels_at_once():
    """More than OpenCV maps in one go."""
    many = np.tile(PIXELS, (2100, 1))
    distances, costs = World().costs(many, patch=1)
    np.testing.assert_array_equal(costs.reshape(2100, 4, -1), np.broadcast_to(
        World().costs(patch=1)[1], (2100, 4, 81)))


def test_ground_is_a_horizontal_plane():
    """On a road 1.5 m below, cells of a patch are not equally far."""
    cam2ego = np.eye(4)
    cam2ego[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # x ahead, z up
    world = World(poses={0: pose(), 1: pose(z=-1.2)})
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    for frame, shift in zip(world.frames, (0., -1.2)):
        record = frame['info']['images']['CAM']
        record.update(cam2ego=cam2ego, ego2global=pose(z=shift) @ np.linalg.inv(cam2ego))
        with np.errstate(divide='ignore'):
            points = np.clip(1.5 / rays[..., 1:2], 0, 1e3) * rays + [0, 0, shift]
        world.images[record['img_path']] = texture(points[..., ::2]).round().astype(np.uint8)
    pixels = np.array([[30., 55.], [47., 52.], [60., 57.]])
    truth = 1.5 / np.array([0.39166667, 0.34166667, 0.425]) * true_distances(1., pixels)
    costs, best = {}, {}
    for planes in ('facing',), ('horizontal',), ('facing', 'horizontal'):
        distances, values = world.costs(pixels, patch=5, downscale=1, planes=planes)
        best[planes] = distances[np.arange(3), np.nanargmin(values, axis=1)]
        costs[planes] = values
    np.testing.assert_allclose(best['horizontal',], truth, rtol=0.04)
    assert (np.nanmin(costs['horizontal',], 1) < 0.7 * np.nanmin(costs['facing',], 1)).all()
    np.testing.assert_array_equal(costs['facing', 'horizontal'],
                                  np.fmin(costs['facing',], costs['horizontal',]))


def test_cells_at_the_horizon_stay_near_their_patch():
    """A horizontal plane through them is anywhere from close by to infinity."""
    sweep = PhotometricSweep(patch=3, downscale=1)
    heights = np.array([[-1., 0., 1.], [0.1, 0.2, 0.3], [-0.3, -0.2, -0.1], [0.01, 0.1, 0.3]])
    rays = np.repeat(np.stack([np.ones((4, 3)), heights, np.ones((4, 3))], axis=-1), 3, axis=1)
    cam2ego = np.eye(4)[[0, 2, 1, 3]]  # the camera's y is height
    shares = sweep._slope('horizontal', rays, cam2ego)[:, ::3]
    np.testing.assert_allclose(shares, [[0.5, 0.5, 2.], [0.5, 1., 1.5], [1.5, 1., 0.5],
                                        [0.5, 1., 2.]])


@pytest.mark.parametrize('kwargs, says', [
    (dict(planes=('vertical',)), r"planes are \['vertical'\]"),
    (dict(near=40.), 'near is 40.0 m and far 40.0 m'), (dict(near=0.), 'near is 0.0'),
    (dict(num_distances=1), 'num_distances is 1'), (dict(patch=4), 'patch is 4'),
    (dict(downscale=0), 'downscale is 0'), (dict(offsets=()), r'offsets are \[\]'),
    (dict(offsets=(0, 1)), r'offsets are \[0, 1\]')])
def test_settings_are_checked(kwargs, says):
    with pytest.raises(ValueError, match=says):
        PhotometricSweep(**kwargs)


@pytest.mark.parametrize('kwargs', [
    dict(targets=('rgb', 'photometric_costs')),
    dict(targets=('rgb',), photometric=dict(type='PhotometricSweep'))])
def test_target_and_sweep_need_each_other(kwargs):
    with pytest.raises(ValueError, match="'photometric_costs' and photometric, which makes it"):
        PrepareRays(dict(type='CameraPixelSource'), **kwargs)
