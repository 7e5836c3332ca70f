"""tools/quickstart.sh around its stages, with a stand-in for Python that trains nothing."""
import os
import shutil
import signal
import subprocess
import time

import pytest

STAND_IN = '''#!/usr/bin/env bash
echo "steps=${LANGOCC_MAX_ITERS:-} root=$SYNTHETIC_ROOT $*" >> "$CALLS"
TOOL=$1 WORDS=() SAMPLES=()
[ "$TOOL" != -c ] || { echo 250; exit; }
[[ -z "${FAIL:-}" || "$TOOL" != *"$FAIL"* ]] || { echo "boom: no such thing"; exit 1; }
[[ -z "${SLEEP_IN:-}" || "$TOOL" != *"$SLEEP_IN"* ]] || { touch "$CALLS.asleep"; exec sleep 60; }
[[ -z "${FORGET:-}" || "$TOOL" != *"$FORGET"* ]] || exit 0
while [ $# -gt 0 ]; do
    case "$1" in
        --work-dir) mkdir -p "$2"; DIR=$2 ;;
        --words) while [[ $# -gt 1 && "$2" != --* ]]; do WORDS+=("$2"); shift; done ;;
        --samples) while [[ $# -gt 1 && "$2" != --* ]]; do SAMPLES+=("$2"); shift; done ;;
        --out-dir) OUT_DIR=$2; mkdir -p "$2" ;;
        --out)
            if [ "$TOOL" = tools/make_synthetic.py ]; then
                mkdir -p "$2/text_embeds"
                printf 'a: train\\nb: train\\nc: val\\n' > "$2/splits.txt"
                printf '{\\n  "encoder": "%s",\\n  "embed_dims": 512,\\n  "words": 404\\n}\\n' \\
                    "${ENCODER:-offline words v1}" > "$2/text_embeds/encoder.json"
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
    tools/eval_retrieval.py) echo "Loads checkpoint"; echo "mean of 16  all  21.9" ;;
    tools/query.py)
        echo "sample token: 7 occupied voxels"; echo "  'car': highest cosine 0.9"
        for WORD in "${WORDS[@]}"; do echo png > "$OUT_DIR/$WORD.png"; done ;;
    tools/visualize.py)
        for SAMPLE in "${SAMPLES[@]}"; do
            SHEET="$OUT_DIR/$(printf %05d "$SAMPLE")_token/sheet.png"
            mkdir -p "${SHEET%/*}"; echo png > "$SHEET"; echo "$SHEET"
        done ;;
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
    for name in ('QUICKSTART_STEPS', 'LANGOCC_CLIP_WEIGHTS'):
        env.pop(name, None)

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
    recipe = 'configs/langocc-tiny_r18_1xb1_synthetic-path-photometric-ground.py'
    assert f'query.py {recipe} {work}/camera/iter_9.pth' in calls
    assert '--words road grass building tree car pedestrian traffic cone --samples 25' in calls
    report = (work / 'report.md').read_text()
    assert 'Trained for 250 steps on synthetic streets (2), from' in report
    assert 'scored on others (1)' in report and '| run | IoU |' in report and '--tiny' not in report
    assert 'pictures/00005_token/sheet.png' in report and '| training | ' in report
    assert report.strip() in output and not (work / '.pipe').exists()
    # Stages that take long say how far they are, without what the libraries say.
    for line in ('mean of 16  all  21.9', 'sample token: 7 occupied voxels',
                 f'{work}/pictures/00015_token/sheet.png'):
        assert f'    {line}\n' in output
    assert 'Loads checkpoint' not in output


def test_the_text_encoder_is_named_and_clip_that_comes_later_is_not_ignored(script, tmp_path):
    output = script('work')[1]
    report = (tmp_path / 'work' / 'report.md').read_text()
    assert "words of these streets are embedded by 'offline words v1'" in output
    assert '**`offline words v1`**, not by a language model' in report
    assert '(404 of them' in report and 'LANGOCC_CLIP_WEIGHTS=FILE bash' in report
    assert 'offline_words.txt' in report and 'came after these streets' not in output
    output = script('work', LANGOCC_CLIP_WEIGHTS='clip.pt')[1]
    assert 'LANGOCC_CLIP_WEIGHTS is set, but came after these streets' in output
    output = script('other', LANGOCC_CLIP_WEIGHTS='clip.pt', ENCODER='CLIP ViT-B-16')[1]
    report = (tmp_path / 'other' / 'report.md').read_text()
    assert 'came after' not in output and 'embedded by **`CLIP ViT-B-16`**' in report
    assert 'made-up' not in report


@pytest.mark.parametrize('steps', ['8OO', '0', '-3', '1.5', ''])
def test_wrong_steps_are_refused_before_anything_is_recorded(script, tmp_path, steps):
    status, output, calls = script('work', QUICKSTART_STEPS=steps)
    if steps:
        assert status == 2 and f"QUICKSTART_STEPS is '{steps}'" in output and not calls
        assert not (tmp_path / 'work').exists()
    else:
        assert status == 0  # as if it were not set


def test_other_steps_keep_the_streets_and_the_earlier_model(script, tmp_path):
    script('work')
    work = tmp_path / 'work'
    (work / 'camera' / 'iter_9.pth').write_text('weights')
    status, output, calls = script('work', QUICKSTART_STEPS='9')
    assert status == 0 and tools_of(calls) == TOOLS[4:] and 'steps=9' in calls
    assert '9 steps instead of 250: trained anew' in output
    assert (work / 'camera-250' / 'iter_9.pth').read_text() == 'weights'
    assert (work / 'camera-250' / 'report.md').is_file()
    assert not (work / 'camera' / 'iter_9.pth').exists()
    for name in ('pictures/00005_token/sheet.png', 'queries/car.png'):
        assert (work / 'camera-250' / name).is_file() and (work / name).is_file()
    report = (work / 'report.md').read_text()
    assert 'Trained for 9 steps' in report and '`camera-250`: an earlier training here.' in report
    assert tools_of(script('work', QUICKSTART_STEPS='9')[2]) == ['report']
    # Cut off in the middle, it goes on with the new number.
    assert script('work', QUICKSTART_STEPS='7', FAIL='train.py')[0] == 1
    assert tools_of(script('work', QUICKSTART_STEPS='7')[2]) == TOOLS[4:]


@pytest.mark.parametrize('name, tools', [
    ('pictures', ['visualize', 'report']), ('queries', ['query', 'report']),
    ('pictures/00025_token', ['visualize', 'report']), ('queries/car.png', ['query', 'report']),
    ('curves.png', ['plot_curves', 'report']), ('camera', TOOLS[4:])])
def test_what_was_removed_is_made_again(script, tmp_path, name, tools):
    script('work')
    path = tmp_path / 'work' / name
    assert path.exists()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    status, output, calls = script('work')
    assert status == 0 and tools_of(calls) == tools
    assert (path / 'last_checkpoint' if name == 'camera' else path).exists()


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
    for options in (['--tiny'], []):
        steps = '9' if options else '8'
        status, output, calls = script('--tiny', 'work', QUICKSTART_STEPS=steps)
        assert status == 2 and tools_of(calls) == []
        assert 'theirs: steps 250, size default' in output and f'now:    steps {steps},' in output
    assert (tmp_path / 'work' / 'camera').is_dir()
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
