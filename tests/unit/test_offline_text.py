"""The offline text encoder: words, geometry of the space, bytes, and the files made with it."""
import hashlib
import itertools
import json

import numpy as np
import pytest
import torch
from mmdet3d.registry import TASK_UTILS

from langocc.synthetic.confusions import SYNTHETIC_CLASSES, SYNTHETIC_DYNAMIC, SYNTHETIC_PROMPTS
from langocc.synthetic.text import synthetic_words, write_text_embeddings
from langocc.teachers import (
    CITYSCAPES_CLASSES, OfflineTextEncoder, Reducer, TextEmbeddings, UnknownWordError, Vocabulary,
    fit_reducer
)
from langocc.teachers.offline_text import OFFLINE_WORDS, read_words
from langocc.teachers.text_match import strange_to

HASH = 'fa0926c835a0bb07f6c748078485a70c8bc2b287dc8d4935b7ae87cab97d6e90'
ENCODER = OfflineTextEncoder()
WORDS = read_words()
EVERYDAY = ('truck', 'lorry', 'pedestrian', 'person', 'tree', 'hedge', 'traffic cone', 'pavement',
            'cars', 'bike', 'zebra crossing', 'street light', 'sky', 'Fire-Truck', 'traffic_light')


def cosines(first, second):
    return (ENCODER.encode(first).double() * ENCODER.encode(second).double()).sum(1)


def test_every_word_that_the_project_asks_for_is_known():
    for vocabulary in ('occ3d_nuscenes', 'pandaset_cityscapes'):
        ENCODER.encode(Vocabulary(vocabulary).prompts)
    for words in (CITYSCAPES_CLASSES, SYNTHETIC_PROMPTS, EVERYDAY):
        ENCODER.encode(words)
    assert len(Vocabulary('occ3d_nuscenes', ENCODER).text_embeds) == 76
    assert len(SYNTHETIC_PROMPTS) == len(SYNTHETIC_CLASSES) == 18 and 'lorry' in ENCODER
    assert set(SYNTHETIC_DYNAMIC) < set(SYNTHETIC_CLASSES) and 'zebra' not in ENCODER


def test_unit_rows_in_asked_order_and_built_from_a_config():
    encoder = TASK_UTILS.build(dict(type='OfflineTextEncoder', embed_dims=64))
    out = encoder.embed(['road', 'car', 'road'])
    assert out.shape == (3, 64) and out.dtype == torch.float32 and torch.equal(out[0], out[2])
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    assert torch.equal(encoder.embed('car'), out[1:2])
    assert torch.equal(encoder.embed(['Traffic_Cone']), encoder.embed(['traffic  cone']))
    assert ENCODER.embed_dims == 512 and ENCODER.encode([]).shape == (0, 512)
    with pytest.raises(ValueError, match='embed_dims is 16'):
        OfflineTextEncoder(16)


def test_the_same_bytes_on_every_machine():
    rows = ENCODER.encode(['car', 'lorry', 'sky', 'hedge']).numpy().astype('<f4')
    assert hashlib.sha256(rows.tobytes()).hexdigest() == HASH


def pairs(kind):
    """Pairs of words of a kind, for the table in the encoder's docstring."""
    words = list(WORDS.values())
    concepts = [word for word in words if word.text == word.concept]
    synonyms = [word for word in words if word.text != word.concept]
    if kind == 'synonym':
        return [(word.text, word.concept) for word in synonyms]
    if kind == 'two synonyms':
        return [(a.text, b.text) for a, b in itertools.combinations(synonyms, 2)
                if a.concept == b.concept]
    chosen = synonyms[::3] if kind == 'synonyms of two groups' else concepts
    return [(a.text, b.text) for a, b in itertools.combinations(chosen, 2)
            if a.concept != b.concept and (a.group == b.group) == (kind == 'one group')]


@pytest.mark.parametrize('kind, middle, width', [
    ('synonym', 0.96, 0.01), ('two synonyms', 0.93, 0.02), ('one group', 0.91, 0.02),
    ('two groups', 0.86, 0.03), ('synonyms of two groups', 0.80, 0.06)])
def test_the_space_is_as_narrow_as_stated(kind, middle, width):
    first, second = zip(*pairs(kind))
    found = cosines(first, second)
    assert len(found) > 100
    assert float((found - middle).abs().max()) < width and abs(float(found.mean()) - middle) < 0.01


def test_a_synonym_is_nearest_to_its_concept():
    words = list(WORDS.values())
    rows = ENCODER.encode([word.text for word in words])
    concepts = sorted({word.concept for word in words})
    best = (rows @ ENCODER.encode(concepts).T).argmax(1)
    assert [concepts[i] for i in best] == [word.concept for word in words]
    same = rows @ rows.T > 1 - 1e-4
    assert same.sum() == len(words)  # near, and none equal to another


def test_unknown_words_name_the_nearest_and_the_way_out():
    with pytest.raises(UnknownWordError, match="'trafic cone': \\['traffic cone'") as error:
        ENCODER.encode(['tree', 'trafic cone'])
    assert 'LANGOCC_CLIP_WEIGHTS' in str(error.value) and "'tree'" not in str(error.value)
    with pytest.raises(UnknownWordError, match="'5' and 2 more; nearest"):
        ENCODER.encode([str(number) for number in range(1, 8)])
    with pytest.raises(UnknownWordError, match='red car'):
        ENCODER.encode(['red car'])


@pytest.mark.parametrize('text, message', [
    ('car: auto', r'line 1: expected a \[group\]'), ('[a]\ncar', 'line 2: expected "concept:'),
    ('[a]\ncar: auto, , cab', 'line 2: empty word'), ('[a]\n: auto', 'line 2: empty word'),
    ('[a]\ncar: auto\ncar: auto', "line 3: 'auto' is already a word of 'car' in group 'a'"),
    ('[a]\ncar: auto\n[b]\ncar: cab', "line 4: 'car' is already"),
    ('[a]\ncar: bus\nbus: coach', "line 3: 'bus' is already"), ('# nothing', 'no words')])
def test_malformed_lists_are_named(tmp_path, text, message):
    path = tmp_path / 'words.txt'
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_words(path)
    assert 'words.txt' in str(error.value)


def test_other_lines_change_no_row(tmp_path):
    path = tmp_path / 'words.txt'
    path.write_text('[car]\ncar: sedan\ncar: my car  # mine\n')
    other = OfflineTextEncoder(words=path)
    assert other.words == ('car', 'sedan', 'my car')
    assert torch.equal(other.encode(['car', 'sedan']), ENCODER.encode(['car', 'sedan']))
    assert OFFLINE_WORDS.is_file()


def test_rows_of_a_file_are_asked_as_the_encoder_is(tmp_path, monkeypatch):
    """In any spelling that it knows; of what it does not know no CLIP is said to have made it."""
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(tmp_path / 'nowhere'))  # is not even looked for
    stored = TextEmbeddings(write_text_embeddings(tmp_path, ENCODER))
    spelled = ['Car', 'fire-truck', 'traffic_light', ' Fire  Truck', 'Traffic-Light']
    plain = ['car', 'fire truck', 'traffic light', 'fire truck', 'traffic light']
    assert torch.equal(stored.encode(spelled), stored.encode(plain))
    assert all(word in stored for word in spelled) and 'zebra' not in stored
    with pytest.raises(UnknownWordError) as error:
        stored.encode(['Car', 'zebra'])
    said = str(error.value)
    assert "embedding for 'zebra' in" in said and 'did not make' not in said
    assert "Other words: 'offline words v1' made these rows, a fixed list of words" in said
    assert 'the CLIP that made these rows' not in said
    (tmp_path / 'text_embeds' / 'encoder.json').unlink()
    assert 'Car' not in TextEmbeddings(tmp_path / 'text_embeds' / 'words.npz', free_text=False)


def test_rows_of_another_encoder_are_strange_to_a_reducer():
    """Of the encoder itself also words that it was not fitted to are not."""
    rows = ENCODER.encode(ENCODER.words)
    reducer, _ = fit_reducer(rows[::2], dims=128)
    assert strange_to(reducer, rows[1::2]) == ''
    drawn = torch.randn(80, 512, generator=torch.Generator().manual_seed(0))
    other = torch.nn.functional.normalize(drawn + 3 * drawn[:1], dim=1)  # as narrow as text is
    assert 'keeps a mean cosine of 0.' in strange_to(reducer, other)
    assert 'expected more than 0.75' in strange_to(reducer, other)
    wide = Reducer.from_config(dict(dims=(512, 300)))
    assert strange_to(wide, other) == '' and strange_to(reducer, other[:0]) == ''


class OtherEncoder(OfflineTextEncoder):
    """Rows of 128 numbers, which call themselves something else."""
    name = 'CLIP of a dream'

    def __init__(self):
        super().__init__(128)


def digests(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_that_others_were_fitted_to_are_not_replaced(tmp_path):
    folder = write_text_embeddings(tmp_path / 'offline', ENCODER).parent
    before = digests(folder)
    with pytest.raises(ValueError, match="made by 'offline words v1', this run would use 'CLIP of "
                                         "a dream'.*not replaced. To go on .*--offline-text;"):
        write_text_embeddings(tmp_path / 'offline', OtherEncoder())
    with pytest.raises(ValueError, match="by another 'offline words v1': embed_dims differ"):
        write_text_embeddings(tmp_path / 'offline', OfflineTextEncoder(256))
    assert digests(folder) == before
    write_text_embeddings(tmp_path / 'clip', OtherEncoder())
    with pytest.raises(ValueError, match='name its weights in LANGOCC_CLIP_WEIGHTS; for others'):
        write_text_embeddings(tmp_path / 'clip', ENCODER)


def test_rows_of_unknown_or_other_words_are_not_replaced(tmp_path, monkeypatch):
    folder = write_text_embeddings(tmp_path, ENCODER).parent
    (folder / 'words.npz').unlink()  # as if killed: the same encoder goes on
    write_text_embeddings(tmp_path, ENCODER)
    before = digests(folder)
    names = json.loads((folder / 'names.json').read_text())['words']
    monkeypatch.setattr('langocc.synthetic.text.synthetic_words', lambda: tuple(names[::-1]))
    with pytest.raises(ValueError, match='another list of words'):
        write_text_embeddings(tmp_path, ENCODER)
    (folder / 'encoder.json').unlink()
    with pytest.raises(ValueError, match='no encoder.json that says what made it'):
        write_text_embeddings(tmp_path, ENCODER)
    assert (folder / 'words.npz').read_bytes() == before['words.npz']


def test_files_of_a_data_root(tmp_path):
    path = write_text_embeddings(tmp_path, ENCODER)
    stored = TextEmbeddings(path)
    assert stored.words == synthetic_words() and len(set(stored.words)) == len(stored.words)
    words = ['car', 'lorry', *Vocabulary('occ3d_nuscenes').prompts, *SYNTHETIC_PROMPTS]
    torch.testing.assert_close(stored.encode(words), ENCODER.encode(words), atol=1e-6, rtol=0)
    about = json.loads((tmp_path / 'text_embeds/encoder.json').read_text())
    assert about == dict(encoder='offline words v1', embed_dims=512, words=len(stored.words))
    first = path.read_bytes()
    assert write_text_embeddings(tmp_path, ENCODER).read_bytes() == first
    assert sorted(file.name for file in path.parent.iterdir()) == [
        'encoder.json', 'names.json', 'words.npz']
    with np.load(path) as archive:
        assert archive['words'].dtype == np.float32
