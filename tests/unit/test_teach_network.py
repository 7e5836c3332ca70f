"""Teachers from networks of one's own and from segmenters, by their outputs' three usual forms."""
import doctest
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS, TASK_UTILS
from test_teach_vocabulary import RandomText
from torch import nn

from langocc.teachers import NetworkTeacher, SegmenterTeacher, network_teacher
from langocc.teachers.network_teacher import values_sha256

NAMES = ['road', 'car', 'sky']


@MODELS.register_module()
class PatchNetwork(nn.Module):
    """A convolution with stride, for the registry."""

    def __init__(self, channels=16, stride=4):
        super().__init__()
        self.patches = nn.Conv2d(3, channels, stride, stride)

    def forward(self, images):
        return self.patches(images)


def random_images(*size):
    return torch.randint(0, 256, (*size[:1], 3, *size[1:]), dtype=torch.uint8)


def test_the_documented_example_runs():
    finder = doctest.DocTestFinder(recurse=False)
    example, = finder.find(NetworkTeacher, 'NetworkTeacher', globs={})
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert result.failed == 0 and result.attempted >= 7
    assert len(example.docstring.split('>>> import torch')[1].split('torch.Size')[0]
               .splitlines()) <= 20


def test_a_network_by_config():
    teacher = TASK_UTILS.build(dict(
        type='NetworkTeacher', network=dict(type='PatchNetwork'), embed_dims=16, multiple=4,
        mean_std=((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)), text_encoder=RandomText(),
        class_names=NAMES, sky_classes=['sky']))
    images = random_images(2, 8, 12)
    inputs = (images / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.2, 0.1]).view(3, 1, 1)
    with torch.no_grad():
        expected = F.normalize(teacher.network(inputs), dim=1)
    torch.testing.assert_close(teacher.maps(images), expected)
    assert teacher.map_size(8, 12) == (2, 3) and teacher.fitted_size(9, 1) == (8, 4)
    assert teacher.name == 'PatchNetwork' and teacher.class_names == tuple(NAMES)


@pytest.mark.parametrize('wrap', [
    lambda x: x, lambda x: dict(aux=None, out=x), lambda x: SimpleNamespace(logits=x),
    lambda x: dict(features=x)], ids=['tensor', 'torchvision', 'transformers', 'features'])
def test_forms_of_output(wrap):
    network = PatchNetwork(5)
    teacher = NetworkTeacher(lambda images: wrap(network(images)), embed_dims=5)
    images = random_images(1, 8, 8)
    plain = NetworkTeacher(network, embed_dims=5)
    assert torch.equal(teacher.maps(images), plain.maps(images))
    assert plain.describe()['weights_sha256'] == values_sha256(network)
    assert teacher.describe()['weights_sha256'] is None


@pytest.mark.parametrize('ignore', [(), (0, ), (2, )])
def test_a_segmenter_is_probabilities_times_text(ignore):
    network = PatchNetwork(3 + len(ignore))
    teacher = SegmenterTeacher(lambda images: dict(out=network(images)), RandomText(), NAMES,
                               ignore=ignore, temperature=0.5, sky_classes=['sky'])
    images = random_images(2, 8, 12)
    text = RandomText().encode(NAMES)
    kept = [channel for channel in range(3 + len(ignore)) if channel not in ignore]
    with torch.no_grad():
        logits = network(images / 255)
    for b in range(2):
        for y in range(2):
            for x in range(3):
                weights = (2 * logits[b, kept, y, x]).exp()
                expected = F.normalize((weights / weights.sum()) @ text, dim=0)
                got = teacher.maps(images)[b, :, y, x]
                torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert teacher.embed_dims == 16


def test_a_segmenter_at_a_smaller_size():
    """Probabilities are averaged, not logits, over the cells of the smaller map."""
    network = nn.Conv2d(3, 3, 1)
    network.weight.data.mul_(20)
    images = random_images(1, 8, 8).float().view(1, 3, 4, 2, 4, 2)
    images = images[:, :, :, :1, :, :1].expand(-1, -1, -1, 2, -1, 2).reshape(1, 3, 8, 8).byte()
    full = SegmenterTeacher(network, RandomText(), NAMES)
    small = SegmenterTeacher(network, RandomText(), NAMES, size=(2, 2))
    assert full.map_size(8, 8) == (8, 8) and small.map_size(8, 8) == (2, 2)
    inputs = images / 255
    probabilities = full.probabilities(inputs)
    out = small.probabilities(inputs)
    torch.testing.assert_close(out.sum(1), torch.ones(1, 2, 2))
    torch.testing.assert_close(out, F.interpolate(probabilities, (2, 2), mode='bilinear',
                                                  antialias=True))
    assert small.maps(images).shape == (1, 16, 2, 2)
    twice = {key: value for key, value in small.describe().items() if key != 'size'}
    assert twice == {key: value for key, value in full.describe().items() if key != 'size'}


def test_a_segmenters_prompts_and_classes():
    """Text of one's own for each class; the class is the nearest text to the mixed feature."""
    class Letters(RandomText):
        def encode(self, prompts):
            self.asked = tuple(prompts)
            return F.one_hot(torch.tensor([len(p) for p in prompts]), 16).float()
    text = Letters()
    teacher = SegmenterTeacher(PatchNetwork(3), text, NAMES, prompts=['a', 'bb', 'ccc'])
    assert text.asked == ('a', 'bb', 'ccc') and teacher.class_names == tuple(NAMES)
    feats = F.normalize(torch.tensor([[.2, .7, .1], [.5, .2, .3]]) @ teacher.text_embeds, dim=1)
    assert teacher.nearest_prompt(feats).tolist() == [1, 0]
    kept = torch.tensor([[True, False, True], [False, False, False]])
    assert teacher.nearest_prompt(feats, kept).tolist() == [0, -1]
    other = SegmenterTeacher(PatchNetwork(3), Letters(), NAMES)
    assert other.describe()['text_sha256'] != teacher.describe()['text_sha256']


def test_torchvision_and_transformers_as_they_are():
    """torchvision's own segmenter, without weights: background ignored, half size."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    teacher = SegmenterTeacher(network, RandomText(), NAMES, ignore=[0], input_size=(32, 64),
                               size=(4, 8))
    out = teacher.maps(random_images(2, 90, 160))
    assert out.shape == (2, 16, 4, 8) and not network.training


def test_wrong_networks_and_settings():
    for found, message in (([1, 2], 'gave list, expected a tensor'),
                           (torch.zeros(1, 5), r'gave \(1, 5\), expected a tensor .B, channels'),
                           (dict(other=1), "gave dict, expected .* \\['out', 'logits'")):
        with pytest.raises(ValueError, match=message):
            NetworkTeacher(lambda images: found, embed_dims=5).maps(random_images(1, 8, 8))
    with pytest.raises(ValueError, match=r'shape \(1, 5, 2, 2\) of inputs .* expected \(1, 6, 2'):
        NetworkTeacher(PatchNetwork(5), embed_dims=6).maps(random_images(1, 8, 8))
    with pytest.raises(ValueError, match='PatchNetwork gave 5 channels, expected 3 classes and 1'):
        SegmenterTeacher(PatchNetwork(5), RandomText(), NAMES, ignore=[0]).maps(
            random_images(1, 8, 8))
    with pytest.raises(ValueError, match='2 prompts for 3 classes'):
        SegmenterTeacher(PatchNetwork(3), RandomText(), NAMES, prompts=['a', 'b'])
    with pytest.raises(ValueError, match='temperature is 0, expected'):
        SegmenterTeacher(PatchNetwork(3), RandomText(), NAMES, temperature=0)
    with pytest.raises(ValueError, match=r'input_size is \(9, 8\), expected multiples of 4'):
        NetworkTeacher(PatchNetwork(3), 3, multiple=4, input_size=(9, 8))
    with pytest.raises(ValueError, match='mean of the images is'):
        NetworkTeacher(PatchNetwork(3), 3, mean_std=((1, 2), (1, 2)))


def test_hash_of_values():
    network = nn.Sequential(PatchNetwork(3), nn.BatchNorm2d(3))
    before = values_sha256(network)
    assert before == values_sha256(network) and len(before) == 64
    network[1].running_mean[0] = 1
    assert values_sha256(network) != before
    assert len(values_sha256(network.to(torch.bfloat16))) == 64
    assert network_teacher.values_sha256(len) is None
