"""tools/quickstart.sh around its stages, with a stand-in for Python that trains nothing."""
import os
import signal
import subprocess
import time

import pytest

STAND_IN = '''#!/usr/bin/env bash
echo "steps=${LANGOCC_MAX_ITERS:-} root=$SYNTHETIC_ROOT $*" >> "$CALLS"
TOOL=$1
[ "$TOOL" != -c ] || { echo 250; exit; }
[[ -z "${FAIL:-}" || "$TOOL" != *"$FAIL"* ]] || { echo "boom: no such thing"; exit 1; }
[[ -z "${SLEEP_IN:-}" || "$TOOL" != *"$SLEEP_IN"* ]] || { touch "$CALLS.asleep"; exec sleep 60; }
[[ -z "${FORGET:-}" || "$TOOL" != *"$FORGET"* ]] || exit 0
while [ $# -gt 0 ]; do
    case "$1" in
        --work-dir) mkdir -p "$2"; DIR=$2 ;;
        --out-dir) mkdir -p "$2/00005_token"; touch "$2/00005_token/sheet.png" ;;
        --out)
            if [ "$TOOL" = tools/make_synthetic.py ]; then
                mkdir -p "$2"; printf 'a: train\\nb: train\\nc: val\\n' > "$2/splits.txt"
            else
                mkdir -p "$(dirname "$2")"; echo '{}' > "$2"
            fi ;;
    esac
    shift
done
case "$TOOL" in
    tools/train.py)
        echo "/elsewhere/iter_9.pth" > "$DIR/last_checkpoint"
        echo "11/22 - mmengine - INFO - Iter(train) [10/20]  loss: 1.5  loss_lang: 1.5" ;;
    tools/test.py) echo "11/22 - mmengine - INFO - Iter(test) [3/3]    geo_IoU: 0.1  time: 2" ;;
    tools/report.py) echo "| run | IoU |" ;;
esac
'''
TOOLS = ['make_synthetic', 'fit_reducer', 'fit_prior', 'test', 'train', 'test', 'eval_retrieval',
         'query', 'visualize', 'plot_curves', 'report']


def heed_interrupts():
    """A shell's background jobs ignore SIGINT, and so does what they start: tests may be in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def script(repository, tmp_path):
    """Runs the script; returns (exit status, what it printed, the tools it called)."""
    python, calls = tmp_path / 'python', tmp_path / 'calls'
    python.write_text(STAND_IN)
    python.chmod(0o755)
    env = dict(os.environ, PYTHON=str(python), CALLS=str(calls), LANGOCC_INFO_ROOT='/elsewhere')
    env.pop('QUICKSTART_STEPS', None)

    def start(*arguments, **variables):
        calls.write_text('')
        return subprocess.Popen(
            ['bash', repository / 'tools' / 'quickstart.sh', *arguments], cwd=tmp_path, text=True,
            env={**env, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=heed_interrupts)

    def run(*arguments, **variables):
        process = start(*arguments, **variables)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output, calls.read_text()

    run.start, run.calls = start, calls
    return run


def tools_of(calls):
    return [word.split('/')[1][:-3] for line in calls.splitlines() for word in line.split()
            if word.startswith('tools/')]


def test_all_stages_once_and_a_report(script, tmp_path):
    status, output, calls = script('new/work')
    assert status == 0, output
    work = tmp_path / 'new' / 'work'
    assert tools_of(calls) == TOOLS and f'root={work}/data' in calls
    assert output.count('    Iter(test) [3/3]\n') == 2
    assert 'steps=250' in calls and '    Iter(train) [10/20]  loss: 1.5\n' in output
    assert f'query.py configs/langocc-tiny_r18_1xb1_synthetic-camera.py {work}/camera/iter_9.pth' \
        in calls and '--words car tree traffic cone' in calls
    report = (work / 'report.md').read_text()
    assert 'Trained for 250 steps on synthetic streets (2), from' in report
    assert 'scored on others (1)' in report and '| run | IoU |' in report and '--tiny' not in report
    assert 'pictures/00005_token/sheet.png' in report and '| training | ' in report
    assert report.strip() in output and not (work / '.pipe').exists()


def test_finished_stages_are_not_run_again(script, tmp_path):
    status, output, calls = script('work', FAIL='eval_retrieval')
    assert status == 1 and tools_of(calls) == TOOLS[:7]
    assert 'retrieval failed with exit status 1' in output and 'boom: no such thing' in output
    status, output, calls = script('work')
    assert status == 0 and tools_of(calls) == TOOLS[6:]
    assert output.count('there already') == 6
    assert tools_of(script('work')[2]) == ['report']


def test_a_result_that_is_not_written_is_a_failure(script):
    status, output, calls = script('work', FORGET='fit_prior')
    assert status == 1 and 'prior failed with exit status 0' in output
    assert tools_of(calls)[-1] == 'fit_prior'


def test_other_options_and_foreign_folders_are_refused(script, tmp_path):
    script('work')
    for status, output, calls in (script('--tiny', 'work'), script('work', QUICKSTART_STEPS='9')):
        assert status == 2 and tools_of(calls) == []
        assert 'theirs: steps 250, size default' in output and 'now:    steps ' in output
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').touch()
    status, output, _ = script('mine')
    assert status == 2 and 'not empty and not of this script' in output
    assert os.listdir(tmp_path / 'mine') == ['thesis.txt']
    for words in (['--fast'], ['a', 'b']):
        assert script(*words)[0] == 2


def test_tiny_is_small_and_says_so(script, tmp_path):
    status, _, calls = script('--tiny', 'work')
    assert status == 0 and 'steps=2' in calls and '--scenes-train 1' in calls
    assert 'the scores mean nothing' in (tmp_path / 'work' / 'report.md').read_text()


@pytest.mark.parametrize('number, expected', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_stage_and_the_same_command_goes_on(script, tmp_path, number, expected):
    process = script.start('work', SLEEP_IN='train.py')
    asleep = tmp_path / 'calls.asleep'
    deadline = time.monotonic() + 30
    while not asleep.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    status, output, calls = run_beside(script)
    assert status == 2 and 'another quickstart works in' in output
    process.send_signal(number)
    output = process.communicate(timeout=20)[0]  # the stage's output is closed: it has ended
    assert process.returncode == expected and 'the same command goes on' in output
    assert 'training ' in (tmp_path / 'work' / 'times.txt').read_text()
    status, _, calls = script('work')
    assert status == 0 and tools_of(calls) == TOOLS[4:] and '--resume' in calls


def run_beside(script):
    """A second run while one works."""
    before = script.calls.read_text()
    result = script('work')
    script.calls.write_text(before)
    return result
