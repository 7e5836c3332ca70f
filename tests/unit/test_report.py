"""Tables of runs."""
import pytest

from langocc.evaluation.report import markdown_table, read_run, read_runs
from langocc.files import write_json


def test_rows_and_table(tmp_path):
    write_json(tmp_path / 'b' / 'metrics.json', dict(geo_IoU=35.26, occ17_mIoU=10.))
    write_json(tmp_path / 'b' / 'retrieval.json', dict(means=dict(all=dict(
        visible=50., teacher=55., chance=16., all=48.))))
    write_json(tmp_path / 'b' / 'time.json', dict(train_seconds=90))
    write_json(tmp_path / 'a' / 'metrics.json', dict(geo_IoU=23.2, occ17_mIoU=None))
    rows = read_runs(tmp_path)
    assert [row['run'] for row in rows] == ['a', 'b'] and rows[1]['minutes'] == 1.5
    table = markdown_table(rows).splitlines()
    assert table[2] == '| a | 23.2 | - | - | - | - | - |'
    assert table[3] == '| b | 35.3 | 10.0 | 50.0 | 55.0 | 16.0 | 1.5 |'


def test_a_run_without_metrics_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='metrics.json'):
        read_run(tmp_path)
