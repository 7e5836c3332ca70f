"""PrepareRays: targets at the right pixels, masking, laziness, and empty samples."""
import numpy as np
import pytest
import torch
from mmdet3d.registry import TRANSFORMS
from PIL import Image
from test_rays_sources import make_info, make_results

from langocc.datasets.ray_sources import CameraPixelSource
from langocc.datasets.transforms.rays import PrepareRays
from langocc.teachers import Teacher

CAMERA = dict(type='CameraPixelSource')


class ColumnTeacher(Teacher):
    """Class = column modulo 3; feature = one-hot of frame and camera, then u and v."""
    embed_dims = 4

    def __init__(self):
        super().__init__(('road', 'car', 'sky'), ['car'], ['sky'])
        self.asked = set()

    def features(self, info, camera, pixels):
        self.asked.add((info['token'], camera))
        head = torch.tensor([float(ord(info['token'])), float(ord(camera))])
        return torch.cat([head.expand(len(pixels), 2), pixels.float()], dim=1)

    def classes(self, info, camera, pixels):
        return pixels[:, 0].long() % 3


@pytest.fixture
def results(tmp_path):
    return make_results([make_info(tmp_path, name) for name in 'kab'], [0, -1, 1])


def prepare(results, **settings):
    settings = {**dict(source=CAMERA, teacher=ColumnTeacher(), num_rays=200), **settings}
    return PrepareRays(**settings)(dict(results))['rays']


def test_targets_belong_to_their_rays(results):
    names = ('lang_feats', 'classes', 'sky', 'ground', 'distances')
    rays = prepare(results, targets=names).validate()
    assert sorted(rays.targets) == sorted(names) and len(rays) == 200
    token, camera, u, v = rays.targets['lang_feats'].T.long()
    frame_of = {0: 'k', -1: 'a', 1: 'b'}
    assert token.tolist() == [ord(frame_of[i]) for i in rays.frame_ids.tolist()]
    assert camera.tolist() == [ord('AB'[i]) for i in rays.camera_ids.tolist()]
    assert torch.equal(rays.targets['classes'], u % 3)
    assert torch.equal(rays.targets['sky'], u % 3 == 2)
    assert torch.equal(rays.targets['ground'], u % 3 == 0)
    assert rays.targets['distances'].isnan().all()
    key = (rays.frame_ids == 0) & (rays.camera_ids == 0)  # camera A looks along x of its ego
    info = results['ray_frames'][0]['info']['images']['A']
    cam2key = torch.tensor(np.linalg.inv(results['key_ego2global']) @ info['ego2global']
                           @ np.asarray(info['cam2ego']))
    expected = torch.stack([(u - 9.5) / 10, (v - 4.5) / 10, torch.ones(200)], dim=1).double()
    expected = torch.nn.functional.normalize(expected @ cam2key[:3, :3].T, dim=1).float()
    torch.testing.assert_close(rays.directions[key], expected[key])


def test_only_what_is_asked_and_only_images_with_rays(results):
    teacher = ColumnTeacher()
    rays = prepare(results, teacher=teacher, num_rays=2)
    assert list(rays.targets) == ['lang_feats'] and len(teacher.asked) <= 2
    assert prepare(results, teacher=None, targets=()).targets == {}


def test_colours_are_those_of_the_pixels(results):
    pictures = {}
    for frame in results['ray_frames'][:2]:  # of frame b no file is there, and no ray is drawn
        for camera, record in frame['info']['images'].items():
            name = frame['offset'], 'AB'.index(camera)
            pictures[name] = np.random.default_rng(len(pictures)).integers(0, 256, (10, 20, 3))
            Image.fromarray(pictures[name].astype(np.uint8)).save(record['img_path'])
    two = dict(results, ray_frames=results['ray_frames'][:2])
    rays = prepare(two, targets=('rgb', 'lang_feats'), image_cache_size=4)
    u, v = rays.targets['lang_feats'][:, 2:].T.long()
    expected = [pictures[i, j][y, x] / 255 for i, j, y, x in zip(
        rays.frame_ids.tolist(), rays.camera_ids.tolist(), v.tolist(), u.tolist())]
    np.testing.assert_allclose(rays.targets['rgb'], np.stack(expected), atol=1e-6)
    with pytest.raises(FileNotFoundError, match='b_[AB].png'):
        prepare(results, targets=('rgb',))


def test_a_broken_or_wrong_image_is_named(results):
    only = dict(results, ray_frames=results['ray_frames'][:1], camera_names=['A'])
    path = results['ray_frames'][0]['info']['images']['A']['img_path']
    noise = np.random.default_rng(0).integers(0, 256, (10, 21, 3))
    Image.fromarray(noise.astype(np.uint8)).save(path)
    with pytest.raises(ValueError, match='k_A.png has 21 x 10 pixels, its info says 20 x 10'):
        prepare(only, targets=('rgb',))
    with open(path, 'r+b') as file:
        file.truncate(200)
    with pytest.raises(OSError, match='k_A.png'):
        prepare(only, targets=('rgb',))


def test_dynamic_rays_go_from_other_frames_only(results):
    settings = dict(num_rays=10**6, targets=('classes',))
    everything = prepare(results, **settings)
    masked = prepare(results, mask_dynamic=True, **settings)
    car = everything.targets['classes'] == 1
    keep = ~car | (everything.frame_ids == 0)
    assert len(masked) == int(keep.sum()) < len(everything)
    torch.testing.assert_close(masked.directions, everything[keep].directions)
    assert (masked.targets['classes'][masked.frame_ids == 0] == 1).any()
    assert not (masked.targets['classes'][masked.frame_ids != 0] == 1).any()


def test_a_copy_of_the_key_frame_is_not_masked(results):
    copies = dict(results, ray_frames=[dict(offset=o, info=results['ray_frames'][0]['info'])
                                       for o in (-1, 0, 1)])
    rays = prepare(copies, num_rays=10**6, targets=('classes',), mask_dynamic=True)
    assert len(rays) == 3 * 2 * 200 and (rays.frame_ids == 0).all()


def test_empty_sample_gives_an_empty_bundle_with_all_targets(tmp_path):
    results = make_results([make_info(tmp_path, 'k', np.zeros((0, 3)))])
    rays = prepare(results, source=dict(type='LidarPixelSource'), mask_dynamic=True,
                   targets=('lang_feats', 'rgb', 'distances', 'classes', 'sky')).validate()
    shapes = {name: tuple(target.shape) for name, target in rays.targets.items()}
    assert len(rays) == 0 and shapes == dict(lang_feats=(0, 4), rgb=(0, 3), distances=(0,),
                                             classes=(0,), sky=(0,))
    assert rays.targets['sky'].dtype == torch.bool


def test_numpy_seed_decides_the_rays(results):
    def draw(seed):
        np.random.seed(seed)
        return prepare(results, num_rays=20).targets['lang_feats']
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize('settings, message', [
    (dict(targets=('depth',)), "unknown targets \\['depth'\\]"),
    (dict(teacher=None), "\\['lang_feats'\\] need a teacher"),
    (dict(teacher=None, targets=(), mask_dynamic=True), "\\['mask_dynamic'\\] need a teacher"),
    (dict(num_rays=0), 'num_rays is 0'),
])
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        PrepareRays(**{**dict(source=CameraPixelSource(), teacher=ColumnTeacher()), **settings})


def test_registered():
    transform = TRANSFORMS.build(dict(type='PrepareRays', source=CAMERA, targets=()))
    assert isinstance(transform, PrepareRays) and 'CameraPixelSource' in repr(transform)
