"""tools/compare.py as a command: stopped and killed, gone on with; its lists, tables and errors."""
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.unit.experiments_factory import read, steps_done, write_stand_ins

FILE = '''
budgets: {short: 8}
save_every: 2
retrieval: benchmark
experiments:
  - {name: camera, config: config.py, budgets: [short], seeds: [0, 1]}
  - {name: prior, config: config.py, train: false, retrieval: null}
'''


@pytest.fixture
def command(tmp_path, repository):
    """Starts tools/compare.py beside stand-ins for the tools that it calls."""
    write_stand_ins(tmp_path)
    shutil.copy(repository / 'tools' / 'compare.py', tmp_path / 'tools')
    (tmp_path / 'list.yaml').write_text(FILE)

    def start(*words, **variables):
        return subprocess.Popen(
            [sys.executable, 'tools/compare.py', 'list.yaml', '--work-dir', 'work', '--rows',
             'rows', *words], cwd=tmp_path, env={**os.environ, **variables}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    start.root = tmp_path
    return start


def finish(process, status):
    output = process.communicate(timeout=120)[0]
    assert process.returncode == status, output
    return output


def wait_for_step(folder, step):
    deadline = time.monotonic() + 240
    while not (folder / 'train' / f'iter_{step}.pth').exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_and_interrupted_runs_go_on(command):
    """SIGKILL ends the runner and its training with it; SIGINT stops both in order."""
    folder = command.root / 'work' / 'camera-short-s0'
    process = command(STEP_SECONDS='0.5')
    wait_for_step(folder, 2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    first = steps_done(folder)
    process = command(STEP_SECONDS='0.5')
    wait_for_step(folder, 4)
    process.send_signal(signal.SIGINT)
    output = finish(process, 130)
    assert 'camera-short-s0: stopping' in output and 'the same command goes on' in output
    second = steps_done(folder)[len(first):]
    assert len(first) < 4 and first == list(range(1, len(first) + 1))
    assert second[0] == 3 and 5 > len(second) > 1
    output = finish(command(), 0)
    third = steps_done(folder)[len(first) + len(second):]
    assert third == list(range(second[-1] // 2 * 2 + 1, 9))
    assert '| camera | 8 | 2 | 21.0 ± 1.4 | 10.5 ± 0.7 | 50.0 ± 0.0 | 70.0 ± 0.0 |' in output
    assert read(command.root / 'rows' / 'camera-short-s0.json')['attempts'] == 3
    assert (command.root / 'work' / 'table.md').read_text().strip() in output


@pytest.fixture
def here(command, monkeypatch, capsys):
    """The same command in this process: (exit status, what it printed)."""
    monkeypatch.chdir(command.root)
    monkeypatch.setattr(signal, 'signal', lambda number, handler: None)

    def run(*words, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, 'argv', ['compare', 'list.yaml', '--work-dir', 'work', '--rows',
                                          'rows', *words])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path('tools/compare.py', run_name='__main__')
        for name in variables:
            monkeypatch.delenv(name)
        return exit_info.value.code, ''.join(capsys.readouterr())

    return run


def test_failures_and_lists(here):
    status, output = here('--list')
    assert status == 0 and 'camera-short-s1: next: train' in output
    assert 'prior: next: test' in output
    status, output = here('--dry-run', '--only', 'camera*s1')
    assert status == 0 and 'randomness.seed=1' in output and 'seed=0' not in output
    assert 'LANGOCC_MAX_ITERS=8' in output and '--benchmark benchmark' in output
    assert not os.path.exists('rows') and not os.path.exists('work')
    status, output = here('--only', 'prior', 'camera-short-s0', BAD_METRICS='1')
    assert status == 1 and 'not finished: camera-short-s0, prior' in output
    assert 'ValueError: bad labels' in output and 'failed before' in here('--list')[1]
    os.rename('benchmark', 'away')
    for words in (('--dry-run', ), ('--only', 'camera-short-s1')):
        status, output = here(*words)
        assert status == 2 and "key 'retrieval': folder benchmark does not exist" in output
    os.rename('away', 'benchmark')
    assert not os.path.exists('work/camera-short-s1')
    status, output = here('--only', 'lidar')
    assert status == 2 and 'no such entry or run' in output
    status, output = here('--only', 'prior', '--max-hours', '1')
    assert status == 0 and '| prior | 20.0 | 10.0 |' in output
    assert here('--only', 'camera-short-s0', '--max-hours', '1e-6')[0] == 3


def test_changed_definitions(here, command):
    assert here('--only', 'camera-short-s0')[0] == 0
    (command.root / 'list.yaml').write_text(FILE.replace('short: 8', 'short: 9'))
    status, output = here()
    assert status == 2 and 'camera-short-s0: definition changed: steps: 8 -> 9' in output
    assert '--redo makes them anew' in output and os.listdir('rows') == ['camera-short-s0.json']
    assert 'camera-short-s0: definition changed' in here('--list')[1]
    assert here('--only', 'camera-short-s0', '--keep-changed')[0] == 0
    assert read(command.root / 'rows' / 'camera-short-s0.json')['train_steps'] == 8
    assert here('--only', 'camera-short-s0', '--redo')[0] == 0
    assert read(command.root / 'rows' / 'camera-short-s0.json')['train_steps'] == 9


def test_a_row_whose_checkpoint_is_elsewhere_is_left_alone(here, command):
    """Said by --list and by the run, which does the others; with the work dir it is completed."""
    assert here('--only', 'prior', 'camera-short-s0')[0] == 0
    (command.root / 'list.yaml').write_text(FILE.replace('short]', 'short], cost: true'))
    row = (command.root / 'rows' / 'camera-short-s0.json')
    before = row.read_bytes()
    os.rename('work', 'elsewhere')
    reason = 'camera-short-s0: left as it is: its row has no cost, and no trained checkpoint'
    assert reason in here('--list')[1]
    status, output = here()
    assert status == 1 and reason in output and 'not finished: camera-short-s0' in output
    assert row.read_bytes() == before and os.path.exists('rows/camera-short-s1.json')
    assert read(command.root / 'work' / 'summary.json')['incomplete'].keys() == {'camera-short-s0'}
    assert here('--only', 'camera-short-s0', '--work-dir', 'elsewhere')[0] == 0
    assert 'cost' in read(row)


def test_an_option_that_goes_nowhere_stops_everything_before_it_starts(here, command):
    (command.root / 'list.yaml').write_text(FILE + 'cfg_options: {modle.width: 2}')
    status, output = here()
    assert status == 2 and "option 'modle.width'" in output and not os.path.exists('rows')
