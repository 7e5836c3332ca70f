"""Ray sources on made-up cameras and points, with answers known by hand."""
import numpy as np
import pytest
import torch

from langocc.datasets.ray_sources import (
    CameraPixelSource, LidarPixelSource, PixelDraw, draw_from_groups, draw_to_rays
)

# Camera axes (x right, y down, z forward) in an ego frame that looks along x.
FORWARD = np.array([[0, 0, 1, 0.], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def pose(x=0., y=0., z=0., yaw=0.):
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:3, 3] = x, y, z
    return matrix


def make_info(folder, token, points=None, ego=np.eye(4), camera_ego=None, cameras=('A', 'B'),
              size=(20, 10)):
    """A frame with cameras A (forward) and B (backward) of (W, H) pixels, f = 10."""
    cam2img = [[10., 0, 9.5], [0, 10., 4.5], [0, 0, 1]]
    camera_ego = ego if camera_ego is None else camera_ego
    images = {}
    for name in cameras:
        mount = pose(z=1.5, yaw=np.pi * (name == 'B')) @ FORWARD
        images[name] = dict(
            img_path=str(folder / f'{token}_{name}.png'), sample_data_token=f'{token}{name}',
            cam2img=cam2img, cam2ego=mount.tolist(), ego2global=camera_ego.tolist(),
            width=size[0], height=size[1])
    info = dict(token=token, images=images)
    if points is not None:
        path = folder / f'{token}.bin'
        rows = np.asarray(points, np.float32).reshape(-1, 3)
        np.concatenate([rows, np.zeros((len(rows), 2), np.float32)], axis=1).tofile(path)
        info['lidar_points'] = dict(lidar_path=str(path), num_pts_feats=5,
                                    lidar2ego=pose(z=2.).tolist(), ego2global=ego.tolist())
    return info


def make_results(infos, offsets=None, cameras=('A', 'B')):
    """Sample whose key frame is the first info."""
    offsets = range(len(infos)) if offsets is None else offsets
    return dict(token=infos[0]['token'], camera_names=list(cameras), data_root='',
                key_ego2global=pose(x=3., y=1., yaw=0.2),
                ray_frames=[dict(offset=offset, info=info)
                            for offset, info in zip(offsets, infos)])


RNG = np.random.default_rng


def test_draw_from_groups_is_uniform_and_without_replacement():
    counts = np.array([0, 3, 0, 5, 2, 0])
    everything = draw_from_groups(counts, 99, RNG(0))
    assert list(zip(*map(list, everything))) == [
        (1, 0), (1, 1), (1, 2), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (4, 0), (4, 1)]
    hits = np.zeros((6, 5))
    for seed in range(2000):
        groups, indices = draw_from_groups(counts, 4, RNG(seed))
        assert len(set(zip(groups, indices))) == 4 and (np.diff(groups) >= 0).all()
        np.add.at(hits, (groups, indices), 1)
    drawn = hits[hits > 0]
    assert len(drawn) == 10 and np.abs(drawn - 800).max() < 5 * np.sqrt(2000 * 0.4 * 0.6)
    for nothing in (np.array([]), np.zeros(3)):
        assert [len(values) for values in draw_from_groups(nothing, 4, RNG(0))] == [0, 0]


def test_camera_source_covers_all_pixels_uniformly(tmp_path):
    infos = [make_info(tmp_path, 'k'), make_info(tmp_path, 'n', size=(4, 3))]
    results, source = make_results(infos), CameraPixelSource()
    draw = source.draw(results, 10**6, RNG(0))
    assert len(draw) == 2 * (20 * 10 + 4 * 3) and np.isnan(draw.distances).all()
    rows = np.column_stack([draw.frames, draw.cameras, draw.pixels])
    assert len(np.unique(rows, axis=0)) == len(rows)
    big = draw.pixels[draw.frames == 0]
    assert big.min(axis=0).tolist() == [0, 0] and big.max(axis=0).tolist() == [19, 9]
    hits = np.zeros((2, 2, 10, 20))
    for seed in range(400):
        some = source.draw(results, 100, RNG(seed))
        u, v = some.pixels.astype(int).T
        np.add.at(hits, (some.frames, some.cameras, v, u), 1)
    share = 100 / 424
    tolerance = 6 * np.sqrt(400 * share * (1 - share))
    assert np.abs(hits[0] - 400 * share).max() < tolerance
    assert np.abs(hits[1, :, :3, :4] - 400 * share).max() < tolerance
    assert hits.sum() == 40000


def test_rays_start_at_the_camera_and_pass_the_pixel(tmp_path):
    ego, camera_ego = pose(x=5., yaw=0.3), pose(x=5.4, y=0.1, yaw=0.31)
    results = make_results([make_info(tmp_path, 'k', ego=ego, camera_ego=camera_ego)])
    rays = CameraPixelSource()(results, 50, RNG(0)).validate()
    draw = CameraPixelSource().draw(results, 50, RNG(0))
    assert rays.origins.dtype == torch.float32 and len(rays) == 50
    for i in range(50):
        mount = np.asarray(results['ray_frames'][0]['info']['images']['AB'[draw.cameras[i]]]
                           ['cam2ego'])
        cam2key = np.linalg.inv(results['key_ego2global']) @ camera_ego @ mount
        u, v = draw.pixels[i]
        point = cam2key @ [(u - 9.5) / 10 * 7, (v - 4.5) / 10 * 7, 7, 1]
        direction = point[:3] - cam2key[:3, 3]
        np.testing.assert_allclose(rays.origins[i], cam2key[:3, 3], atol=1e-5)
        np.testing.assert_allclose(rays.directions[i], direction / np.linalg.norm(direction),
                                   atol=1e-6)


@pytest.mark.parametrize('bev', [np.diag([-1., 1, 1, 1]), np.diag([1., -1, 1, 1]),
                                 np.diag([1.1, 1.1, 1.1, 1.]) @ pose(yaw=0.4)])
def test_rays_and_their_ends_follow_the_bev_augmentation(tmp_path, bev):
    points = RNG(0).uniform([5, -3, -3], [30, 3, 1], size=(400, 3))
    results = make_results([make_info(tmp_path, 'k', points)])
    source = LidarPixelSource()
    plain = source(results, 64, RNG(1))
    moved = source(dict(results, bev_aug_matrix=bev), 64, RNG(1))
    matrix = torch.from_numpy(bev).float()
    torch.testing.assert_close(moved.origins, plain.origins @ matrix[:3, :3].T)
    ends = [rays.points(rays.targets['distances'][:, None])[:, 0] for rays in (plain, moved)]
    torch.testing.assert_close(ends[1], ends[0] @ matrix[:3, :3].T, atol=1e-4, rtol=0)
    assert len(plain) == 64 and moved.validate()


def test_lidar_source_keeps_exactly_the_points_of_the_rule(tmp_path):
    # LiDAR at z = 2, camera at z = 1.5, f = 10, 20 x 10 pixels, principal point (9.5, 4.5):
    # the point (x, y, z) is seen at u = 9.5 - 10 y / x, v = 4.5 - 10 (z + 0.5) / x.
    points = dict(
        centre=(10, 0, -0.5), left_edge=(10, 9.5, -0.5), inside_left=(10, 9.49, -0.5),
        right_edge=(10, -9.5, -0.5), top_edge=(10, 0, 4.), bottom_inside=(20, 0, -9.48),
        near=(1., 0, -0.5), past_near=(1.001, 0, -0.5), far=(40., 0, -0.5), to_far=(39.9, 0, -0.5),
        behind=(-10, 0, -0.5))

    def seen(**settings):
        results = make_results([make_info(tmp_path, 'k', list(points.values()))], cameras='A')
        draw = LidarPixelSource(**settings).draw(results, 99, RNG(0))
        return {name for name, (x, y, z) in points.items() for (u, v), d in
                zip(draw.pixels, draw.distances) if x > 0
                and abs(9.5 - 10 * y / x - u) + abs(4.5 - 10 * (z + 0.5) / x - v) < 1e-4
                and abs(np.linalg.norm([x, y, z + 0.5]) - d) < 1e-4}

    free = {'centre', 'inside_left', 'bottom_inside', 'past_near', 'to_far'}
    assert seen(point_cloud_range=None) == free
    # ego z = LiDAR z + 2: bottom_inside lies under -1 m
    assert seen() == free - {'bottom_inside'}
    assert seen(point_cloud_range=(0, -5, -50, 20, 5, 50)) == {'centre', 'past_near'}
    assert seen(min_depth=5., max_depth=15.) == {'centre', 'inside_left'}


def test_lidar_points_reach_cameras_through_their_own_poses(tmp_path):
    ego, camera_ego = pose(x=100., y=50., yaw=1.), pose(x=100.6, y=50.2, yaw=1.02)
    points = RNG(0).uniform([2, -5, -3], [30, 5, 1], size=(500, 3)).astype(np.float32)
    info = make_info(tmp_path, 'k', points, ego=ego, camera_ego=camera_ego)
    results = make_results([info])
    rays = LidarPixelSource(None)(results, 9999, RNG(0)).validate()
    ends = rays.points(rays.targets['distances'][:, None].double())[:, 0].numpy()
    rows = np.concatenate([points, np.ones((500, 1))], axis=1)
    expected = (rows @ (np.linalg.inv(results['key_ego2global']) @ ego @ pose(z=2.)).T)[:, :3]
    nearest = np.linalg.norm(ends[:, None] - expected[None], axis=-1).min(axis=1)
    assert len(rays) > 50 and nearest.max() < 1e-3


def test_a_copy_of_the_key_frame_counts_again_and_is_offset_zero(tmp_path):
    points = RNG(0).uniform([5, -3, -2], [30, 3, 0], size=(50, 3))
    key, other = make_info(tmp_path, 'k', points), make_info(tmp_path, 'n', points)
    once = LidarPixelSource()(make_results([key, other], [0, 1]), 9999, RNG(0))
    twice = LidarPixelSource()(make_results([key, other, key], [0, 1, -1]), 9999, RNG(0))
    assert len(twice) == len(once) // 2 * 3
    assert twice.frame_ids.bincount().tolist() == [len(once), len(once) // 2]


@pytest.mark.parametrize('share, expected', [(None, 24), (0.5, 60), (1., 120), (0., 0)])
def test_key_frame_share(tmp_path, share, expected):
    infos = [make_info(tmp_path, name) for name in 'kabcd']
    draws = [CameraPixelSource(share).draw(make_results(infos), 120, RNG(s)) for s in range(40)]
    assert all(len(draw) == 120 and (np.diff(draw.frames) >= 0).all() for draw in draws)
    mean = np.mean([(draw.frames == 0).sum() for draw in draws])
    assert abs(mean - expected) < (3 if share is None else 1e-9)
    # too few elsewhere: the key frame fills up
    tiny = make_results([infos[0], make_info(tmp_path, 'e', size=(2, 2))])
    assert len(CameraPixelSource(0.5).draw(tiny, 120, RNG(0))) == 120


def test_no_point_gives_an_empty_bundle(tmp_path):
    behind = make_info(tmp_path, 'k', [[0, 0, 9.]])
    nothing = make_info(tmp_path, 'n', np.zeros((0, 3)))
    for infos in ([behind], [nothing], [behind, nothing]):
        for share in (None, 0.3):
            rays = LidarPixelSource(key_frame_share=share)(make_results(infos), 64, RNG(0))
            assert len(rays.validate()) == 0 and rays.targets['distances'].shape == (0,)
    empty = PixelDraw(*np.zeros((2, 0), np.int64), np.zeros((0, 2)), np.zeros(0))
    assert len(draw_to_rays(make_results([behind]), empty)) == 0


def test_projections_are_cached_per_frame(tmp_path):
    results = make_results([make_info(tmp_path, 'k', [[9., 0, 0]])])
    kept, plain = LidarPixelSource(), LidarPixelSource(cache_size=0)
    assert len(kept(results, 9, RNG(0))) == len(plain(results, 9, RNG(0))) == 1
    (tmp_path / 'k.bin').unlink()
    assert len(kept(results, 9, RNG(0))) == 1
    with pytest.raises(FileNotFoundError, match='k.bin of frame k'):
        plain(results, 9, RNG(0))


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match='frame k has no LiDAR; use CameraPixelSource'):
        LidarPixelSource()(make_results([make_info(tmp_path, 'k')]), 9, RNG(0))
    info = make_info(tmp_path, 'k', [[9., 0, 0]])
    with (tmp_path / 'k.bin').open('ab') as file:
        file.write(b'1234')
    with pytest.raises(ValueError, match='k.bin has 6 float32 values.*num_pts_feats = 5'):
        LidarPixelSource()(make_results([info]), 9, RNG(0))
    with pytest.raises(KeyError, match="frame k has no camera 'C'"):
        CameraPixelSource()(make_results([info], cameras='AC'), 9, RNG(0))
    with pytest.raises(ValueError, match='point_cloud_range'):
        LidarPixelSource((0, 0, 0, 1, 1, -1))
    with pytest.raises(ValueError, match='key_frame_share is 1.5'):
        CameraPixelSource(1.5)
    with pytest.raises(ValueError, match='0 < min < max'):
        LidarPixelSource(min_depth=5., max_depth=2.)


def test_published_rays_stay_in_the_lidar_time_ego_frame(tmp_path):
    """Where the volume is in another ego frame (key_ego='first_camera'), rays do not follow it."""
    results = make_results([make_info(tmp_path, 'k')])
    ours = CameraPixelSource()(results, 5, RNG(0))
    results['ray_ego2global'] = results['key_ego2global']
    results['key_ego2global'] = pose(x=90.)
    assert torch.equal(CameraPixelSource()(results, 5, RNG(0)).origins, ours.origins)
