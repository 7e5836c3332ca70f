"""Tools say in one line which file is missing and what it should be; exit status 2."""
import runpy
import sys

import pytest
from torch._utils import ExceptionWrapper

from langocc.files import existing_file, one_line_errors

CONFIG = 'configs/langocc-full_r50_1xb1_pandaset.py'


@pytest.fixture
def complaint(monkeypatch, capsys, repository):
    """Runs a tool that must fail; returns the line it prints."""

    monkeypatch.delenv('LANGOCC_TRACEBACK', raising=False)

    def run(name, *arguments):
        monkeypatch.chdir(repository)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(f'tools/{name}.py', run_name='__main__')
        assert exit_info.value.code == 2
        line = capsys.readouterr().err.strip()
        assert '\n' not in line and line.startswith(f'{name}: ')
        return line

    return run


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'x.pth'
    path.touch()
    return path


@pytest.mark.parametrize('tool, arguments', [
    ('browse_dataset', ['--out-dir', 'x']), ('eval_retrieval', ['none.pth', '--benchmark', 'x']),
    ('query', ['none.pth', '--words', 'car']), ('test', ['none.pth']),
    ('measure_full_size', [])])
def test_config(tool, arguments, complaint):
    assert 'config configs/none.py does not exist' in complaint(tool, 'configs/none.py', *arguments)


@pytest.mark.parametrize('tool, arguments', [
    ('eval_retrieval', ['--benchmark', 'x']), ('query', ['--words', 'car']), ('test', [])])
def test_checkpoint(tool, arguments, complaint):
    assert 'checkpoint none.pth does not exist' in complaint(tool, CONFIG, 'none.pth', *arguments)


@pytest.mark.parametrize('tool, arguments', [
    ('browse_dataset', ['--out-dir', 'x']), ('eval_retrieval', ['{}', '--benchmark', 'x']),
    ('query', ['{}', '--words', 'car']), ('test', ['{}']), ('train', []),
    ('visualize', ['{}', '--out-dir', 'x']), ('fit_prior', ['--out', 'x.npz']),
    ('extract_features', ['--out', 'x', '--weights', '{}'])])
def test_options_that_nothing_reads(tool, arguments, complaint, checkpoint):
    arguments = [argument.format(checkpoint) for argument in arguments]
    line = complaint(tool, CONFIG, *arguments, '--cfg-options', 'input_size=(9,9)')
    assert "--cfg-options input_size: 'input_size' is only a variable of the config files" in line


def test_test_without_a_checkpoint(complaint):
    assert f'{CONFIG} needs a CHECKPOINT' in complaint('test', CONFIG)


def test_benchmark(complaint, checkpoint, tmp_path):
    line = complaint('eval_retrieval', CONFIG, checkpoint, '--benchmark', tmp_path)
    assert f'table of the benchmark {tmp_path}/retrieval_anns_all.csv does not exist' in line


def test_infos_name_the_tool_that_writes_them(complaint, monkeypatch, stand_in_root, tmp_path):
    monkeypatch.setenv('PANDASET_ROOT', str(stand_in_root))
    monkeypatch.setenv('LANGOCC_INFO_ROOT', str(tmp_path))
    line = complaint('browse_dataset', CONFIG, '--out-dir', tmp_path / 'pictures')
    assert f'no infos at {tmp_path}/pandaset_infos_all.json: tools/prepare_data.py' in line


def test_work_directory_of_curves(complaint, tmp_path):
    line = complaint('plot_curves', tmp_path)
    assert f'no vis_data/scalars.json under {tmp_path}: expected the work directory' in line


def test_key_of_curves(complaint, tmp_path):
    (tmp_path / 'vis_data').mkdir()
    (tmp_path / 'vis_data' / 'scalars.json').write_text('{"loss": 1.0, "step": 1}')
    line = complaint('plot_curves', tmp_path, '--keys', 'lass')
    assert "no run logged ['lass'], logged are ['loss']" in line


def test_text_embeddings_and_vocabulary(complaint, stand_in_root, tmp_path):
    out = ('--out', tmp_path / 'reducer.safetensors')
    line = complaint('fit_reducer', '--text-embeds', 'none.npz', *out)
    assert 'text embeddings none.npz do not exist' in line
    known = stand_in_root / 'text_embeds' / 'clip_vit_b16.npz'
    line = complaint('fit_reducer', '--text-embeds', known, '--vocabulary', 'none', *out)
    assert 'no vocabulary file none' in line


def test_runs_of_a_report(complaint, tmp_path):
    line = complaint('report', tmp_path)
    assert f'no */metrics.json below {tmp_path} (tools/test.py --out writes it)' in line
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'metrics.json').write_text('{')
    assert f'{tmp_path}/run/metrics.json is not valid JSON' in complaint('report', tmp_path)


@pytest.mark.parametrize('error', [
    ValueError('a.npz: shape (3,)\nexpected (4,)'), FileNotFoundError('no a.npz'),
    KeyError("sample 'a' has no x"), KeyError('token')])
def test_an_error_of_a_worker_is_said_as_it_was_raised(error, capsys):
    try:
        try:
            open('/nowhere')
        except OSError as first:
            raise error from first
    except type(error):
        worker = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(SystemExit), one_line_errors('tool', ValueError, KeyError):
        worker.reraise()
    assert capsys.readouterr().err == f'tool: {error.args[0]}\n'


def test_other_errors_keep_their_traceback(tmp_path):
    with pytest.raises(ValueError):
        with one_line_errors('tool'):
            raise ValueError
    assert existing_file(__file__, 'test') == __file__
    with pytest.raises(FileNotFoundError, match=f'folder {tmp_path} does not exist'):
        existing_file(tmp_path, 'folder')


def test_a_missing_file_names_those_beside_it(tmp_path):
    for number in (25, 775, 800):
        (tmp_path / f'iter_{number}.pth').touch()
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(FileNotFoundError) as error:
        existing_file(tmp_path / 'iter_3000.pth', 'checkpoint')
    said = str(error.value)
    assert said.startswith(f'checkpoint {tmp_path}/iter_3000.pth does not exist; beside it')
    assert 'iter_800.pth' in said and 'notes.txt' not in said
    with pytest.raises(FileNotFoundError, match='nowhere/a.pth does not exist$'):
        existing_file(tmp_path / 'nowhere' / 'a.pth', 'checkpoint')


def test_a_traceback_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv('LANGOCC_TRACEBACK', '1')
    with pytest.raises(KeyError, match='where'), one_line_errors('tool', KeyError):
        raise KeyError('where')
    assert capsys.readouterr().err == ''
