"""Pseudo-labels of a synthetic set: labels by hand, restarts, what is missing."""
import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image
from test_pseudo_depth import SETTINGS, root  # noqa: F401, a set of one frame

from langocc.synthetic.frames import read_record
from langocc.synthetic.pseudo_labels import UNKNOWN, LabelErrors, label_map, write_pseudo_labels
from langocc.synthetic.rig import CAMERAS


def maps(folder):
    return {path.stem: np.array(Image.open(path))
            for path in (folder / 'pseudo_labels').glob('*.png')}


def test_labels_by_hand():
    """Three classes and background over two patches, side by side."""
    probs = np.zeros((4, 1, 2), np.uint8)
    probs[:, 0, 0], probs[:, 0, 1] = (255, 0, 0, 0), (0, 204, 51, 0)
    labels = label_map(probs, (8, 4), LabelErrors(stride=1., least=0.))
    assert labels.shape == (4, 8) and labels.dtype == np.uint8
    assert (labels == [0, 0, 0, 0, 1, 1, 1, 1]).all()
    labels = label_map(probs, (8, 4), LabelErrors(stride=1., least=0.51))
    assert (labels[0] == [0, 0, 0, 0, UNKNOWN, 1, 1, 1]).all()  # there 5/8 x 0.8, interpolated
    probs[:, 0, 0] = (100, 0, 0, 155)
    assert (label_map(probs, (8, 4), LabelErrors(stride=4., least=0.)) == [UNKNOWN, 1]).all()


def test_a_set_has_the_teachers_likeliest_classes(root):  # noqa: F811
    done = write_pseudo_labels(root, errors=LabelErrors(stride=8., least=0.))
    record, found = read_record(root, SETTINGS.scenes()[0], 0), maps(root)
    assert done['images'] == len(found) == len(CAMERAS)
    for channel in CAMERAS:
        token = record['sensors'][channel]['token']
        probs = np.load(root / f'teacher_probs/{token}.npz')['probs']
        assert found[token].shape == probs.shape[1:]  # cells are the patches
        likeliest = probs.argmax(0)
        agree = found[token] == np.where(likeliest == 18, UNKNOWN, likeliest)
        assert agree.mean() > 0.95  # but where two are equal after rounding
    assert 0.9 < done['known'] <= 1


def test_it_goes_on_where_it_was_and_minds_what_is_there(root, tmp_path):  # noqa: F811
    write_pseudo_labels(root)
    expected = maps(root)
    next((root / 'pseudo_labels').glob('*.png')).unlink()
    ticks = []
    assert write_pseudo_labels(root, progress=ticks.append)['images'] == 1 and ticks == [1]
    again = maps(root)
    assert all((again[token] == expected[token]).all() for token in expected)
    assert write_pseudo_labels(root)['images'] == 0
    with pytest.raises(ValueError, match='maps of other errors'):
        write_pseudo_labels(root, errors=LabelErrors(least=0.9))
    with pytest.raises(ValueError, match=r"splits \['test'\] are unknown"):
        write_pseudo_labels(root, splits=('test',))
    with pytest.raises(FileNotFoundError, match='no set of make_synthetic.py'):
        write_pseudo_labels(tmp_path)
    next((root / 'teacher_probs').glob('*.npz')).unlink()
    with pytest.raises(FileNotFoundError, match='frame 0 of .* is not complete'):
        write_pseudo_labels(root)


def test_the_tool(root, repository, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(sys, 'argv', ['make_pseudo_labels.py', str(root)])
    for said in ('6 maps made now; ', 'all maps were there already'):
        with pytest.raises(SystemExit) as exit_status:
            runpy.run_path(str(repository / 'tools/make_pseudo_labels.py'), run_name='__main__')
        assert exit_status.value.code == 0 and said in capsys.readouterr().out
    assert json.loads((root / 'pseudo_labels/errors.json').read_text()) == dict(stride=4.,
                                                                                least=0.4)
