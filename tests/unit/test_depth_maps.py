"""Stored depth as distances: kinds, formats, edges, what is unknown, and the way to the rays."""
import numpy as np
import pytest
import torch
from PIL import Image
from test_rays_sources import make_info, make_results

from langocc.datasets.depth_maps import DepthMaps, DepthStore, depth_directions, ray_lengths
from langocc.datasets.transforms.rays import PrepareRays
from langocc.feature_store import FeatureWriter
from langocc.feature_store.codecs import Fp16Codec
from voxelrender import project_points

WIDTH, HEIGHT = 20, 10
ESTIMATOR = dict(teacher='an estimator', weights_sha256=None, input_size=[10, 20])
DEPTHS = np.random.default_rng(0).uniform(2, 30, (HEIGHT, WIDTH))
v, u = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
PIXELS = np.stack([u, v], 1).astype(float)


@pytest.fixture
def info(tmp_path):
    return make_info(tmp_path, 'k', cameras=('A',))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'depth').mkdir()
    return tmp_path / 'depth'


def ask(source, info, pixels=PIXELS):
    return source.distances(info, 'A', pixels)


def test_z_depth_becomes_a_distance_that_projects_back(folder, info):
    np.save(folder / 'kA.npy', DEPTHS)
    distances = ask(DepthMaps(folder, 'z'), info)
    rays = np.concatenate([(PIXELS - [9.5, 4.5]) / 10, np.ones((200, 1))], axis=1)
    points = rays / np.linalg.norm(rays, axis=1)[:, None] * distances[:, None]
    matrix = torch.eye(4, dtype=torch.double)
    matrix[:3, :3] = torch.tensor(info['images']['A']['cam2img'])
    pixels, depths = project_points(torch.from_numpy(points), matrix, torch.eye(4).double())
    np.testing.assert_allclose(depths, DEPTHS.ravel(), rtol=1e-9)
    np.testing.assert_allclose(pixels, PIXELS, atol=1e-9)
    assert (distances > DEPTHS.ravel()).all()
    along = ask(DepthMaps(folder, 'ray'), info)
    np.testing.assert_allclose(along, DEPTHS.ravel())
    np.testing.assert_allclose(ray_lengths(np.array([[9.5, 4.5], [19.5, 4.5]]),
                                           info['images']['A']['cam2img']), [1, 2**0.5])


def test_formats_say_the_same(folder, info):
    expected = np.round(DEPTHS * 256) / 256
    stored = np.round(DEPTHS * 256).astype(np.uint16)
    files = dict(
        npy=lambda path: np.save(path, expected),
        npz=lambda path: np.savez(path, depth=expected.astype(np.float32), other=np.zeros(3)),
        png=lambda path: Image.fromarray(stored).save(path))
    for suffix, write in files.items():
        path = folder / f'kA.{suffix}'
        write(path)
        source = DepthMaps(folder, 'ray', scale=1 / 256 if suffix == 'png' else None, key='depth')
        np.testing.assert_allclose(ask(source, info), expected.ravel(), rtol=1e-6)
        path.unlink()
    named = folder / 'A' / 'k_A.npy'  # beside the camera, by the image's name
    named.parent.mkdir()
    np.save(named, expected)
    np.testing.assert_allclose(ask(DepthMaps(folder, 'ray', layout='camera'), info),
                               expected.ravel())


def test_unknown_depths_are_nan(folder, info):
    depths = np.full((HEIGHT, WIDTH), 7.)
    depths[0, :6] = [0, -1, np.nan, np.inf, 0.4, 81]
    np.save(folder / 'kA.npy', depths)
    for interpolation in ('nearest', 'bilinear'):
        found = ask(DepthMaps(folder, 'ray', interpolation=interpolation), info)
        assert np.isnan(found[:6]).all() and (found[6:] == 7).all()
    wide = ask(DepthMaps(folder, 'ray', depth_range=(0.1, 100)), info)
    assert wide[4:6].tolist() == [0.4, 81]


def test_nearest_takes_the_cell_a_pixel_lies_in(folder, info):
    """A map of half the size: cells are two pixels wide, the first spans pixels 0 and 1."""
    small = DEPTHS[::2, ::2]
    np.save(folder / 'kA.npy', small)
    found = ask(DepthMaps(folder, 'ray'), info).reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(found, small.repeat(2, 0).repeat(2, 1))


def test_bilinear_blends_surfaces_and_not_edges(folder, info):
    depths = np.broadcast_to(10 + 0.2 * np.arange(10), (5, 10)).copy()  # a slope in x
    depths[:, 5:] += 20  # an edge between cells 4 and 5
    depths[0, 8] = 0
    np.save(folder / 'kA.npy', depths)
    source = DepthMaps(folder, 'ray', interpolation='bilinear')
    pixels = np.array([[2.5, 5.], [2., 5.], [9.4, 5.], [9.6, 5.], [16., 0.5], [15., 0.5], [19, 9]])
    found = ask(source, info, pixels)
    # cell of u: (u + 0.5) / 2 - 0.5
    expected = [10.2, 10.15, 10.8, 31., np.nan, 31.4, 31.8]
    np.testing.assert_allclose(found, expected)
    loose = DepthMaps(folder, 'ray', interpolation='bilinear', edge_ratio=9.)
    assert 10.8 < ask(loose, info, pixels[2:3])[0] < 31


def test_a_feature_store_keeps_depth(folder, info):
    depths = DEPTHS.copy()
    depths[0, :3] = [0, np.nan, -1]
    store = folder / 'store'
    with FeatureWriter(store, Fp16Codec(2), ESTIMATOR) as writer:
        writer.write('kA', depth_directions(depths, unit=10.))
    found = ask(DepthStore(store, 'ray'), info)
    assert np.isnan(found[:3]).all()
    np.testing.assert_allclose(found[3:], depths.ravel()[3:], rtol=2e-3)
    twice = ask(DepthStore(store, 'ray', unit=20., interpolation='bilinear'), info)
    np.testing.assert_allclose(twice[3:], 2 * found[3:], rtol=1e-6)
    z = ask(DepthStore(store, 'z'), info)
    np.testing.assert_allclose(
        z[3:], found[3:] * ray_lengths(PIXELS, info['images']['A']['cam2img'])[3:])
    with pytest.raises(KeyError, match="no item 'xA'"):
        ask(DepthStore(store, 'z'), make_info(folder, 'x', cameras=('A',)))
    with FeatureWriter(folder / 'wide', Fp16Codec(3), ESTIMATOR) as writer:
        writer.write('kA', np.ones((3, 2, 2), np.float32))
    with pytest.raises(ValueError, match='have 3 values, expected the 2 of depth_directions'):
        DepthStore(folder / 'wide', 'z')


def test_rays_carry_the_distances_of_their_pixels(folder, tmp_path):
    infos = [make_info(tmp_path, token) for token in 'ka']
    for index, token in enumerate(['kA', 'kB', 'aA', 'aB']):
        np.save(folder / f'{token}.npy', np.full((HEIGHT, WIDTH), 10. + index))
    depth = dict(type='DepthMaps', root=str(folder), kind='ray')
    results = make_results(infos, [0, -1])
    transform = PrepareRays(dict(type='CameraPixelSource'), num_rays=10**6, depth=depth,
                            targets=('distances',))
    rays = transform(dict(results))['rays']
    expected = 10. + rays.camera_ids + 2 * (rays.frame_ids == -1)
    torch.testing.assert_close(rays.targets['distances'], expected.float())
    scaled = transform(dict(results, bev_aug_matrix=np.diag([2., 2, 2, 1])))['rays']
    torch.testing.assert_close(scaled.targets['distances'], 2 * expected.float())
    assert 'DepthMaps' in repr(transform)
    with pytest.raises(ValueError, match="depth is set, but 'distances' is not among the targets"):
        PrepareRays(dict(type='CameraPixelSource'), depth=depth, targets=())


@pytest.mark.parametrize('settings, message', [
    (dict(kind='depth'), "kind is 'depth', expected 'z'"),
    (dict(interpolation='cubic'), "interpolation is 'cubic'"),
    (dict(depth_range=(5, 2)), r'depth_range is \(5, 2\)'),
    (dict(edge_ratio=0.5), 'edge_ratio is 0.5'), (dict(scale=0), 'scale is 0'),
    (dict(layout='flat'), "layout is 'flat'")])
def test_settings_are_checked_at_once(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        DepthMaps(folder, **dict(dict(kind='z'), **settings))


def test_files_that_are_wrong_are_named(folder, info):
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere: .*make_pseudo_depth'):
        DepthMaps(folder / 'nowhere', 'z')
    with pytest.raises(TypeError, match='kind'):
        DepthMaps(folder)  # maps do not tell what they hold
    source = DepthMaps(folder, 'z', cache_size=0)
    with pytest.raises(FileNotFoundError, match=r'of frame k: none of .*kA.npy.*kA.png'):
        ask(source, info)
    for values, message in ((np.ones((HEIGHT, WIDTH), np.uint16), 'holds uint16: set scale'),
                            (np.ones((3, HEIGHT, WIDTH)), r'kA.npy has shape \(3, 10, 20\)'),
                            (np.ones((HEIGHT, WIDTH), bool), 'holds bool, expected floating')):
        np.save(folder / 'kA.npy', values)
        with pytest.raises(ValueError, match=message):
            ask(source, info)
    (folder / 'kA.npy').write_bytes(b'\x93NUMPY')
    with pytest.raises(ValueError, match='cannot read .*kA.npy'):
        ask(source, info)
    (folder / 'kA.npy').unlink()
    np.savez(folder / 'kA.npz', a=DEPTHS, b=DEPTHS)
    with pytest.raises(ValueError, match="no array None among .*'a', 'b'.*; set key"):
        ask(source, info)
    (folder / 'kA.npz').unlink()
    (folder / 'kA.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='cannot read .*kA.png'):
        ask(source, info)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / 'kA.png')
    with pytest.raises(ValueError, match=r'kA.png has shape \(4, 4, 3\), expected \(h, w\)'):
        ask(source, info)
