"""Text templates and the cache of embeddings: keys, damage, many processes, and what is loaded."""
import logging
import multiprocessing
import re

import pytest
import torch
import torch.nn.functional as F

from langocc.teachers import ClipTextEncoder, TextCache, find_templates, text_cache
from langocc.teachers.text_cache import default_cache_root

open_clip = pytest.importorskip('open_clip')
from tiny_clip import tiny_clip, write_folder  # noqa: E402

WORDS = ['car', 'a red car', 'traffic cone']


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv('LANGOCC_TEXT_CACHE', str(tmp_path / 'default'))
    monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS', raising=False)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('clip'), tiny_clip().state_dict())


def fake_rows(prompts):
    """Rows that tell their prompt."""
    generator = torch.Generator()
    rows = [torch.randn(8, generator=generator.manual_seed(len(p))) for p in prompts]
    return F.normalize(torch.stack(rows), dim=1)


def test_the_85_templates_are_openais_80_and_five_of_scenes():
    sentences = find_templates('clip85')
    assert len(sentences) == len(set(sentences)) == 85
    assert sentences[:80] == tuple(make('{}') for make in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert all(sentence.endswith('in the scene.') for sentence in sentences[80:])
    assert all(re.fullmatch(r'[a-z].*\{\}.*\.', s) for s in sentences if s != 'the {}')


def test_templates_by_name_file_and_list(tmp_path):
    assert find_templates('plain') == ('{}', ) and find_templates('photo') == ('a photo of a {}.', )
    path = tmp_path / 'mine.txt'
    path.write_text('# a comment\na {} by day\n\n  a {} by night  \n')
    assert find_templates(path) == find_templates(str(path)) == ('a {} by day', 'a {} by night')
    assert find_templates(['{}', 'the {}']) == ('{}', 'the {}')
    with pytest.raises(FileNotFoundError, match="'clip86' are neither a file nor one of .'clip85'"):
        find_templates('clip86')
    path.write_text('no place\n')
    with pytest.raises(ValueError, match='mine.txt: templates .*no place'):
        find_templates(path)
    with pytest.raises(ValueError, match='are there more than once'):
        find_templates(['{}', 'a {}', '{}'])
    with pytest.raises(ValueError, match='expected at least one'):
        find_templates([])


def test_rows_with_the_85_templates(folder):
    model = tiny_clip()
    encoder = ClipTextEncoder(folder, templates='clip85', chunk_size=100)
    sentences = [template.format('car') for template in find_templates('clip85')]
    with torch.no_grad():
        each = model.encode_text(open_clip.tokenize(sentences), normalize=True)
    expected = F.normalize(each.mean(0, keepdim=True), dim=1)
    torch.testing.assert_close(encoder.encode(['car']), expected, atol=1e-5, rtol=1e-5)
    assert len(encoder.describe()['templates']) == 85


def test_only_what_is_missing_is_computed(tmp_path):
    cache = TextCache(tmp_path, dict(model='m'), 8)
    asked = []

    def encode(prompts):
        asked.append(prompts)
        return fake_rows(prompts)
    first = cache.rows(['a', 'bb', 'a'], encode)
    assert torch.equal(first, fake_rows(['a', 'bb', 'a'])) and asked == [['a', 'bb']]
    again = TextCache(tmp_path, dict(model='m'), 8).rows(['ccc', 'bb'], encode)
    assert torch.equal(again, fake_rows(['ccc', 'bb'])) and asked[1:] == [['ccc']]
    assert cache.rows([], encode).shape == (0, 8) and len(asked) == 2
    TextCache(tmp_path, dict(model='other'), 8).rows(['a'], encode)
    assert asked[2:] == [['a']]


def test_each_part_of_the_key_makes_its_own_rows(folder, tmp_path):
    def space(path=folder, **options):
        return ClipTextEncoder(path, cache=tmp_path / 'cache', **options)._cache.space
    other = write_folder(tmp_path / 'b', tiny_clip(seed=1).state_dict())
    copy = write_folder(tmp_path / 'c', tiny_clip().state_dict())
    quick = write_folder(tmp_path / 'q', tiny_clip().state_dict(), quick_gelu=True)
    spaces = [space(), space(other), space(quick), space(templates='plain'),
              space(templates=['{}', 'a {}'])]
    assert len(set(spaces)) == len(spaces)
    assert space(copy) == space() and space(chunk_size=1) == space()


def test_a_cached_encoder_gives_the_same_and_loads_nothing(folder, tmp_path, monkeypatch):
    expected = ClipTextEncoder(folder).encode(WORDS)
    encoder = ClipTextEncoder(folder, cache=True)
    torch.testing.assert_close(encoder.encode(WORDS), expected)
    assert list((tmp_path / 'default').rglob('*.safetensors'))

    def refuse(*args):
        raise AssertionError('a tower was built')
    monkeypatch.setattr('langocc.teachers.clip_text.TextTower', refuse)
    again = ClipTextEncoder(folder, cache=True)
    assert torch.equal(again.encode(WORDS[::-1]), encoder.encode(WORDS[::-1]))
    with pytest.raises(AssertionError, match='a tower was built'):
        again.encode(['bus'])
    with pytest.raises(AssertionError, match='a tower was built'):
        ClipTextEncoder(folder)


def damages(path):
    data = path.read_bytes()
    yield data[:len(data) // 2]
    yield data[:-3] + bytes([data[-3] ^ 64]) + data[-2:]
    yield b''
    other = TextCache(path.parent.parent, dict(model='m'), 8)
    yield other.path('bb').read_bytes()


def test_damaged_files_are_computed_again_with_a_warning(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(text_cache, 'print_log', lambda text, logger, level: said.append(
        (text, level)))
    cache = TextCache(tmp_path, dict(model='m'), 8)
    cache.rows(['a', 'bb'], fake_rows)
    path = cache.path('a')
    for number, data in enumerate(list(damages(path)), start=1):
        path.write_bytes(data)
        calls = []
        out = cache.rows(['a'], lambda prompts: calls.append(prompts) or fake_rows(prompts))
        assert torch.equal(out, fake_rows(['a'])) and calls == [['a']] and len(said) == number
        assert str(path) in said[-1][0] and said[-1][1] == logging.WARNING
        assert torch.equal(cache.rows(['a'], None), out)  # mended
    wide = TextCache(tmp_path, dict(model='m'), 9)
    wide.rows(['a'], lambda prompts: torch.eye(9)[:1])
    assert '(8,) torch.float32, expected (9,)' in said[-1][0]


def test_a_folder_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(text_cache, 'print_log', lambda text, *_: said.append(text))
    (tmp_path / 'file').write_text('')
    cache = TextCache(tmp_path / 'file', dict(model='m'), 8)
    for _ in range(2):
        assert torch.equal(cache.rows(['a', 'bb'], fake_rows), fake_rows(['a', 'bb']))
    assert len(said) == 1 and 'cannot write' in said[0]


def fill(root, number):
    cache = TextCache(root, dict(model='m'), 8)
    words = [f'{"x" * (1 + (i + number) % 12)}' for i in range(60)]
    for word in words:
        assert torch.equal(cache.rows([word], fake_rows), fake_rows([word]))


def test_many_processes_at_once(tmp_path):
    context = multiprocessing.get_context('fork')
    workers = [context.Process(target=fill, args=(tmp_path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    files = sorted(tmp_path.rglob('*'))
    assert sum(file.suffix == '.safetensors' for file in files) == 12
    assert not [file for file in files if file.name.startswith('.')]


def test_default_place(monkeypatch, tmp_path):
    assert default_cache_root() == tmp_path / 'default'
    monkeypatch.delenv('LANGOCC_TEXT_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert default_cache_root() == tmp_path / 'xdg/langocc/text'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert default_cache_root() == tmp_path / '.cache/langocc/text'
