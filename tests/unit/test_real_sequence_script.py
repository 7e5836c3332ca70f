"""tools/real_sequence.sh around its stages, with a stand-in for Python that trains nothing."""
import os
import subprocess

import pytest

STAND_IN = '''#!/usr/bin/env bash
echo "$*" >> "$CALLS"
while [ $# -gt 0 ]; do
    case "$1" in
        tools/train.py) TRAINS=1 ;;
        --work-dir) mkdir -p "$2"; DIR=$2 ;;
        --out) mkdir -p "$(dirname "$2")"; echo '{}' > "$2" ;;
        fail) echo "boom: wrong argument"; exit 1 ;;
    esac
    shift
done
echo 'mean                 all      1.0'
if [ -n "${TRAINS:-}" ]; then
    echo x.pth > "$DIR/last_checkpoint"
    for STEP in 10 20; do
        echo "11/22 - mmengine - INFO - Iter(train) [$STEP/20]  loss: 1.5  loss_lang: 1.5"
    done
fi
'''


@pytest.fixture
def script(repository, tmp_path):
    """Runs the script; returns (exit status, what it printed, the stages it called)."""
    python, calls = tmp_path / 'python', tmp_path / 'calls'
    python.write_text(STAND_IN)
    python.chmod(0o755)
    for name in ('data', 'other data'):
        (tmp_path / name / 'v1.0-mini').mkdir(parents=True)
    env = dict(os.environ, PYTHON=str(python), CALLS=str(calls))

    def run(*arguments, data='data'):
        calls.write_text('')
        done = subprocess.run(
            ['bash', repository / 'tools' / 'real_sequence.sh', data, 'work', *arguments],
            cwd=tmp_path, env=env, text=True, capture_output=True, timeout=60)
        return done.returncode, done.stdout + done.stderr, calls.read_text()

    return run


def test_a_short_training_shows_its_iterations(script):
    status, output, calls = script('--cfg-options', 'train_cfg.max_iters=20')
    assert status == 0 and calls.count('tools/train.py') == 3
    for step in (10, 20):
        assert output.count(f'\nIter(train) [{step}/20]  loss: 1.5\n') == 3
    assert output.count('trained in') == 3 and 'train_cfg.max_iters=20' in calls


def test_finished_trainings_are_kept_for_the_same_arguments_only(script, tmp_path):
    options = ('--cfg-options', 'train_cfg.max_iters=20')
    script(*options)
    assert 'tools/train.py' not in script(*options)[2]
    for status, output, calls in (script(), script(*options, data='other data')):
        assert status == 2 and calls == ''
        assert f'theirs: {tmp_path}/data --cfg-options train_cfg.max_iters=20' in output
    assert f'now:    {tmp_path}/other\\ data --cfg' in output
    assert 'work' in output and script(*options)[0] == 0


def test_other_arguments_before_a_training_finished_start_anew(script):
    status, output, calls = script('fail')
    assert status == 1 and 'boom: wrong argument' in output and calls.count('train.py') == 1
    status, output, calls = script()
    assert status == 0 and 'constant-slab' in calls and calls.count('tools/train.py') == 3


def test_trainings_without_a_record_are_named(script, tmp_path):
    script()
    (tmp_path / 'work' / 'arguments.txt').unlink()
    status, output, calls = script()
    assert status == 0 and 'has no arguments.txt' in output and 'tools/train.py' not in calls
