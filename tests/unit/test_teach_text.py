"""Text embeddings from files: order, unit rows, and errors that help."""
import json

import numpy as np
import pytest
import torch

from langocc.teachers import TextEmbeddings, UnknownWordError


def write(folder, sets, name='text', names=None):
    """Write sets {set: (names, array)} and return the path of the .npz file."""
    np.savez(folder / f'{name}.npz', **{key: value for key, (_, value) in sets.items()})
    words = {key: words for key, (words, _) in sets.items()} if names is None else names
    (folder / f'{name}.json').write_text(json.dumps(words))
    return folder / f'{name}.npz'


@pytest.fixture
def rows():
    values = np.random.default_rng(0).normal(size=(4, 8))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def test_rows_in_asked_order_unit_float32(tmp_path, rows):
    text = TextEmbeddings(write(tmp_path, dict(a=(['car', 'tree', 'road', 'bus'], rows))))
    out = text.embed(['road', 'car', 'road'])
    assert out.dtype == torch.float32 and out.shape == (3, 8) and text.embed_dims == 8
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(out, torch.from_numpy(rows[[2, 0, 2]].astype(np.float32)),
                               atol=1e-3, rtol=0)
    assert torch.equal(text.embed('car'), out[1:2])  # one word, not three letters


def test_first_set_and_first_file_win(tmp_path, rows):
    first = write(tmp_path, dict(a=(['car', 'tree'], rows[:2]), b=(['car'], rows[2:3])), 'one')
    second = write(tmp_path, dict(c=(['tree', 'bus'], rows[2:])), 'two')
    text = TextEmbeddings([first, second])
    expected = torch.from_numpy(rows[[0, 1, 3]].astype(np.float32))
    torch.testing.assert_close(text.embed(['car', 'tree', 'bus']), expected, atol=1e-3, rtol=0)
    only = TextEmbeddings([first, second], sets=['b', 'c'])
    torch.testing.assert_close(only.embed('car')[0], torch.from_numpy(rows[2].astype(np.float32)),
                               atol=1e-3, rtol=0)
    assert 'bus' in only and only.words == ('car', 'tree', 'bus')


def test_unknown_word_lists_nearest(tmp_path, rows):
    names = ['traffic light', 'tree', 'truck', 'road']
    text = TextEmbeddings(write(tmp_path, dict(a=(names, rows))))
    with pytest.raises(UnknownWordError, match="'trafic lights': \\['traffic light'") as error:
        text.embed(['tree', 'trafic lights'])
    assert 'text.npz' in str(error.value) and "for 'trafic lights' in" in str(error.value)
    with pytest.raises(UnknownWordError, match="'5' and 2 more in") as error:
        text.embed([str(number) for number in range(1, 8)])
    assert "'6'" not in str(error.value)


@pytest.mark.parametrize('break_it, message', [
    (lambda folder, rows: write(folder, dict(a=(['car'], rows))), r"'a' has shape \(4, 8\)"),
    (lambda folder, rows: write(folder, dict(a=(list('abcd'), 2 * rows))), "0 of 'a'.*length 2"),
    (lambda folder, rows: write(folder, dict(a=(list('abcd'), 0 * rows))), "0 of 'a'.*length 0"),
    (lambda folder, rows: write(folder, dict(a=(list('abcd'), rows)), names=dict(z=list('abcd'))),
     "no array 'z'"),
    (lambda folder, rows: write(folder, dict(a=(list('abcd'), np.array([{}, {}, {}, {}])))),
     'allow_pickle=False'),
    (lambda folder, rows: write(folder, dict(a=(['x'], rows[:1]), b=(['y'], np.eye(3)[:1]))),
     'different widths'),
])
def test_bad_files_are_named(tmp_path, rows, break_it, message):
    with pytest.raises(ValueError, match=message) as error:
        TextEmbeddings(break_it(tmp_path, rows))
    assert 'text.npz' in str(error.value)


def test_missing_and_damaged_files(tmp_path, rows):
    with pytest.raises(FileNotFoundError, match='nowhere.npz'):
        TextEmbeddings(tmp_path / 'nowhere.npz')
    path = write(tmp_path, dict(a=(list('abcd'), rows)))
    with pytest.raises(ValueError, match=r"\['q'\] are in none of.*known sets: \[\]"):
        TextEmbeddings(path, sets=['q'])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match='cannot read text embeddings .*text.npz'):
        TextEmbeddings(path)
    (tmp_path / 'text.json').unlink()
    with pytest.raises(FileNotFoundError, match='names.json'):
        TextEmbeddings(path)
