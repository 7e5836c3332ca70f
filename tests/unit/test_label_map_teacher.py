"""Stored 2D labels as a teacher: numbers and classes, text of them, files that are wrong."""
import numpy as np
import pytest
import torch
from mmdet3d.registry import TASK_UTILS
from PIL import Image
from test_rays_sources import make_info, make_results

from langocc.datasets.transforms.rays import PrepareRays
from langocc.teachers import LabelMapTeacher, OfflineTextEncoder

NAMES = ('road', 'car', 'sky')
LABELS = np.random.default_rng(0).integers(0, 3, (10, 20)).astype(np.uint8)
PIXELS = torch.stack(torch.meshgrid(torch.arange(20.), torch.arange(10.), indexing='xy'),
                     -1).view(-1, 2)


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'labels').mkdir()
    return tmp_path / 'labels'


@pytest.fixture
def info(tmp_path):
    return make_info(tmp_path, 'k', cameras=('A',))


def write(root, labels=LABELS, name='kA.png'):
    Image.fromarray(labels).save(root / name)


def test_pixels_have_the_label_of_their_cell(root, info):
    write(root)
    teacher = LabelMapTeacher(root, NAMES)
    assert teacher.classes(info, 'A', PIXELS).tolist() == LABELS.ravel().tolist()
    assert teacher.sky_classes == ('sky',) and teacher.embed_dims == 0
    write(root, LABELS[::2, ::2])
    small = LabelMapTeacher(root, NAMES).classes(info, 'A', PIXELS)
    assert small.tolist() == LABELS[::2, ::2].repeat(2, 0).repeat(2, 1).ravel().tolist()


def test_palettes_arrays_and_other_numbers(root, info):
    numbers = np.array([7, 200, 11], np.uint8)[LABELS]
    numbers[0, :2] = 255, 3
    expected = LABELS.astype(int).ravel()
    expected[:2] = -1, 1
    picture = Image.fromarray(numbers).convert('P')
    picture.putpalette([i % 256 for i in range(768)])
    files = dict(png=picture.save, npy=lambda path: np.save(path, numbers.astype(np.int32)),
                 npz=lambda path: np.savez_compressed(path, numbers))
    for suffix, save in files.items():
        save(root / f'kA.{suffix}')
        teacher = TASK_UTILS.build(dict(
            type='LabelMapTeacher', root=root, class_names=NAMES,
            label_ids=dict(road=7, car=[200, 3], sky=11)))
        assert teacher.classes(info, 'A', PIXELS).tolist() == expected.tolist(), suffix
        (root / f'kA.{suffix}').unlink()


def test_features_are_the_text_of_the_class(root, info):
    labels = LABELS.copy()
    labels[0, 0] = 255
    write(root, labels)
    encoder = OfflineTextEncoder()
    teacher = LabelMapTeacher(root, NAMES, text_encoder=encoder)
    text = torch.nn.functional.normalize(encoder.encode(list(NAMES)), dim=1)
    feats = teacher.features(info, 'A', PIXELS)
    torch.testing.assert_close(feats[1:], text[LABELS.ravel()[1:].astype(int)])
    torch.testing.assert_close(feats[0], torch.nn.functional.normalize(text.mean(0), dim=0))
    assert teacher.embed_dims == text.shape[1]


def test_rays_take_classes_and_sky(root, tmp_path):
    infos = [make_info(tmp_path, 'k'), make_info(tmp_path, 'n')]
    for name in ('kA', 'kB', 'nA', 'nB'):
        write(root, name=f'{name}.png')
    teacher = dict(type='LabelMapTeacher', root=str(root), class_names=NAMES,
                   dynamic_classes=['car'])
    rays = PrepareRays(dict(type='CameraPixelSource'), teacher=teacher, num_rays=10**6,
                       targets=('classes', 'sky'), mask_dynamic=True)(
                           make_results(infos))['rays'].validate()
    classes, key = rays.targets['classes'], rays.frame_ids == 0
    assert torch.equal(rays.targets['sky'], classes == 2)
    assert len(rays) == 400 + 2 * (LABELS != 1).sum() and (classes[key] == 1).any()
    assert not (classes[~key] == 1).any()


def test_what_is_wrong_is_named(root, info, tmp_path):
    for settings, message in (
            (dict(label_ids=dict(road=0, bus=1)),
             r"lacks the classes \['car', 'sky'\] \(\[\] for one .* has \['bus'\], which"),
            (dict(label_ids=dict(road=0, car=255, sky=1)), "number 255 of 'car' stands for"),
            (dict(dynamic_classes=['cars']), "'cars' is not one of its classes"),
            (dict(text_encoder=OfflineTextEncoder(), prompts=['road']), '1 prompts for 3 classes')):
        with pytest.raises(ValueError, match=message):
            LabelMapTeacher(root, NAMES, **settings)
    with pytest.raises(FileNotFoundError, match='label maps: no folder'):
        LabelMapTeacher(root / 'none', NAMES)
    teacher = LabelMapTeacher(root, NAMES, cache_size=0)
    with pytest.raises(ValueError, match="'lang_feats' needs text_encoder"):
        PrepareRays(dict(type='CameraPixelSource'), teacher=teacher)
    with pytest.raises(ValueError, match='no features without a text_encoder'):
        teacher.features(info, 'A', PIXELS)
    with pytest.raises(FileNotFoundError, match='label maps of frame k: none of .*kA.png'):
        teacher.classes(info, 'A', PIXELS)
    write(root, np.where(LABELS == 2, 9, LABELS).astype(np.uint8))
    with pytest.raises(ValueError, match=r'kA.png holds \[9\], which are no class'):
        teacher.classes(info, 'A', PIXELS)
    (root / 'kA.png').unlink()
    np.save(root / 'kA.npy', LABELS.astype(float))
    with pytest.raises(ValueError, match='kA.npy holds float64, expected integers'):
        teacher.classes(info, 'A', PIXELS)
