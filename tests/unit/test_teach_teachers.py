"""Teachers from files: exact values at pixels, classes, caching, and errors."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from test_teach_vocabulary import RandomText

from langocc.teachers import FeatureMapTeacher, LRUCache, ProbabilityTeacher, sample_map

INFO = dict(token='frame', images=dict(CAM=dict(
    sample_data_token='abc', width=40, height=20, img_path='x.jpg')))
PIXELS = torch.tensor([[0., 0.], [39.5, 19.5], [-0.5, -0.5], [12.3, 7.9]], dtype=torch.float64)


def naive_sample(values, u, v, width, height):
    """One pixel in float64, by the definition of the pixel rule."""
    h, w = values.shape[1:]
    x = min(max((u + 0.5) / width * w - 0.5, 0), w - 1)
    y = min(max((v + 0.5) / height * h - 0.5, 0), h - 1)
    out = 0
    for j in range(h):
        for i in range(w):
            out = out + max(0, 1 - abs(x - i)) * max(0, 1 - abs(y - j)) * values[:, j, i]
    return out


@pytest.mark.parametrize('size', [(4, 10), (20, 40), (1, 1), (27, 5)])
def test_sample_map_against_naive_float64(size):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, *size))
    pixels = rng.uniform([-0.5, -0.5], [39.5, 19.5], size=(200, 2))
    expected = np.stack([naive_sample(values, u, v, 40, 20) for u, v in pixels])
    np.testing.assert_allclose(sample_map(values, pixels, (40, 20)), expected, atol=1e-6)


def test_an_image_returns_its_own_pixels_and_a_ramp_is_exact():
    image = np.random.default_rng(0).integers(0, 256, size=(20, 40, 3)).astype(np.uint8)
    v, u = np.mgrid[:20, :40]
    out = sample_map(image.transpose(2, 0, 1), np.stack([u, v], -1).reshape(-1, 2), (40, 20))
    assert np.array_equal(out.reshape(20, 40, 3), image)
    ramp = ((np.arange(10) + 0.5) / 10 * 40 - 0.5)[None, None].repeat(5, 1)  # its own u
    pixels = np.random.default_rng(1).uniform([1.5, -0.5], [37.5, 19.0], size=(99, 2))
    np.testing.assert_allclose(sample_map(ramp, pixels, (40, 20))[:, 0], pixels[:, 0], atol=1e-5)
    shifted = sample_map(ramp, pixels + 0.5, (40, 20), parity_half_pixel=True)[:, 0]
    np.testing.assert_allclose(shifted, pixels[:, 0], atol=1e-5)


def test_parity_is_grid_sample_of_the_published_rule(tmp_path):
    values = torch.rand(3, 5, 7)
    pixels = torch.rand(50, 2) * torch.tensor([32., 14.]) + 3
    grid = pixels / torch.tensor([40., 20.]) * 2 - 1
    expected = F.grid_sample(values[None], grid[None, None], align_corners=False,
                             padding_mode='border')[0, :, 0].T
    out = sample_map(values.numpy(), pixels.numpy(), (40, 20), parity_half_pixel=True)
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-5)
    # The teachers hand the switch on, and read elsewhere without it.
    np.savez(tmp_path / 'abc.npz', probs=values.numpy())
    for parity in (True, False):
        maps = FeatureMapTeacher(tmp_path, embed_dims=3, parity_half_pixel=parity)
        probs = ProbabilityTeacher(tmp_path, RandomText(), ('road', 'car', 'sky'),
                                   background=False, parity_half_pixel=parity)
        for found, theirs in (
                (maps.features(INFO, 'CAM', pixels), F.normalize(expected, dim=1)),
                (probs.probabilities(INFO, 'CAM', pixels), F.normalize(expected, 1, dim=1))):
            assert torch.allclose(found, theirs, atol=1e-5) == parity


@pytest.mark.parametrize('pixel', [(-0.6, 3), (3, 19.6), (np.nan, 1)])
def test_sample_map_refuses_pixels_outside(pixel):
    with pytest.raises(ValueError, match='outside the image of 40 x 20'):
        sample_map(np.zeros((1, 2, 2)), np.array([[1., 1.], pixel]), (40, 20))


def test_lru_cache_forgets_the_oldest():
    cache, loads = LRUCache(2), []
    for key in 'abacab':
        assert cache.get(key, lambda: loads.append(key) or key.upper()) == key.upper()
    assert loads == ['a', 'b', 'c', 'b'] and len(cache) == 2


@pytest.fixture
def probabilities(tmp_path):
    """Teacher with classes road, car, sky over maps (4, 5, 10) of uint8."""
    def make(probs=None, key='probs', **kwargs):
        if probs is None:
            probs = np.random.default_rng(0).integers(0, 256, size=(4, 5, 10)).astype(np.uint8)
        np.savez_compressed(tmp_path / 'abc.npz', **{key: probs})
        settings = dict(text_encoder=RandomText(), class_names=('road', 'car', 'sky'))
        return ProbabilityTeacher(tmp_path, **{**settings, **kwargs}), probs
    return make


def test_probability_features_by_hand(probabilities):
    teacher, probs = probabilities()
    rows = []
    for u, v in PIXELS.tolist():
        values = naive_sample(probs.astype(np.float64), u, v, 40, 20)[:3]
        rows.append(values / values.sum())
    expected = torch.from_numpy(np.stack(rows))
    out = teacher.probabilities(INFO, 'CAM', PIXELS)
    torch.testing.assert_close(out.double(), expected, atol=1e-6, rtol=0)
    feats = teacher.features(INFO, 'CAM', PIXELS)
    text = RandomText().encode(['road', 'car', 'sky']).double()
    torch.testing.assert_close(feats.double(), F.normalize(expected @ text, dim=1),
                               atol=1e-5, rtol=0)
    assert feats.dtype == torch.float32 and teacher.embed_dims == 16
    classes = teacher.classes(INFO, 'CAM', PIXELS)
    assert torch.equal(classes, expected.argmax(dim=1)) and classes.dtype == torch.long
    assert teacher.features(INFO, 'CAM', PIXELS[:0]).shape == (0, 16)
    assert teacher.classes(INFO, 'CAM', PIXELS[:0]).shape == (0,)


def test_background_alone_is_unknown_and_finite(probabilities):
    probs = np.zeros((4, 5, 10), np.uint8)
    probs[3] = 255
    teacher, _ = probabilities(probs)
    assert (teacher.classes(INFO, 'CAM', PIXELS) == -1).all()
    feats = teacher.features(INFO, 'CAM', PIXELS)
    torch.testing.assert_close(feats.norm(dim=1), torch.ones(4))
    assert not teacher.is_dynamic(torch.tensor([-1])).any()


def test_named_classes(probabilities):
    teacher, _ = probabilities()
    assert teacher.dynamic_classes == ('car',) and teacher.sky_classes == ('sky',)
    classes = torch.tensor([0, 1, 2, -1])
    assert teacher.is_dynamic(classes).tolist() == [False, True, False, False]
    assert teacher.is_sky(classes).tolist() == [False, False, True, False]
    assert teacher.ground_classes == ('road',)
    assert teacher.is_ground(classes).tolist() == [True, False, False, False]
    assert probabilities(ground_classes=['car'])[0].is_ground(classes).tolist() == [
        False, True, False, False]
    with pytest.raises(ValueError, match="ground_classes.*'grass' is not one"):
        probabilities(ground_classes=['grass'])
    with pytest.raises(ValueError, match="dynamic_classes.*'cars'.*nearest: \\['car'"):
        probabilities(dynamic_classes=['cars'])


def test_maps_are_cached(probabilities, tmp_path):
    kept, _ = probabilities(cache_size=1)
    plain, _ = probabilities(cache_size=0)
    for teacher in (kept, plain):
        teacher.features(INFO, 'CAM', PIXELS)
    (tmp_path / 'abc.npz').unlink()
    kept.features(INFO, 'CAM', PIXELS)
    with pytest.raises(FileNotFoundError, match='abc.npz'):
        plain.features(INFO, 'CAM', PIXELS)


@pytest.mark.parametrize('settings, message', [
    (dict(probs=np.zeros((3, 5, 10), np.uint8)), r'abc.npz: probs has shape \(3, 5, 10\), .*\(4,'),
    (dict(probs=np.zeros((4, 50), np.uint8)), r'abc.npz: probs has shape \(4, 50\)'),
    (dict(probs=np.zeros((4, 5, 10), np.int64)), 'abc.npz: probs is int64'),
    (dict(key='other'), "abc.npz: no array 'probs'"),
])
def test_bad_maps_are_named(probabilities, settings, message):
    teacher, _ = probabilities(**settings)
    with pytest.raises(ValueError, match=message):
        teacher.features(INFO, 'CAM', PIXELS)


def test_truncated_map_and_missing_camera(probabilities, tmp_path):
    teacher, _ = probabilities()
    path = tmp_path / 'abc.npz'
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match='cannot read .*abc.npz'):
        teacher.features(INFO, 'CAM', PIXELS)
    with pytest.raises(KeyError, match="frame frame has no camera 'CAM_B'"):
        teacher.features(INFO, 'CAM_B', PIXELS)
    with pytest.raises(FileNotFoundError, match='no folder'):
        ProbabilityTeacher(tmp_path / 'none', RandomText())


@pytest.mark.parametrize('suffix', ['npy', 'npz'])
def test_feature_maps(tmp_path, suffix):
    values = np.random.default_rng(0).normal(size=(16, 6, 9)).astype(np.float16)
    if suffix == 'npy':
        np.save(tmp_path / 'abc.npy', values)
    else:
        np.savez(tmp_path / 'abc.npz', feats=values)
    teacher = TASK_UTILS.build(dict(type='FeatureMapTeacher', root=str(tmp_path), embed_dims=16,
                                    text_encoder=RandomText(), class_names=['car', 'sky'],
                                    sky_classes=['sky']))
    rows = [naive_sample(values.astype(np.float64), u, v, 40, 20) for u, v in PIXELS.tolist()]
    expected = F.normalize(torch.from_numpy(np.stack(rows)), dim=1)
    feats = teacher.features(INFO, 'CAM', PIXELS)
    torch.testing.assert_close(feats.double(), expected, atol=1e-5, rtol=0)
    text = RandomText().encode(['car', 'sky']).double()
    assert torch.equal(teacher.classes(INFO, 'CAM', PIXELS), (expected @ text.T).argmax(dim=1))
    bare = FeatureMapTeacher(tmp_path, embed_dims=16)
    assert bare.classes(INFO, 'CAM', PIXELS) is None and bare.class_names is None
    assert teacher.ground_classes == bare.ground_classes == ()
    other = FeatureMapTeacher(tmp_path, embed_dims=16, text_encoder=RandomText(),
                              class_names=['car', 'sky'], ground_classes=['sky'])
    assert other.is_ground(torch.tensor([0, 1])).tolist() == [False, True]
    with pytest.raises(ValueError, match=r'shape \(16, 6, 9\), expected \(15, h, w\)'):
        FeatureMapTeacher(tmp_path, embed_dims=15).features(INFO, 'CAM', PIXELS)
    with pytest.raises(FileNotFoundError, match='abc.npy'):
        FeatureMapTeacher(tmp_path.parent, embed_dims=16).features(INFO, 'CAM', PIXELS)


def test_zero_features_stay_finite_and_unknown(tmp_path):
    np.save(tmp_path / 'abc.npy', np.zeros((16, 2, 2), np.float32))
    teacher = FeatureMapTeacher(tmp_path, embed_dims=16, text_encoder=RandomText(),
                                class_names=['car'])
    assert torch.equal(teacher.features(INFO, 'CAM', PIXELS), torch.zeros(4, 16))
    assert (teacher.classes(INFO, 'CAM', PIXELS) == -1).all()
