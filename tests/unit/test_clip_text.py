"""CLIP's text encoder against open_clip's own, from small random weights; and which one is taken.

The models are open_clip's classes at a few hundred kilobytes; nothing is fetched.
"""
import json

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS

from langocc.synthetic.text import write_text_embeddings
from langocc.teachers import (
    ClipTextEncoder, OfflineTextEncoder, TextEmbeddings, available_text_encoder, clip_text,
    clip_towers, clip_weights
)

open_clip = pytest.importorskip('open_clip')
from tiny_clip import TINY, cut_off, write_folder  # noqa: E402

WORDS = ['car', 'a red car at night', 'traffic cone']


@pytest.fixture(autouse=True)
def no_network_no_settings(monkeypatch, tmp_path):
    cut_off(monkeypatch, tmp_path)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return open_clip.CLIP(**TINY).eval()


def expected_rows(model, templates=('a photo of a {}.',)):
    """By open_clip's tokenizer and encode_text, one sentence at a time."""
    rows = []
    for word in WORDS:
        tokens = [open_clip.tokenize(template.format(word)) for template in templates]
        with torch.no_grad():
            each = torch.cat([model.encode_text(token, normalize=True) for token in tokens])
        rows.append(F.normalize(each.mean(0), dim=0))
    return torch.stack(rows)


def test_rows_are_open_clips(tmp_path, model):
    folder = write_folder(tmp_path / 'clip', model.state_dict())
    before = torch.get_rng_state()
    encoder = TASK_UTILS.build(dict(type='ClipTextEncoder', weights=str(folder)))
    assert torch.equal(torch.get_rng_state(), before)
    out = encoder.encode(WORDS)
    assert out.shape == (3, 24) and encoder.embed_dims == 24 and out.dtype == torch.float32
    torch.testing.assert_close(out, expected_rows(model), atol=1e-6, rtol=0)
    assert encoder.encode([]).shape == (0, 24) and encoder.embed('car').shape == (1, 24)
    assert not out.requires_grad


def test_templates_are_averaged_and_chunks_change_nothing(tmp_path, model):
    folder = write_folder(tmp_path / 'clip', model.state_dict())
    templates = ('a photo of a {}.', 'a {} in the street', 'itap of my {}.')
    expected = expected_rows(model, templates)
    for chunk_size in (1, 4, 100):
        encoder = ClipTextEncoder(folder, templates=templates, chunk_size=chunk_size)
        torch.testing.assert_close(encoder.encode(WORDS), expected, atol=1e-6, rtol=0)
    assert (expected - expected_rows(model)).abs().max() > 1e-3
    for bad in ((), ('a photo',)):
        with pytest.raises(ValueError, match='templates'):
            ClipTextEncoder(folder, templates=bad)


def test_forms_of_weights(tmp_path, model, monkeypatch):
    """A named model and a file: of torch, wrapped, without the image tower, custom text."""
    expected = expected_rows(model)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny', TINY)
    state = model.state_dict()
    text_only = {key: value for key, value in state.items() if not key.startswith('visual.')}
    custom = {f'text.{key}': value for key, value in text_only.items() if key != 'logit_scale'}
    for name, value in dict(plain=state, text=text_only, custom=custom, module=dict(
            state_dict={f'module.{key}': value for key, value in state.items()})).items():
        torch.save(value, tmp_path / f'{name}.pt')
        encoder = ClipTextEncoder(tmp_path / f'{name}.pt', model='tiny')
        torch.testing.assert_close(encoder.encode(WORDS), expected, atol=1e-6, rtol=0)
    folder = write_folder(tmp_path / 'clip', state, custom_text=True)
    torch.testing.assert_close(ClipTextEncoder(folder).encode(WORDS), expected, atol=1e-6, rtol=0)


def test_the_real_size_is_made_and_takes_its_own_weights_only(tmp_path, model):
    (tmp_path / 'empty.pt').write_bytes(b'')
    torch.save(model.state_dict(), tmp_path / 'tiny.pt')
    with pytest.raises(ValueError, match=r"tiny.pt does not hold the text weights of 'ViT-B-16': "
                                         r'\d+ missing \(transformer.resblocks.10'):
        ClipTextEncoder(tmp_path / 'tiny.pt')
    with pytest.raises(ValueError, match='empty.pt is no checkpoint'):
        ClipTextEncoder(tmp_path / 'empty.pt')


def test_wrong_files_are_named(tmp_path, model, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny', TINY)
    state = dict(model.state_dict())
    for change, message in (
            (dict(ln_final=torch.zeros(3)), r'1 unexpected \(ln_final\)'),
            ({'ln_final.weight': torch.zeros(7)}, r'ln_final.weight: \(7,\), expected \(16,\)'),
            (dict(context_length=torch.tensor(77)), "model is 'tiny', expected .*quickgelu")):
        torch.save({**state, **change}, tmp_path / 'w.pt')
        with pytest.raises(ValueError, match=message) as error:
            ClipTextEncoder(tmp_path / 'w.pt', model='tiny')
        assert 'w.pt' in str(error.value)
    for value, message in ((object(), 'no checkpoint of tensors'), ([1, 2], 'no state dict'),
                           (dict(a=1), 'no state dict')):
        torch.save(value, tmp_path / 'w.pt')
        with pytest.raises(ValueError, match=message):
            ClipTextEncoder(tmp_path / 'w.pt', model='tiny')
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / 'jit.pt')
    with pytest.raises(ValueError, match=r'torch.jit.load'):
        ClipTextEncoder(tmp_path / 'jit.pt', model='tiny')


def test_openai_marks_pass_with_the_right_activation(tmp_path, model):
    folder = tmp_path / 'clip'
    write_folder(folder, {**model.state_dict(), 'vocab_size': torch.tensor(49408)}, quick_gelu=True)
    out = ClipTextEncoder(folder).encode(WORDS)
    assert (out - expected_rows(model)).abs().max() > 1e-4  # another activation, other rows


def test_missing_files_and_models(tmp_path, model):
    with pytest.raises(FileNotFoundError, match='LANGOCC_CLIP_WEIGHTS'):
        ClipTextEncoder()
    with pytest.raises(FileNotFoundError, match='nowhere.pt'):
        ClipTextEncoder(tmp_path / 'nowhere.pt')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(FileNotFoundError, match=r'folder: expected one of .*got \[\]'):
        ClipTextEncoder(tmp_path / 'folder')
    torch.save(model.state_dict(), tmp_path / 'w.pt')
    with pytest.raises(ValueError, match="no model 'ViT-B-17'"):
        ClipTextEncoder(tmp_path / 'w.pt', model='ViT-B-17')
    with pytest.raises(ValueError, match='hf_model_name .* from the network'):
        ClipTextEncoder(tmp_path / 'w.pt', model='roberta-ViT-B-32')
    (tmp_path / 'folder' / 'open_clip_config.json').write_text('{}')
    torch.save(model.state_dict(), tmp_path / 'folder' / 'w.pt')
    with pytest.raises(ValueError, match='open_clip_config.json: expected JSON with model_cfg'):
        ClipTextEncoder(tmp_path / 'folder')


def test_which_encoder_is_taken(tmp_path, model, monkeypatch):
    said = []
    monkeypatch.setattr(clip_text, 'print_log', lambda text, *_: said.append(text))
    assert isinstance(available_text_encoder(), OfflineTextEncoder)
    assert 'no CLIP weights were found' in said[-1] and 'LANGOCC_CLIP_WEIGHTS' in said[-1]
    folder = write_folder(tmp_path / 'clip', model.state_dict())
    assert isinstance(available_text_encoder(folder), ClipTextEncoder)
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(folder))
    assert isinstance(available_text_encoder(), ClipTextEncoder) and str(folder) in said[-1]
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        available_text_encoder()
    monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS')
    cached = tmp_path / 'cache/models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K/snapshots/1'
    write_folder(cached, model.state_dict())
    assert isinstance(available_text_encoder(), ClipTextEncoder) and 'cache' in said[-1]

    def not_there():
        raise ImportError('no open_clip here')
    for module in (clip_weights, clip_towers):
        monkeypatch.setattr(module, 'import_open_clip', not_there)
    assert isinstance(available_text_encoder(), OfflineTextEncoder)
    assert 'no open_clip here' in said[-1] and len(said) == 5
    with pytest.raises(ImportError, match='no open_clip here'):
        available_text_encoder(folder)


def test_a_data_root_says_which_weights_made_it(tmp_path, model):
    encoder = ClipTextEncoder(write_folder(tmp_path / 'clip', model.state_dict()))
    stored = TextEmbeddings(write_text_embeddings(tmp_path / 'data', encoder))
    torch.testing.assert_close(stored.encode(['hedge']), encoder.encode(['hedge']), atol=1e-6,
                               rtol=0)
    about = json.loads((tmp_path / 'data/text_embeds/encoder.json').read_text())
    assert about['encoder'].startswith('CLIP ') and about['weights_sha256'] == (
        encoder.weights_sha256) and len(encoder.weights_sha256) == 64
    assert about['templates'] == ['a photo of a {}.']
