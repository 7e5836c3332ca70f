"""The base of teachers that compute maps: sizes, chunks, units, lookup at pixels, and errors."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_teach_teachers import naive_sample
from test_teach_vocabulary import RandomText
from torch import nn

from langocc.teachers import DenseTeacher
from langocc.teachers.dense_teacher import read_image, resize_images


class MeanColours(DenseTeacher):
    """One cell for 4 x 4 pixels: means of R, G, B and a constant; counts its calls."""

    def __init__(self, **settings):
        super().__init__(4, nn.Linear(2, 2), **settings)
        self.calls = []

    def cells(self, height, width):
        return height // 4, width // 4

    def compute(self, images):
        self.calls.append(tuple(images.shape))
        means = F.avg_pool2d(images, 4)
        return torch.cat([means, torch.full_like(means[:, :1], 0.5)], dim=1)


def random_images(*size):
    return torch.randint(0, 256, (*size[:1], 3, *size[1:]), dtype=torch.uint8)


def test_maps_are_unit_and_chunks_change_nothing():
    images = random_images(5, 8, 12)
    means = F.avg_pool2d(images.float() / 255, 4)
    expected = F.normalize(torch.cat([means, torch.full((5, 1, 2, 3), 0.5)], dim=1), dim=1)
    for chunk_size, calls in ((2, [2, 2, 1]), (8, [5])):
        teacher = MeanColours(chunk_size=chunk_size)
        out = teacher.maps(images)
        torch.testing.assert_close(out, expected)
        assert out.dtype == torch.float32 and [call[0] for call in teacher.calls] == calls
    assert teacher.map_size(8, 12) == (2, 3) and teacher.maps(images[:0]).shape == (0, 4, 2, 3)
    assert not teacher.network.training
    assert not any(value.requires_grad for value in teacher.network.parameters())


def test_images_are_resized_whole():
    """A ramp over the image is the same ramp at any size: nothing is cropped or shifted."""
    ramp = torch.linspace(0, 255, 64).round().to(torch.uint8).expand(1, 3, 16, 64)
    small = resize_images(ramp, (8, 32))
    torch.testing.assert_close(small[0, 0, 0, 1:-1], ramp[0, 0, 0].float().div(255)
                               .reshape(32, 2).mean(1)[1:-1], atol=2e-3, rtol=0)
    assert torch.equal(resize_images(ramp, (16, 64)), ramp.float() / 255)
    checks = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 3, 16, 64)
    out = resize_images(checks, (16, 16))  # antialiased: grey, and never outside [0, 1]
    assert (out[..., 2:-2] - 0.5).abs().max() < 0.02 and 0 <= out.min() and out.max() <= 1
    teacher = MeanColours(input_size=(8, 16))
    assert teacher.maps(random_images(1, 30, 50)).shape == (1, 4, 2, 4)
    assert teacher.calls == [(1, 3, 8, 16)] and teacher.map_size(30, 50) == (2, 4)


def test_features_at_pixels_and_the_cache(tmp_path):
    images = random_images(2, 20, 40)
    info = dict(token='frame', images={})
    for index, name in enumerate('ab'):
        path = tmp_path / f'{name}.png'
        Image.fromarray(images[index].permute(1, 2, 0).numpy()).save(path)
        info['images'][name] = dict(sample_data_token=name, width=40, height=20, img_path=str(path))
    teacher = MeanColours(cache_size=1)
    pixels = torch.tensor([[0., 0.], [39.5, 19.5], [12.3, 7.9]])
    maps = teacher.maps(images).double().numpy()
    rows = [naive_sample(maps[1], u, v, 40, 20) for u, v in pixels.tolist()]
    expected = F.normalize(torch.from_numpy(np.stack(rows)), dim=1)
    out = teacher.features(info, 'b', pixels)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=0)
    teacher.calls.clear()
    for name in 'bba':
        teacher.features(info, name, pixels)
    assert len(teacher.calls) == 1
    assert teacher.classes(info, 'b', pixels) is None
    info['images']['a']['width'] = 41
    teacher.features(info, 'b', pixels)
    with pytest.raises(ValueError, match=r'a.png has 20 x 40 pixels, expected 20 x 41'):
        teacher.features(info, 'a', pixels)


def test_classes_by_text(tmp_path):
    class Narrow(RandomText):
        embed_dims = 4

        def encode(self, prompts):
            return F.normalize(torch.eye(4)[:len(prompts)], dim=1)
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4, 0] = image[:, 4:, 2] = 255  # red, then blue
    Image.fromarray(image).save(tmp_path / 'x.png')
    info = dict(token='f', images=dict(C=dict(sample_data_token='x', width=8, height=8,
                                              img_path=str(tmp_path / 'x.png'))))
    teacher = MeanColours(text_encoder=Narrow(), class_names=['red', 'green', 'blue'],
                          sky_classes=['blue'])
    out = teacher.classes(info, 'C', torch.tensor([[1., 1.], [6., 6.]]))
    assert out.tolist() == [0, 2] and teacher.is_sky(out).tolist() == [False, True]
    with pytest.raises(ValueError, match='text embeddings have 16 values, the feature maps 4'):
        MeanColours(text_encoder=RandomText(), class_names=['red'])
    with pytest.raises(ValueError, match='MeanColours: text_encoder and class_names'):
        MeanColours(class_names=['red'])


def test_half_precision_by_autocast():
    class Product(MeanColours):
        def compute(self, images):
            self.seen = (images.flatten(2) @ images.flatten(2).transpose(1, 2)).dtype
            return super().compute(images)
    for dtype in ('float32', 'bfloat16'):
        teacher = Product(dtype=dtype)
        assert teacher.maps(random_images(1, 8, 8)).dtype == torch.float32
        assert teacher.seen == getattr(torch, dtype)
        assert teacher.describe()['dtype'] == dtype


def test_wrong_images_maps_and_settings(tmp_path):
    teacher = MeanColours()
    for bad in (torch.zeros(1, 3, 8, 8), random_images(1, 8, 8)[0], random_images(1, 8, 8)[:, :2]):
        with pytest.raises(ValueError, match=r'images have shape .*expected \(B, 3, H, W\) uint8'):
            teacher.maps(bad)
    teacher.cells = lambda height, width: (9, 9)
    with pytest.raises(ValueError, match=r'shape \(1, 4, 2, 2\) of inputs of \(8, 8\), expected'):
        teacher.maps(random_images(1, 8, 8))
    teacher = MeanColours()
    teacher.compute = lambda images: torch.full((1, 4, 2, 2), float('nan'))
    with pytest.raises(ValueError, match='MeanColours made values that are not finite'):
        teacher.maps(random_images(1, 8, 8))
    for settings, message in ((dict(dtype='half'), "dtype 'half' is not one of"),
                              (dict(chunk_size=0), 'chunk_size is 0'),
                              (dict(input_size=(4, 0)), r'input_size is \(4, 0\), expected'),
                              (dict(input_size=4), 'input_size is 4, expected')):
        with pytest.raises(ValueError, match=message):
            MeanColours(**settings)
    (tmp_path / 'x.jpg').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='cannot read image .*x.jpg'):
        read_image(tmp_path / 'x.jpg')
    with pytest.raises(FileNotFoundError, match='image .*y.jpg does not exist'):
        read_image(tmp_path / 'y.jpg')


@pytest.mark.gpu
def test_maps_on_a_gpu_are_those_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip('no CUDA device')
    images = random_images(3, 30, 50)
    teacher = MeanColours(input_size=(8, 16))
    expected = teacher.maps(images)
    out = teacher.to('cuda').maps(images)
    assert out.device.type == 'cuda' and next(teacher.network.parameters()).is_cuda
    torch.testing.assert_close(out.cpu(), expected, atol=1e-4, rtol=0)
