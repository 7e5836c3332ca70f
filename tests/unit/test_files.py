"""Files are written whole or not at all."""
import json
import math

import pytest

from langocc.files import atomic_write, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'deep' / 'x.json'
    write_json(path, dict(a=1))
    with pytest.raises(RuntimeError):
        with atomic_write(path) as temporary:
            temporary.write_text('half')
            raise RuntimeError
    assert json.loads(path.read_text()) == dict(a=1)
    assert [p.name for p in path.parent.iterdir()] == ['x.json']


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with atomic_write(tmp_path / 'x.npz') as temporary:
        assert temporary.suffix == '.npz' and temporary.parent == tmp_path
        temporary.touch()
    assert (tmp_path / 'x.npz').is_file()


def test_not_a_number_becomes_null(tmp_path):
    write_json(tmp_path / 'x.json', dict(a=[math.nan, 1.5], b=math.inf))
    assert json.loads((tmp_path / 'x.json').read_text()) == dict(a=[None, 1.5], b=None)
