"""The online teacher: targets as from stored maps, few images, and no weight in the model."""
import copy

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import pseudo_collate
from PIL import Image
from test_detector import build, make_batch, make_rig, run
from test_rays_sources import make_info, make_results
from tiny_teachers import TinyDenseTeacher

from langocc.datasets.ray_sources import CameraPixelSource, LidarPixelSource
from langocc.datasets.transforms import PackOccInputs, PrepareRays
from langocc.feature_store import FeatureWriter, StoreTeacher, build_codec, finish_store
from langocc.structures import RayImages
from langocc.teachers import (
    FeatureMapTeacher, OnlineTeacher, TextEncoder, sample_map, sample_tensor_maps
)
from voxelrender import RayBundle

CAMERA = dict(type='CameraPixelSource')
TINY = dict(type='TinyDenseTeacher', chunk_size=1)


class Letters(TextEncoder):
    """Random directions for anything."""
    embed_dims = 6

    def encode(self, prompts):
        generator = torch.Generator().manual_seed(3)
        return torch.nn.functional.normalize(torch.randn(len(prompts), 6, generator=generator))


WITH_CLASSES = dict(text_encoder=Letters(), class_names=('road', 'car', 'tree', 'sky'),
                    dynamic_classes=('car', ), sky_classes=('sky', ))


@pytest.fixture
def results(tmp_path):
    """Key frame, the next one twice as large, and a copy of the key frame; with their images."""
    infos = [make_info(tmp_path, 'k'), make_info(tmp_path, 'n', size=(40, 20))]
    rng = np.random.default_rng(0)
    for info in infos:
        for image in info['images'].values():
            size = image['height'], image['width'], 3
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(image['img_path'])
    return make_results([*infos, infos[0]], [0, 1, 2])


def prepare(results, seed=0, **settings):
    np.random.seed(seed)
    out = PrepareRays(**{**dict(source=CAMERA, num_rays=300), **settings})(dict(results))
    return out['rays'], out.get('ray_images')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('parity', [False, True])
@pytest.mark.parametrize('size', [(7, 9), (1, 5), (4, 1)])
def test_maps_are_sampled_to_the_last_bit_as_on_disk(size, parity, dtype):
    maps = torch.randn(3, 5, *size).to(dtype)
    pixels = torch.rand(400, 2).double() * torch.tensor([64., 48.]) - 0.5
    pixels[:4] = torch.tensor([[-0.5, -0.5], [63.5, 47.5], [0, 0], [63, 47]])
    ids = torch.randint(3, (400, ))
    found = sample_tensor_maps(maps, ids, pixels, (64, 48), parity)
    for index in range(3):
        expected = sample_map(maps[index].numpy(), pixels[ids == index].numpy(), (64, 48), parity)
        np.testing.assert_array_equal(found[ids == index].numpy(), expected)


@pytest.mark.parametrize('parity', [False, True])
def test_targets_are_those_of_a_teacher_in_the_worker(results, parity):
    teacher = TinyDenseTeacher(chunk_size=1, parity_half_pixel=parity, **WITH_CLASSES)
    settings = dict(targets=('lang_feats', 'classes', 'sky', 'ground', 'rgb', 'distances'),
                    mask_dynamic=True)
    expected, none = prepare(results, teacher=teacher, **settings)
    rays, images = prepare(results, teacher='online', **settings)
    assert none is None and sorted(rays.targets) == ['distances', 'rgb'] and len(rays) == 300
    assert len(images.images) == 4 and len(set(images.tokens)) == 4  # no second key frame
    filled, = OnlineTeacher(teacher)([rays], [images])
    assert 100 < len(filled) == len(expected) < 300
    assert {1, 3} < set(expected.targets['classes'].tolist())  # a mover, and the sky
    assert sorted(filled.targets) == sorted(expected.targets)
    assert torch.equal(filled.directions, expected.directions)
    for name, values in expected.targets.items():
        assert torch.equal(filled.targets[name], values) or name == 'distances', name


class PickyTeacher(TinyDenseTeacher):
    """Has other candidates in each image, and wants full precision."""

    def kept_prompts(self, maps):
        assert not torch.is_autocast_enabled('cpu')
        kept = torch.ones(len(maps), 4, dtype=torch.bool)
        best = (maps.flatten(2).mean(2) @ self.text_embeds.T).argmax(1)
        kept[torch.arange(len(maps)), best] = False
        return kept


def test_candidates_of_each_image_and_mixed_precision(results):
    settings = dict(targets=('lang_feats', 'classes'))
    teacher = PickyTeacher(chunk_size=2, **WITH_CLASSES)
    expected, _ = prepare(results, teacher=teacher, **settings)
    plain, _ = prepare(results, teacher=TinyDenseTeacher(chunk_size=1, **WITH_CLASSES), **settings)
    rays, images = prepare(results, teacher='online', **settings)
    with torch.autocast('cpu', torch.bfloat16):  # as the optimizer wrapper of --amp has it
        filled, = OnlineTeacher(teacher)([rays], [images])
    torch.testing.assert_close(filled.targets['lang_feats'], expected.targets['lang_feats'])
    assert torch.equal(filled.targets['classes'], expected.targets['classes'])
    assert not torch.equal(plain.targets['classes'], filled.targets['classes'])


def test_a_batch_is_looked_at_once_and_gives_what_its_samples_give(results):
    teacher = TinyDenseTeacher(chunk_size=3)
    seen, maps = [], teacher.maps
    teacher.maps = lambda images: seen.append(tuple(images.shape)) or maps(images)
    online, parts = OnlineTeacher(teacher), [prepare(results, seed, teacher='online')
                                             for seed in (1, 2)]
    together = online(*zip(*parts))
    assert sorted(seen) == [(2, 3, 10, 20), (2, 3, 20, 40)]  # four images of two sizes, once each
    for (rays, images), bundle in zip(parts, together):
        alone, = online([rays], [images])
        torch.testing.assert_close(bundle.targets['lang_feats'], alone.targets['lang_feats'])
    assert not rays.targets and not bundle.targets['lang_feats'].requires_grad


def test_a_sample_without_rays(results, tmp_path):
    empty = make_results([make_info(tmp_path, 'e', np.zeros((0, 3)))])
    rays, images = prepare(empty, teacher='online', source=dict(type='LidarPixelSource'))
    other = prepare(results, teacher='online')
    online = OnlineTeacher(TinyDenseTeacher())
    filled, full = online([rays, other[0]], [images, other[1]])
    assert filled.targets['lang_feats'].shape == (0, 6) and len(full) == 300
    assert online([rays], [images])[0].targets['lang_feats'].shape == (0, 6)


@pytest.mark.parametrize('share', [None, 0., 0.3, 1.])
def test_rays_come_from_few_images(results, share):
    counts = {}
    for seed in range(60):
        draw = CameraPixelSource(share, num_images=2).draw(results, 50, np.random.default_rng(seed))
        assert len(draw) == 50
        used = set(zip(draw.frames.tolist(), draw.cameras.tolist()))
        assert len(used) <= 2
        key = sum(frame != 1 for frame, _ in used)  # frame 2 is a copy of the key frame
        counts[key] = counts.get(key, 0) + 1
    expected = {None: {0, 1, 2}, 0.: {0}, 0.3: {1}, 1.: {2}}[share]
    assert set(counts) == expected


def test_all_images_have_their_turn_and_none_changes_nothing(results):
    used = set()
    for seed in range(40):
        draw = CameraPixelSource(num_images=1).draw(results, 5, np.random.default_rng(seed))
        used |= set(zip(draw.frames.tolist(), draw.cameras.tolist()))
    assert len(used) == 6
    many = CameraPixelSource(num_images=99).draw(results, 10**6, np.random.default_rng(0))
    everything = CameraPixelSource().draw(results, 10**6, np.random.default_rng(0))
    assert np.array_equal(many.pixels, everything.pixels) and len(everything) == 2400
    with pytest.raises(ValueError, match='num_images is 0'):
        CameraPixelSource(num_images=0)


def test_lidar_is_read_of_chosen_frames_only(tmp_path):
    points = np.array([[5., 0, 0], [6., 1, 0], [-5., 0, 0]])
    infos = [make_info(tmp_path, 'k', points), make_info(tmp_path, 'n', points)]
    (tmp_path / 'n.bin').unlink()
    results, source = make_results(infos), LidarPixelSource(key_frame_share=1., num_images=1)
    for seed in range(5):
        draw = source.draw(results, 9, np.random.default_rng(seed))
        assert (draw.frames == 0).all() and len(set(draw.cameras)) == 1 and len(draw) in (1, 2)


# ----------------------------------------------------------- in a detector

def sample_of(results, teacher, seed, stored=None):
    """Packed sample of the tiny detector, its rays from ``results``."""
    np.random.seed(seed)
    out = PrepareRays(CAMERA, teacher, 40)(dict(results))
    torch.manual_seed(seed)
    out['imgs'] = torch.randint(0, 255, (3, 2, 3, 32, 64), dtype=torch.uint8)
    out['rig'] = make_rig(3, 2)
    return PackOccInputs()(out)


def losses_of(samples, **preprocessor):
    model = build(data_preprocessor=dict(type='OccDataPreprocessor', **preprocessor)).train()
    torch.manual_seed(5)
    losses = run(model, pseudo_collate(samples), 'loss')
    model.parse_losses(losses)[0].backward()
    return losses, model


def test_training_online_is_training_with_stored_maps(results, tmp_path):
    teacher = TinyDenseTeacher(chunk_size=1)
    for frame in results['ray_frames'][:2]:
        for image in frame['info']['images'].values():
            pixels = torch.from_numpy(np.array(Image.open(image['img_path']))).permute(2, 0, 1)
            np.save(tmp_path / f'{image["sample_data_token"]}.npy',
                    teacher.maps(pixels[None])[0].numpy())
    stored = FeatureMapTeacher(tmp_path, 6)
    online, model = losses_of([sample_of(results, 'online', seed) for seed in (1, 2)],
                              online_teacher=TINY)
    files, twin = losses_of([sample_of(results, stored, seed) for seed in (1, 2)])
    worker, _ = losses_of([sample_of(results, TinyDenseTeacher(chunk_size=1), seed)
                           for seed in (1, 2)])
    assert online['loss_lang'] > 0.01 and sorted(online) == sorted(files)
    for name, value in files.items():
        assert torch.equal(online[name], value) and torch.equal(worker[name], value), name
    for (name, one), other in zip(model.named_parameters(), twin.parameters()):
        assert torch.equal(one.grad, other.grad), name
    wrong, _ = losses_of([sample_of(results, 'online', seed) for seed in (1, 2)],
                         online_teacher=dict(TINY, seed=1))
    assert not torch.equal(online['loss_lang'], wrong['loss_lang'])


@pytest.mark.parametrize('codec, error', [(dict(type='Fp16Codec', embed_dims=6), 1e-3),
                                          (dict(type='Int8Codec', embed_dims=6), 1e-2)])
def test_training_online_is_training_with_a_store_but_for_its_codec(results, tmp_path, codec,
                                                                    error):
    teacher, codec = TinyDenseTeacher(chunk_size=1), build_codec(codec)
    description = dict(teacher.describe(), weights_sha256='0' * 64)
    with FeatureWriter(tmp_path / 'store', codec, description) as writer:
        for frame in results['ray_frames'][:2]:
            for camera, image in frame['info']['images'].items():
                writer.write(image['sample_data_token'],
                             torch.from_numpy(teacher.image_map(frame['info'], camera)))
    finish_store(tmp_path / 'store')
    store = StoreTeacher(tmp_path / 'store')
    online, _ = losses_of([sample_of(results, 'online', seed) for seed in (1, 2)],
                          online_teacher=TINY)
    stored, _ = losses_of([sample_of(results, store, seed) for seed in (1, 2)])
    assert torch.equal(online['opacity'], stored['opacity'])
    assert 0 < (online['loss_lang'] / stored['loss_lang'] - 1).abs() < error


def test_the_teacher_is_no_part_of_the_model(results):
    plain = build()
    model = build(data_preprocessor=dict(type='OccDataPreprocessor', online_teacher=TINY))
    model.train()
    teacher = model.data_preprocessor.online_teacher.build()
    assert list(model.state_dict()) == list(plain.state_dict())
    owned = {id(p) for p in model.parameters()}
    weights = list(teacher.network.parameters())
    assert weights and not any(id(p) in owned or p.requires_grad for p in weights)
    average = copy.deepcopy(model)
    assert average.data_preprocessor.online_teacher.build() is teacher
    assert not teacher.network.training
    devices = []
    teacher.to = lambda device: devices.append(device) or teacher
    for _ in range(2):
        run(model, pseudo_collate([sample_of(results, 'online', 1)]), 'loss')
    assert devices == [torch.device('cpu')]


def test_predicting_needs_no_weights_and_training_says_at_once_what_is_missing(tmp_path):
    config = dict(type='OccDataPreprocessor', online_teacher=dict(type='FeatureMapTeacher',
                                                                  root=str(tmp_path / 'none')))
    model = build(data_preprocessor=config).eval()
    batch = make_batch()
    for sample in batch['data_samples']:
        sample.pop('gt_rays')
    with torch.no_grad():
        assert 'pred_occ' in run(model, batch, 'predict')[0]
    with pytest.raises(FileNotFoundError, match='none'):
        model.train()
    config['online_teacher']['root'] = str(tmp_path)
    with pytest.raises(TypeError, match='FeatureMapTeacher, which makes no maps'):
        MODELS.build(config).train()


def test_halves_of_the_configuration_are_named(results):
    sample = sample_of(results, 'online', 0)
    with pytest.raises(ValueError, match="teacher='online', but model.data_preprocessor has no"):
        losses_of([sample])
    with pytest.raises(ValueError, match='another teacher for 1 of 1 samples'):
        losses_of([sample_of(results, TASK_UTILS.build(TINY), 0)], online_teacher=TINY)
    with pytest.raises(ValueError, match="teacher is 'offline'.*'online'"):
        PrepareRays(CAMERA, 'offline')
    with pytest.raises(ValueError, match='has nothing to do'):
        PrepareRays(CAMERA, 'online', targets=('rgb', ))


@pytest.mark.parametrize('settings, text, message', [
    (dict(targets=('sky', )), {}, r"\['sky'\] need a teacher with classes; TinyDenseTeacher"),
    (dict(targets=('lang_feats', ), mask_dynamic=True), {}, r"\['mask_dynamic'\] need a teacher"),
    (dict(targets=('sky', )), dict(sky_classes=()), "'sky' needs sky_classes"),
    (dict(targets=('ground', )), dict(ground_classes=()), "'ground' needs ground_classes"),
    (dict(mask_dynamic=True), dict(dynamic_classes=()), 'needs dynamic_classes')])
def test_what_a_teacher_cannot_do_is_named(results, settings, text, message):
    text = {**WITH_CLASSES, **text} if text else {}
    rays, images = prepare(results, teacher='online', **settings)
    with pytest.raises(ValueError, match=message):
        OnlineTeacher(TinyDenseTeacher(**text))([rays], [images])


def test_images_that_do_not_fit_are_named():
    image, pixel = torch.zeros(3, 4, 6, dtype=torch.uint8), torch.zeros(1, 2).double()
    zero = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match=r'image t has shape \(4, 6, 3\)'):
        RayImages((image.permute(1, 2, 0), ), ('t', ), zero, pixel)
    with pytest.raises(ValueError, match='1 tokens for 0 images'):
        RayImages((), ('t', ), zero, pixel)
    with pytest.raises(ValueError, match='image_ids from 0 to 0 for 0 images'):
        RayImages((), (), zero, pixel).validate()
    with pytest.raises(ValueError, match=r'pixel \(6.0, 0.0\) lies outside the image of 6 x 4'):
        RayImages((image, ), ('t', ), zero, pixel + torch.tensor([6., 0])).validate()
    with pytest.raises(ValueError, match='2 rays with the pixels of 1'):
        OnlineTeacher(TinyDenseTeacher())(
            [RayBundle(torch.zeros(2, 3), torch.zeros(2, 3))],
            [RayImages((image, ), ('t', ), zero, pixel)])
    sample = Det3DDataSample()
    sample.ray_images = RayImages((image, ), ('t', ), zero, pixel)
    assert sample.to('meta').ray_images.images[0].device.type == 'meta'
