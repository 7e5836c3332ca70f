"""MaskClipTeacher from weights on disk: what is loaded, sizes, windows, denoising, errors.

That its features are right is tested in tests/reference/test_ref_maskclip.py.
"""
import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from PIL import Image

from langocc.teachers import ClipTextEncoder, LastBlock, MaskClipTeacher
from langocc.teachers.maskclip import _starts
from langocc.teachers.maskclip_blocks import smooth_by_keys

open_clip = pytest.importorskip('open_clip')
from tiny_clip import RESNET, TINY, cut_off, tiny_clip, write_folder  # noqa: E402

INCEPTION = dict(mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.5])


@pytest.fixture(autouse=True)
def no_network_no_settings(monkeypatch, tmp_path):
    cut_off(monkeypatch, tmp_path)


@pytest.fixture(scope='module')
def model():
    return tiny_clip()


@pytest.fixture(scope='module')
def folder(tmp_path_factory, model):
    return write_folder(tmp_path_factory.mktemp('clip'), model.state_dict(), preprocess=INCEPTION)


def random_images(*size):
    return torch.randint(0, 256, (*size[:1], 3, *size[1:]), dtype=torch.uint8)


def expected_maps(model, images, mean, std):
    """By open_clip's own layers: the last block token by token, which leaves nothing to attend."""
    visual = model.visual
    with torch.no_grad():
        x = visual._embeds((images / 255 - torch.tensor(mean).view(3, 1, 1))
                           / torch.tensor(std).view(3, 1, 1))
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        x = torch.cat([visual.transformer.resblocks[-1](x[:, i:i + 1])
                       for i in range(1, x.shape[1])], dim=1)
        x = F.normalize(visual.ln_post(x) @ visual.proj, dim=-1)
    return x.transpose(1, 2).unflatten(2, visual.grid_size)


def test_maps_are_the_models_with_its_own_normalisation(folder, model, tmp_path, monkeypatch):
    images = random_images(3, 32, 32)
    before = torch.get_rng_state()
    teacher = TASK_UTILS.build(dict(type='MaskClipTeacher', weights=str(folder), chunk_size=2))
    assert torch.equal(torch.get_rng_state(), before)
    out = teacher.maps(images)
    expected = expected_maps(model, images, **INCEPTION)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    assert teacher.map_size(32, 32) == (4, 4) and teacher.embed_dims == 24
    # a named model and a file without the text side: OpenAI's normalisation, or one's own
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny', TINY)
    state = {f'visual.{key}': value for key, value in model.visual.state_dict().items()}
    torch.save(state, tmp_path / 'w.pt')
    openai = MaskClipTeacher('tiny', tmp_path / 'w.pt')
    own = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    torch.testing.assert_close(openai.maps(images), expected_maps(model, images, *own), atol=1e-5,
                               rtol=1e-5)
    assert (openai.maps(images) - out).abs().max() > 1e-2
    named = MaskClipTeacher('tiny', tmp_path / 'w.pt', mean_std=tuple(INCEPTION.values()))
    torch.testing.assert_close(named.maps(images), out)
    assert openai.logit_scale == 100 and teacher.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


def test_resnets_and_where_weights_come_from(tmp_path, monkeypatch):
    resnet = tiny_clip(RESNET)
    write_folder(tmp_path / 'rn', resnet.state_dict(), RESNET)
    teacher = MaskClipTeacher(weights=tmp_path / 'rn')
    assert teacher.map_size(70, 100) == (2, 3) and teacher.fitted_size(70, 100) == (64, 96)
    assert teacher.maps(random_images(2, 70, 100)).shape == (2, 24, 2, 3)
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(tmp_path / 'rn'))
    assert MaskClipTeacher().describe()['weights_sha256'] == teacher.describe()['weights_sha256']


def test_a_training_by_name_comes_from_the_cache(tmp_path, model, monkeypatch):
    """A tag brings the repository, the activation and the normalisation."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny', TINY)
    training = dict(hf_hub='someone/tiny-clip/', quick_gelu=True, **INCEPTION)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, 'tiny', dict(mine=training, other=dict(
        training, mean=(0, 0, 0))))
    with pytest.raises(FileNotFoundError, match='someone/tiny-clip .tiny, mine. is not in the H'):
        MaskClipTeacher('tiny', pretrained='mine')
    snapshots = tmp_path / 'cache/models--someone--tiny-clip/snapshots'
    write_folder(snapshots / 'aaa', tiny_clip(seed=1).state_dict())
    write_folder(snapshots / 'bbb', model.state_dict())
    (snapshots.parent / 'refs').mkdir()
    (snapshots.parent / 'refs/main').write_text('bbb')
    teacher = MaskClipTeacher('tiny', pretrained='mine')
    assert teacher.describe()['pretrained'] == 'mine'
    assert teacher.describe()['quick_gelu'] and teacher.describe()['std'] == INCEPTION['std']
    quick = tiny_clip(dict(TINY, quick_gelu=True))
    images = random_images(1, 32, 32)
    torch.testing.assert_close(teacher.maps(images), expected_maps(quick, images, **INCEPTION),
                               atol=1e-5, rtol=1e-5)
    words = ClipTextEncoder(model='tiny', pretrained='mine').encode(['car'])
    expected = quick.encode_text(open_clip.tokenize('a photo of a car.'), normalize=True).detach()
    torch.testing.assert_close(words, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="no training 'theirs' of 'tiny' .* known: .'mine'"):
        MaskClipTeacher('tiny', pretrained='theirs')
    with pytest.raises(ValueError, match='both a place .* and a tag'):
        MaskClipTeacher('tiny', weights=tmp_path, pretrained='mine')
    weights = snapshots / 'bbb/open_clip_model.safetensors'
    with pytest.raises(ValueError, match='trainings of tiny differ in mean and std'):
        MaskClipTeacher('tiny', weights)


def test_any_input_size(folder):
    teacher = MaskClipTeacher(weights=folder, input_size=(24, 64))
    assert teacher.maps(random_images(2, 90, 160)).shape == (2, 24, 3, 8)
    free = MaskClipTeacher(weights=folder)
    assert free.fitted_size(35, 61) == (32, 64) and free.map_size(3, 61) == (1, 8)
    images = random_images(1, 24, 64)
    torch.testing.assert_close(free.maps(images), teacher.maps(images))


def test_one_window_is_the_whole_image(folder):
    images = random_images(2, 32, 48)
    whole = MaskClipTeacher(weights=folder).maps(images)
    for window, stride in (((32, 48), None), ((64, 64), (8, 8))):
        out = MaskClipTeacher(weights=folder, window=window, stride=stride).maps(images)
        torch.testing.assert_close(out, whole)
    other = MaskClipTeacher(weights=folder, window=(32, 32)).maps(images)
    assert other.shape == whole.shape and (other - whole).abs().max() > 1e-2


def test_windows_are_averaged_where_they_overlap(folder):
    images = random_images(2, 24, 56)
    teacher = MaskClipTeacher(weights=folder, window=(16, 24), stride=(8, 16))
    alone = MaskClipTeacher(weights=folder)
    total = torch.zeros(2, 24, 3, 7)
    for top in (0, 8):
        for left in (0, 16, 32):
            part = alone.maps(images[:, :, top:top + 16, left:left + 24])
            total[:, :, top // 8:top // 8 + 2, left // 8:left // 8 + 3] += part
    torch.testing.assert_close(teacher.maps(images), F.normalize(total, dim=1))
    assert MaskClipTeacher(weights=folder, window=(32, 24)).stride == (16, 8)
    assert _starts(10, 4, 3) == [0, 3, 6] and _starts(9, 4, 4) == [0, 4, 5]
    assert _starts(8, 4, 4) == [0, 4] and _starts(3, 4, 2) == [0]


def test_windows_do_not_matter_where_nothing_looks_around(tmp_path):
    """One layer and equal positions: a cell depends on its patch alone, wherever windows begin."""
    config = dict(TINY, vision_cfg=dict(TINY['vision_cfg'], layers=1))
    model = tiny_clip(config)
    positions = model.visual.positional_embedding.data
    positions[1:] = positions[1].clone()
    folder = write_folder(tmp_path, model.state_dict(), config)
    images = random_images(1, 40, 72)
    whole = MaskClipTeacher(weights=folder).maps(images)
    for window, stride in (((16, 16), (8, 8)), ((32, 24), (24, 24)), ((8, 72), None)):
        out = MaskClipTeacher(weights=folder, window=window, stride=stride).maps(images)
        torch.testing.assert_close(out, whole, atol=1e-5, rtol=1e-5)
    shifted = MaskClipTeacher(weights=folder).maps(images.roll((8, 16), (2, 3)))
    torch.testing.assert_close(shifted, whole.roll((1, 2), (2, 3)), atol=1e-5, rtol=1e-5)


def test_options_change_the_values_and_are_described(folder):
    images = random_images(1, 32, 48)
    settings = (dict(), dict(key_smoothing=True), dict(last_block=dict(attention='query-query')),
                dict(last_block=dict(residual=False)), dict(window=(16, 16)))
    maps, descriptions = [], []
    for options in settings:
        teacher = MaskClipTeacher(weights=folder, **options)
        maps.append(teacher.maps(images))
        descriptions.append(json.dumps(teacher.describe(), sort_keys=True))
    for i in range(len(maps)):
        for j in range(i):
            assert (maps[i] - maps[j]).abs().max() > 1e-3 and descriptions[i] != descriptions[j]
    windows = json.loads(descriptions[-1])
    assert windows['window'] == [16, 16] and windows['stride'] == [8, 8]
    about = json.loads(descriptions[0])
    assert about['teacher'] == 'MaskClipTeacher' and len(about['weights_sha256']) == 64
    assert about['last_block'] == vars(LastBlock()) and about['std'] == INCEPTION['std']
    denoised = MaskClipTeacher(weights=folder, prompt_denoising=0.5, class_names=['car'],
                               text_encoder=dict(type='ClipTextEncoder', weights=str(folder)))
    assert denoised.describe() == about and torch.equal(denoised.maps(images), maps[0])


def test_keys_smooth_the_features(folder):
    """The teacher's smoothing is by the network's keys, which other tests hold to the model."""
    images = random_images(2, 32, 48)
    teacher = MaskClipTeacher(weights=folder, key_smoothing=True)
    channels = [torch.tensor(INCEPTION[name]).view(3, 1, 1) for name in ('mean', 'std')]
    with torch.no_grad():
        features, keys = teacher.network((images / 255 - channels[0]) / channels[1])
    expected = F.normalize(smooth_by_keys(features, keys), dim=1)
    torch.testing.assert_close(teacher.maps(images), expected, atol=1e-5, rtol=1e-5)


def test_a_copy_in_another_process_is_the_same(folder):
    """Loaders that start anew send teachers as pickles."""
    images = random_images(1, 32, 48)
    teacher = MaskClipTeacher(weights=folder, window=(16, 16), key_smoothing=True)
    copy = pickle.loads(pickle.dumps(teacher))
    assert torch.equal(copy.maps(images), teacher.maps(images))
    assert copy.describe() == teacher.describe()


def test_half_precision_stays_near(folder):
    images = random_images(2, 32, 48)
    exact = MaskClipTeacher(weights=folder, key_smoothing=True).maps(images)
    out = MaskClipTeacher(weights=folder, key_smoothing=True, dtype='bfloat16').maps(images)
    assert out.dtype == torch.float32 and not torch.equal(out, exact)
    assert F.cosine_similarity(out, exact, dim=1).min() > 0.99


def test_prompt_denoising(folder, tmp_path):
    """A prompt that wins a place, but is nowhere sure, is no candidate; the next one is."""
    Image.fromarray(random_images(1, 32, 32)[0].permute(1, 2, 0).numpy()).save(tmp_path / 'x.png')
    info = dict(token='f', images=dict(C=dict(sample_data_token='x', width=32, height=32,
                                              img_path=str(tmp_path / 'x.png'))))
    text = ClipTextEncoder(folder)

    def teacher(threshold):
        out = MaskClipTeacher(weights=folder, prompt_denoising=threshold, text_encoder=text,
                              class_names=['a', 'b', 'c'])
        out.text_embeds = torch.eye(24)[:3]
        values = torch.zeros(24, 4, 4)  # 'a' surely in one cell, 'b' hardly before 'c' beside it
        values[0, 0, 0] = 1
        values[1, 0, 1:], values[2, 0, 1:] = 0.72, 0.69
        out.logit_scale = 10.
        out._cache.get('x', values.numpy)
        return out
    pixels = torch.tensor([[3.5, 3.5], [19.5, 3.5], [3.5, 27.5]])  # centres of cells
    # confidences: 'a' 0.9999; 'b' 1 / (1 + exp(-0.3) + small) = 0.57; 'c' 0.43
    assert teacher(None).classes(info, 'C', pixels).tolist() == [0, 1, -1]
    assert teacher(0.5).classes(info, 'C', pixels).tolist() == [0, 1, -1]
    assert teacher(0.6).classes(info, 'C', pixels).tolist() == [0, 0, -1]
    values = torch.from_numpy(teacher(0.5).image_map(info, 'C'))
    both = torch.stack([values, torch.zeros_like(values)])
    assert teacher(0.5).kept_prompts(both).tolist() == [[True, True, False], [False] * 3]
    assert teacher(None).kept_prompts(both) is None
    assert teacher(1.0).classes(info, 'C', pixels).tolist() == [-1, -1, -1]


def test_key_smoothing_needs_keys(tmp_path):
    config = dict(TINY, custom_text=True, vision_cfg=dict(
        timm_model_name='test_convnext', timm_pool='', timm_proj='linear', image_size=64))
    model = open_clip.CustomTextCLIP(TINY['embed_dim'], config['vision_cfg'], TINY['text_cfg'])
    folder = write_folder(tmp_path, model.state_dict(), config)
    assert MaskClipTeacher(weights=folder).maps(random_images(1, 60, 99)).shape == (1, 24, 2, 3)
    with pytest.raises(ValueError, match='key_smoothing needs the keys of an attention'):
        MaskClipTeacher(weights=folder, key_smoothing=True)


def test_wrong_settings_are_named(folder, tmp_path, model):
    for settings, message in (
            (dict(input_size=(24, 60)), r'input_size is \(24, 60\), expected multiples of the'),
            (dict(window=(12, 16)), r'window is \(12, 16\), expected multiples'),
            (dict(window=(16, 16), stride=(8, 4)), r'stride is \(8, 4\), expected multiples'),
            (dict(window=(16, 16), stride=(8, 24)), 'more than the window .* gaps'),
            (dict(stride=(8, 8)), 'without a window'),
            (dict(last_block=dict(attention='no')), "attention is 'no', expected one of"),
            (dict(prompt_denoising=0.5), 'prompt_denoising needs text_encoder'),
            (dict(mean_std=((0, 0), (1, 1))), r'mean of the images is \(0, 0\), expected three'),
            (dict(mean_std=((0, 0, 0), (1, 0, 1))), 'expected three positive numbers'),
            (dict(dtype='int8'), "dtype 'int8' is not one of")):
        with pytest.raises(ValueError, match=message):
            MaskClipTeacher(weights=folder, **settings)
    with pytest.raises(ValueError, match=r'prompt_denoising is 2, expected a threshold'):
        MaskClipTeacher(weights=folder, prompt_denoising=2, class_names=['car'],
                        text_encoder=ClipTextEncoder(folder))
    with pytest.raises(FileNotFoundError, match='no CLIP weights: name a file .*LANGOCC_CLIP_WEI'):
        MaskClipTeacher()
    with pytest.raises(FileNotFoundError, match='CLIP weights nowhere.pt does not exist'):
        MaskClipTeacher(weights='nowhere.pt')
    torch.save(model.state_dict(), tmp_path / 'w.pt')
    with pytest.raises(ValueError, match=r"w.pt does not hold the image weights of 'ViT-B-16': \d+ "
                                         r'missing .transformer.resblocks.10'):
        MaskClipTeacher(weights=tmp_path / 'w.pt')
    torch.save(dict(model.state_dict(), vocab_size=torch.tensor(49408)), tmp_path / 'w.pt')
    with pytest.raises(ValueError, match="model is 'ViT-B-16', expected for instance 'ViT-B-16-q"):
        MaskClipTeacher(weights=tmp_path / 'w.pt')


@pytest.mark.gpu
def test_on_a_gpu(folder):
    if not torch.cuda.is_available():
        pytest.skip('no CUDA device')
    images = random_images(3, 32, 48)
    for options, atol in ((dict(), 1e-3), (dict(dtype='float16'), 3e-2)):
        teacher = MaskClipTeacher(weights=folder, window=(16, 16), key_smoothing=True, **options)
        expected = teacher.maps(images)
        out = teacher.to('cuda').maps(images)
        assert out.is_cuda
        torch.testing.assert_close(out.cpu(), expected, atol=atol, rtol=0)
