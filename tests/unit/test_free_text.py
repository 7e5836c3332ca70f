"""Words that a file of text embeddings has not got: by the CLIP that made it, and no other."""
import json
import pickle

import numpy as np
import pytest
import torch

from langocc.apis.query import _file_names
from langocc.teachers import (
    ClipTextEncoder, TextEmbeddings, UnknownWordError, Vocabulary, write_text_file
)

open_clip = pytest.importorskip('open_clip')
from tiny_clip import TINY, cut_off, tiny_clip, write_folder  # noqa: E402

WORDS = ['car', 'traffic light', 'tree', 'road', 'bus', 'a red car']
OTHER = ['a rusty bicycle', 'hedge']


@pytest.fixture(autouse=True)
def own_places(monkeypatch, tmp_path):
    cut_off(monkeypatch, tmp_path, 'LANGOCC_TEXT_CACHE')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('clip'), tiny_clip().state_dict())


def write(tmp_path, folder, templates, about=True, **options):
    """The encoder, and embeddings from the file that it wrote."""
    encoder = ClipTextEncoder(folder, templates=templates)
    path = write_text_file(tmp_path / 'text.npz', dict(a=WORDS[:4], b=WORDS[3:]), encoder)
    if not about:
        path.with_suffix('.encoder.json').unlink()
    return encoder, TextEmbeddings(path, **options)


@pytest.mark.parametrize('templates', ['photo', 'plain', 'clip85', ('a {} by night', '{}')])
def test_other_words_are_embedded_as_the_files_own(tmp_path, folder, monkeypatch, templates):
    encoder, text = write(tmp_path, folder, templates)
    with pytest.raises(UnknownWordError, match="'hedge'.*Other words: .* LANGOCC_CLIP_WEIGHTS"):
        text.encode(OTHER)
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(folder))
    asked = [OTHER[0], 'car', OTHER[1], 'road', OTHER[0]]
    torch.testing.assert_close(text.encode(asked), encoder.encode(asked), atol=1e-5, rtol=1e-5)
    assert text.embed('hedge').shape == (1, 24) and 'hedge' not in text
    assert text.words == tuple(WORDS)


def test_templates_are_found_where_no_file_names_them(tmp_path, folder, monkeypatch):
    """The named sets are tried; other sentences are not guessed."""
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(folder))
    encoder, text = write(tmp_path, folder, 'plain', about=False)
    torch.testing.assert_close(text.encode(OTHER), encoder.encode(OTHER), atol=1e-5, rtol=1e-5)
    own = ('a {} by night', 'the {} there')
    encoder, text = write(tmp_path, folder, own, about=False)
    with pytest.raises(UnknownWordError, match='did not make these rows: its cosine to them is'):
        text.encode(OTHER)
    encoder, text = write(tmp_path, folder, own, about=False,
                          free_text=dict(weights=str(folder), templates=own))
    torch.testing.assert_close(text.encode(OTHER), encoder.encode(OTHER), atol=1e-5, rtol=1e-5)


def test_the_model_and_the_training_are_those_of_the_file(tmp_path, monkeypatch):
    """A file of another model than ViT-B-16; then one of a training in the cache."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny', TINY)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, 'tiny', dict(
        mine=dict(hf_hub='someone/tiny/', quick_gelu=True, mean=(0, 0, 0), std=(1, 1, 1))))
    snapshot = tmp_path / 'cache/models--someone--tiny/snapshots/a'
    weights = write_folder(snapshot, tiny_clip().state_dict()) / 'open_clip_model.safetensors'
    for options in (dict(weights=weights), dict(pretrained='mine')):
        encoder = ClipTextEncoder(model='tiny', **options)
        text = TextEmbeddings(write_text_file(tmp_path / 'text.npz', dict(a=WORDS), encoder))
        if 'weights' in options:
            monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(weights))
        torch.testing.assert_close(text.encode(OTHER), encoder.encode(OTHER), atol=1e-5, rtol=1e-5)
        monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS', raising=False)
    (snapshot / 'open_clip_model.safetensors').unlink()
    with pytest.raises(UnknownWordError, match='someone/tiny .tiny, mine. is not in the Hugging'):
        TextEmbeddings(tmp_path / 'text.npz').encode(OTHER)


def test_rows_in_half_precision_are_recognised(tmp_path, folder, monkeypatch):
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(folder))
    encoder, _ = write(tmp_path, folder, 'photo')
    with np.load(tmp_path / 'text.npz') as archive:
        arrays = {key: archive[key].astype(np.float16) for key in archive.files}
    np.savez(tmp_path / 'text.npz', **arrays)
    text = TextEmbeddings(tmp_path / 'text.npz')
    torch.testing.assert_close(text.encode(OTHER), encoder.encode(OTHER), atol=1e-5, rtol=1e-5)


def test_another_clip_is_refused(tmp_path, folder, monkeypatch):
    _, text = write(tmp_path, folder, 'photo')
    other = write_folder(tmp_path / 'other', tiny_clip(seed=1).state_dict())
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(other))
    for _ in range(2):
        with pytest.raises(UnknownWordError, match=r'did not make these rows \(made by CLIP .*'
                                                   r'expected 0.999'):
            text.encode(['car', 'hedge'])
    narrow = dict(TINY, embed_dim=16)
    write_folder(tmp_path / 'narrow', tiny_clip(narrow).state_dict(), narrow)
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(tmp_path / 'narrow'))
    with pytest.raises(UnknownWordError, match='embeds in 16 dimensions, the rows have 24'):
        text.encode(['hedge'])
    assert text.encode(['car', 'bus']).shape == (2, 24)
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        text.encode(['hedge'])
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(folder))
    _, text = write(tmp_path, folder, 'photo', free_text=False)
    with pytest.raises(UnknownWordError, match='free_text is off'):
        text.encode(['hedge'])


def test_vocabularies_and_pickles(tmp_path, folder, monkeypatch):
    """Prompts that the file has not got; a copy carries no network."""
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(folder))
    encoder, text = write(tmp_path, folder, 'photo')
    (tmp_path / 'v.txt').write_text('car: car, a rusty bicycle\nvegetation: hedge\n')
    vocabulary = Vocabulary(tmp_path / 'v.txt', text)
    torch.testing.assert_close(vocabulary.text_embeds, encoder.encode(vocabulary.prompts),
                               atol=1e-5, rtol=1e-5)
    assert text._other is not None
    data = pickle.dumps(text)
    assert len(data) < 20000
    assert torch.equal(pickle.loads(data).encode(OTHER), text.encode(OTHER))


def test_what_is_written_beside_the_rows(tmp_path, folder):
    encoder, text = write(tmp_path, folder, 'plain')
    assert json.loads((tmp_path / 'text.json').read_text()) == dict(a=WORDS[:4], b=WORDS[3:])
    about = json.loads((tmp_path / 'text.encoder.json').read_text())
    assert about['templates'] == ['{}'] and about['weights_sha256'] == encoder.weights_sha256
    assert about['words'] == 7
    (tmp_path / 'text.encoder.json').write_text('{')
    with pytest.raises(ValueError, match='text.encoder.json: expected a JSON object'):
        text.encode(['hedge'])


def test_any_text_names_a_file():
    words = ['car', 'traffic light', 'traffic/light', 'what is that?', '???', '¿qué?', 'x' * 300,
             'car', '../../etc']
    names = _file_names(words)
    assert names[:4] == ['car', 'traffic_light', 'traffic_light~2', 'what_is_that']
    assert len(set(names)) == len(words) and all(len(name.encode()) < 130 for name in names)
    assert not any('/' in name or '.' in name for name in names)
