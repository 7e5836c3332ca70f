"""Vocabularies: the files of the package, the format, and classification."""
import pytest
import torch
import torch.nn.functional as F

from langocc.teachers import (
    CITYSCAPES_CLASSES, VOCABULARY_CLASSES, TextEncoder, Vocabulary, read_vocabulary
)


class RandomText(TextEncoder):
    """Each prompt its own random direction."""
    embed_dims = 16

    def encode(self, prompts):
        rows = [torch.randn(16, generator=torch.Generator().manual_seed(sum(p.encode())))
                for p in prompts]
        return F.normalize(torch.stack(rows), dim=1)


def write(tmp_path, text):
    path = tmp_path / 'words.txt'
    path.write_text(text)
    return path


def test_occ3d_file_has_the_published_counts():
    vocabulary = Vocabulary('occ3d_nuscenes')
    counts = torch.bincount(vocabulary.prompt_to_class, minlength=17)
    names = VOCABULARY_CLASSES
    assert len(vocabulary) == 76 and len(set(vocabulary.prompts)) == 76 and len(counts) == 17
    fixed = dict(others=2, bicycle=1, traffic_cone=1, manmade=15)
    assert {name: int(counts[names.index(name)]) for name in fixed} == fixed
    rest = [int(n) for name, n in zip(names, counts) if name not in fixed]
    assert all(1 < n < 15 for n in rest)
    assert vocabulary.prompt_to_class[vocabulary.prompts.index('sky')] == 0


def test_cityscapes_file_covers_the_teacher():
    vocabulary = Vocabulary('pandaset_cityscapes.txt')
    assert sorted(vocabulary.prompts) == sorted(CITYSCAPES_CLASSES)


def test_classify_is_argmax_over_all_prompts_then_class(tmp_path):
    path = write(tmp_path, '# mine\ncar: red car, blue car # two\n\nothers: sky\ncar: van\n')
    vocabulary = Vocabulary(path, RandomText())
    assert vocabulary.prompts == ('red car', 'blue car', 'van', 'sky')
    assert vocabulary.prompt_to_class.tolist() == [4, 4, 4, 0]
    feats = torch.randn(101, 16) * torch.rand(101, 1) * 9
    expected = [0 if int((vocabulary.text_embeds @ f).argmax()) == 3 else 4 for f in feats]
    for chunk_size in (7, 101, 1000):
        out = vocabulary.classify(feats, chunk_size=chunk_size)
        assert out.dtype == torch.uint8 and out.tolist() == expected
    assert 0 in expected and 4 in expected
    reduced = vocabulary.classify(feats[:, :5], text_embeds=vocabulary.text_embeds[:, :5])
    assert reduced.shape == (101,)
    assert vocabulary.classify(feats[:0]).shape == (0,)


def test_classify_refuses_other_widths(tmp_path):
    vocabulary = Vocabulary(write(tmp_path, 'car: car'), RandomText())
    with pytest.raises(ValueError, match=r'features \(2, 8\).*\(1, 16\)'):
        vocabulary.classify(torch.zeros(2, 8))
    with pytest.raises(ValueError, match='without a text encoder'):
        Vocabulary('occ3d_nuscenes').classify(torch.zeros(2, 8))


@pytest.mark.parametrize('text, message', [
    ('car: car\ntrafic_cone: cone\n', "line 2: unknown class 'trafic_cone'; nearest.*traffic_cone"),
    ('free: air\n', "line 1: unknown class 'free'"),
    ('car car\n', 'line 1: expected "class: prompt'),
    ('car:\n', "line 1: class 'car' has an empty prompt"),
    ('\ncar: a,,b\n', "line 2: class 'car' has an empty prompt"),
    ('car: van\nbus: van\n', "line 2: prompt 'van' of class 'bus' already stands for 'car'"),
    ('# nothing\n', 'no class'),
])
def test_errors_name_file_line_and_word(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_vocabulary(path)
    assert str(path) in str(error.value)


def test_unknown_file_lists_the_package_ones():
    with pytest.raises(FileNotFoundError, match='occ3d_nuscenes'):
        Vocabulary('occ3d')


def test_word_without_embedding_names_the_vocabulary(tmp_path):
    class NoText(RandomText):
        def encode(self, prompts):
            raise KeyError('no text embedding for ...')

    with pytest.raises(ValueError, match='words.txt: no text embedding'):
        Vocabulary(write(tmp_path, 'car: car'), NoText())
