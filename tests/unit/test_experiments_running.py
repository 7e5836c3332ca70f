"""Plans and schedules, with stand-ins for the tools: cut off, gone on with, failed, changed."""
import json
import os
import time

import pytest
from experiments_factory import read, steps_done, write_stand_ins

from langocc.experiments import Job, Run, Schedule, comparison_table, make_plan
from langocc.experiments.estimate import time_left, words_of
from langocc.experiments.schedule import slot_environments


@pytest.fixture
def bench(tmp_path):
    """Plans and performs runs; ``stop_at``: stop when a line of progress has that in it."""
    write_stand_ins(tmp_path)

    def perform(runs, redo=None, stop_at=None, keep_changed=False, **values):
        plan = make_plan(runs, tmp_path / 'work', tmp_path / 'rows', tmp_path / 'tools', redo,
                         keep_changed)
        lines = []

        def say(line):
            lines.append(line)
            if stop_at and stop_at in line:
                schedule.stop('signal')

        schedule = Schedule(plan, tmp_path / 'rows', redo, say=say, **values)
        outcome = schedule.run(pause=0.01)
        perform.lines = lines
        return plan, outcome

    perform.root = tmp_path
    return perform


def runs_of(bench, count=1, **values):
    values = dict(dict(steps=6, budget='short', save_every=2), **values)
    return [Run(entry='a', title='a', config=str(bench.root / 'config.py'), seed=seed, **values)
            for seed in range(count)]


def test_runs_get_rows_and_are_not_run_again(bench, monkeypatch):
    monkeypatch.setenv('STEP_SECONDS', '0.02')
    prior = Run(entry='prior', title='prior', config=str(bench.root / 'config.py'), train=False)
    runs = [*runs_of(bench, 2, retrieval=str(bench.root / 'benchmark')), prior]
    _, outcome = bench(runs)
    assert outcome.finished == ['a-short-s0', 'a-short-s1', 'prior'] and not outcome.failed
    row = read(bench.root / 'rows' / 'a-short-s1.json')
    assert row['metrics'] == dict(geo_IoU=22., occ17_mIoU=11., IoU_car=5.5, IoU_bus=None)
    assert row['train_steps'] == 6 and row['attempts'] == 1 and row['train_seconds'] >= 0.1
    assert row['peak_memory_mb'] >= 1 and row['retrieval']['means']['all']['visible'] == 50
    assert 'token' not in row['retrieval']['queries'][0] and 'CPU core' in row['machine']
    prior = read(bench.root / 'rows' / 'prior.json')
    assert prior['metrics']['geo_IoU'] == 20 and 'train_seconds' not in prior
    plan, outcome = bench(runs)
    assert len(plan.finished) == 3 and not plan.pending and not outcome.finished


@pytest.mark.parametrize('slow, stop_at', [('STEP_SECONDS', 'step 3 of'),
                                           ('TEST_SECONDS', 'metrics')])
def test_stopped_runs_go_on_from_their_checkpoint(bench, monkeypatch, slow, stop_at):
    monkeypatch.setenv(slow, '0.1' if slow == 'STEP_SECONDS' else '60')
    start = time.monotonic()
    _, outcome = bench(runs_of(bench), stop_at=stop_at, every=0.01)
    assert outcome.stopped == 'signal' and not outcome.finished
    assert time.monotonic() - start < 10 and not (bench.root / 'rows').exists()
    before = steps_done(bench.root / 'work' / 'a-short-s0')
    assert before[:3] == [1, 2, 3] and (len(before) < 6) == (slow == 'STEP_SECONDS')
    monkeypatch.setenv(slow, '0')
    _, outcome = bench(runs_of(bench))
    assert outcome.finished == ['a-short-s0']
    after = steps_done(bench.root / 'work' / 'a-short-s0')[len(before):]
    saved = len(before) // 2 * 2  # a checkpoint every two steps
    assert after == list(range(saved + 1, 7))
    row = read(bench.root / 'rows' / 'a-short-s0.json')
    assert row['attempts'] == (2 if after else 1) and row['metrics']['geo_IoU'] == 20


def test_time_is_up(bench, monkeypatch):
    monkeypatch.setenv('STEP_SECONDS', '60')
    _, outcome = bench(runs_of(bench, 2), max_seconds=0.3)
    assert outcome.stopped == 'time' and not outcome.finished


def test_an_attempt_whose_end_nobody_saw_counts_until_its_last_line(bench):
    """The runner was killed: its state says no more than that the training began."""
    runs = runs_of(bench)
    bench(runs)
    (bench.root / 'rows' / 'a-short-s0.json').unlink()
    folder = bench.root / 'work' / 'a-short-s0'
    (folder / 'state.json').write_text(
        json.dumps(dict(definition=read(folder / 'state.json')['definition'], attempts=[
            dict(stage='train', started=1000., commit='abc')])))
    os.utime(folder / 'train.log', (1100., 1100.))
    _, outcome = bench(runs)  # iter_6.pth is there: trained
    row = read(bench.root / 'rows' / 'a-short-s0.json')
    assert outcome.finished and row['train_seconds'] == 100 and row['commit'] == 'abc'
    assert steps_done(folder) == [1, 2, 3, 4, 5, 6]


def test_a_failed_run_is_recorded_and_the_others_go_on(bench):
    runs = [*runs_of(bench, options={'model.fail': 1}),
            Run(entry='b', title='b', config=str(bench.root / 'config.py'), steps=2, seed=0)]
    _, outcome = bench(runs)
    assert outcome.finished == ['b-s0'] and list(outcome.failed) == ['a-short-s0']
    failure = read(bench.root / 'work' / 'a-short-s0' / 'failure.json')
    assert failure['stage'] == 'train' and failure['status'] == 1
    assert failure['log'][-1] == 'RuntimeError: no such layer'
    assert any('RuntimeError: no such layer' in line for line in bench.lines)
    assert not (bench.root / 'rows' / 'a-short-s0.json').exists()


def test_evaluation_is_retried_without_training_again(bench, monkeypatch):
    monkeypatch.setenv('BAD_METRICS', '1')
    _, outcome = bench(runs_of(bench))
    assert outcome.failed['a-short-s0']['stage'] == 'test'
    monkeypatch.delenv('BAD_METRICS')
    _, outcome = bench(runs_of(bench))
    folder = bench.root / 'work' / 'a-short-s0'
    assert outcome.finished and steps_done(folder) == [1, 2, 3, 4, 5, 6]
    assert not (folder / 'failure.json').exists()


def test_a_training_killed_by_itself_is_a_failure_that_resumes(bench, monkeypatch):
    monkeypatch.setenv('DIE_AT', '5')
    assert bench(runs_of(bench))[1].failed['a-short-s0']['status'] == 9
    monkeypatch.delenv('DIE_AT')
    assert bench(runs_of(bench))[1].finished
    assert steps_done(bench.root / 'work' / 'a-short-s0') == [1, 2, 3, 4, 5, 5, 6]


def test_changed_definitions_are_refused_or_made_anew(bench):
    bench(runs_of(bench))
    changed = runs_of(bench, options={'model.width': 2})
    plan, outcome = bench(changed)
    assert plan.changed == {'a-short-s0': 'options model.width: None -> 2'}
    assert not outcome.finished and not plan.pending
    plan, outcome = bench(changed, redo='changed')
    folder = bench.root / 'work' / 'a-short-s0'
    assert outcome.finished == ['a-short-s0'] and steps_done(folder) == [1, 2, 3, 4, 5, 6]
    assert read(bench.root / 'rows' / 'a-short-s0.json')['definition']['options'] == {
        'model.width': 2}
    assert not bench(changed, redo='changed')[1].finished


def test_a_training_can_be_scored_with_another_definition(bench):
    bench(runs_of(bench, retrieval=str(bench.root / 'benchmark')))
    folder, path = bench.root / 'work' / 'a-short-s0', bench.root / 'rows' / 'a-short-s0.json'
    before = read(path)
    (folder / 'metrics.json').write_text('{"geo_IoU": 1.0}')  # whatever is there is not kept
    changed = runs_of(bench, retrieval=str(bench.root / 'benchmark'),
                      options={'model.threshold': 2})
    assert bench(changed)[0].changed
    plan, outcome = bench(changed, redo='scores')
    assert outcome.finished == ['a-short-s0'] and steps_done(folder) == [1, 2, 3, 4, 5, 6]
    row = read(path)
    assert row['definition']['options'] == {'model.threshold': 2}
    assert row['trained_as'] == before['definition'] and 'trained_as' not in before
    assert row['metrics'] == before['metrics'] and row['retrieval'] == before['retrieval']
    assert row['train_seconds'] == before['train_seconds'] and row['attempts'] == 1
    assert 'model.threshold=2' in Job(
        changed[0], row['definition'], folder, bench.root / 'tools').command('test')
    assert len(bench(changed)[0].finished) == 1
    # Back again: it is what it was trained as.
    bench(runs_of(bench, retrieval=str(bench.root / 'benchmark')), redo='scores')
    assert 'trained_as' not in read(path) and read(path)['definition'] == before['definition']


def test_scoring_anew_can_be_cut_off(bench, monkeypatch):
    bench(runs_of(bench))
    changed, folder = runs_of(bench, options={'model.threshold': 2}), bench.root / 'work/a-short-s0'

    def cut_off(job, environment):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Job, 'advance', cut_off)
        bench(changed, redo='scores')
    assert not (folder / 'metrics.json').exists()
    assert bench(changed)[0].changed  # its row is of old scores
    assert bench(changed, redo='scores')[1].finished
    assert steps_done(folder) == [1, 2, 3, 4, 5, 6]
    row = read(bench.root / 'rows' / 'a-short-s0.json')
    assert row['definition']['options'] and not row['trained_as']['options']


def test_what_cannot_be_scored_anew_is_left_alone(bench):
    """Another seed's or environment's training, none at all, or one whose cost is in the row."""
    bench(runs_of(bench))
    row = (bench.root / 'rows' / 'a-short-s0.json').read_bytes()
    for values, reason in (
            (dict(environment={'WIDTH': '2'}), 'environment WIDTH: None -> '),
            (dict(options={'model.threshold': 2}, cost=True), 'its cost is measured with')):
        plan, outcome = bench(runs_of(bench, **values), redo='scores')
        assert reason in plan.incomplete['a-short-s0'] and not plan.pending
    (bench.root / 'work' / 'a-short-s0').rename(bench.root / 'elsewhere')
    plan, _ = bench(runs_of(bench, options={'model.threshold': 2}), redo='scores')
    assert 'it cannot be scored anew: no trained checkpoint' in plan.incomplete['a-short-s0']
    assert (bench.root / 'rows' / 'a-short-s0.json').read_bytes() == row


def test_a_folder_without_a_checkpoint_is_taken_by_any_definition(bench):
    bench(runs_of(bench, options={'model.fail': 1}))
    plan, outcome = bench(runs_of(bench))
    assert not plan.changed and outcome.finished == ['a-short-s0']
    assert read(bench.root / 'rows' / 'a-short-s0.json')['attempts'] == 1


@pytest.mark.parametrize('redo', ['changed', 'all'])
def test_making_anew_can_be_cut_off_too(bench, monkeypatch, redo):
    bench(runs_of(bench))
    runs = runs_of(bench, options={'model.width': 2}) if redo == 'changed' else runs_of(bench)
    monkeypatch.setenv('STEP_SECONDS', '0.1')
    bench(runs, redo, stop_at='step 3 of', every=0.01)
    monkeypatch.setenv('STEP_SECONDS', '0')
    before = steps_done(bench.root / 'work' / 'a-short-s0')
    assert len(before) < 6
    assert bench(runs, 'changed' if redo == 'changed' else None)[1].finished
    assert steps_done(bench.root / 'work' / 'a-short-s0')[len(before)] > 1


def test_retrieval_can_be_added_to_a_finished_run(bench):
    bench(runs_of(bench))
    _, outcome = bench(runs_of(bench, retrieval=str(bench.root / 'benchmark')))
    assert outcome.finished and steps_done(bench.root / 'work' / 'a-short-s0')[-1] == 6
    row = read(bench.root / 'rows' / 'a-short-s0.json')
    assert len(row['retrieval']['queries']) == 3 and row['attempts'] == 1


def test_cost_can_be_added_to_a_finished_run(bench):
    bench(runs_of(bench))
    assert 'cost' not in read(bench.root / 'rows' / 'a-short-s0.json')
    _, outcome = bench(runs_of(bench, cost=True))
    assert outcome.finished and steps_done(bench.root / 'work' / 'a-short-s0')[-1] == 6
    row = read(bench.root / 'rows' / 'a-short-s0.json')
    assert row['attempts'] == 1 and row['cost'] == dict(
        trained_parameters=2500000, flops=3.2e9, seconds=0.5, peak_memory_mb=120.4, device='cpu',
        input='made')
    line = comparison_table([row]).splitlines()[-1]
    assert line.endswith('| 2.50 | 3.2 | 0.50 | 120 |')
    plan, _ = bench(runs_of(bench, cost=True))
    assert len(plan.finished) == 1


def test_what_a_row_lacks_is_no_reason_to_train_again(bench):
    """Its run's folder is gone, then another run is there; only 'all' makes it anew."""
    bench(runs_of(bench))
    path, folder = bench.root / 'rows' / 'a-short-s0.json', bench.root / 'work' / 'a-short-s0'
    before = path.read_bytes()
    folder.rename(bench.root / 'elsewhere')
    more = runs_of(bench, cost=True, retrieval=str(bench.root / 'benchmark'))
    for redo in (None, 'changed'):
        plan, outcome = bench(more, redo)
        assert not plan.pending and not outcome.finished and path.read_bytes() == before
        assert plan.incomplete['a-short-s0'] == (
            f'its row has no retrieval and cost, and no trained checkpoint of it is in {folder}: '
            'name the --work-dir of its training; or --redo all --only a-short-s0 makes run and '
            'row anew')
    (bench.root / 'elsewhere').rename(folder)
    metrics = (folder / 'metrics.json').read_text()
    (folder / 'metrics.json').write_text(metrics.replace('20.0', '19.0'))
    plan, _ = bench(more)
    assert 'another run (its scores differ' in plan.incomplete['a-short-s0']
    assert path.read_bytes() == before
    (folder / 'metrics.json').write_text(metrics)
    made = dict(read(path), machine='a machine of old')
    path.write_text(json.dumps(made))
    assert bench(more)[1].finished and len(steps_done(folder)) == 6
    row = read(path)
    assert {key: row[key] for key in made} == made and {'retrieval', 'cost'} <= row.keys()
    assert bench(more, 'all')[1].finished and read(path)['machine'] != 'a machine of old'


def test_what_a_kept_row_lacks_is_measured(bench):
    bench(runs_of(bench))
    path, folder = bench.root / 'rows' / 'a-short-s0.json', bench.root / 'work' / 'a-short-s0'
    old = read(path)
    changed = runs_of(bench, options={'model.width': 2}, steps=7, cost=True)
    assert bench(changed)[0].changed
    plan, outcome = bench(changed, keep_changed=True)
    assert outcome.finished == ['a-short-s0'] and len(steps_done(folder)) == 6
    row = read(path)
    assert row.pop('cost') and row == old and row['train_steps'] == 6
    assert bench(changed, keep_changed=True)[0].finished
    asked = runs_of(bench, steps=7, retrieval=str(bench.root / 'benchmark'))
    folder.rename(bench.root / 'elsewhere')
    plan, _ = bench(asked, keep_changed=True)
    assert 'no retrieval, and no trained checkpoint' in plan.incomplete['a-short-s0']


def test_a_row_names_the_machine_of_its_training(bench):
    bench(runs_of(bench))
    (bench.root / 'rows' / 'a-short-s0.json').unlink()
    state = bench.root / 'work' / 'a-short-s0' / 'state.json'
    made = read(state)
    assert 'CPU core' in made['attempts'][0]['machine'] and made['attempts'][0]['threads']
    made['attempts'][0].update(machine='a machine of old', torch='1.0', threads='3')
    state.write_text(json.dumps(made))
    bench(runs_of(bench))
    row = read(bench.root / 'rows' / 'a-short-s0.json')
    assert (row['machine'], row['torch'], row['threads']) == ('a machine of old', '1.0', '3')


def test_a_folder_that_another_process_works_in_is_left_alone(bench, monkeypatch):
    monkeypatch.setattr(Job.lock, '__defaults__', (0.1, ))
    job = make_plan(runs_of(bench), bench.root / 'work', bench.root / 'rows',
                    bench.root / 'tools').pending[0]
    assert job.lock()
    _, outcome = bench(runs_of(bench, 2))
    assert outcome.busy == ['a-short-s0'] and outcome.finished == ['a-short-s1']
    job.unlock()
    assert bench(runs_of(bench, 2))[1].finished == ['a-short-s0']


def test_two_slots_run_at_once(bench, monkeypatch):
    monkeypatch.setenv('STEP_SECONDS', '0.1')
    _, outcome = bench(runs_of(bench, 2), slots=2)
    first, second = (read(bench.root / 'work' / f'a-short-s{seed}' / 'state.json')['attempts'][0]
                     for seed in (0, 1))
    assert len(outcome.finished) == 2 and second['started'] < first['started'] + first['seconds']


def test_slots_take_gpus_by_number(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 3)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert [item['CUDA_VISIBLE_DEVICES'] for item in slot_environments(2)] == ['0', '1']
    assert 'CUDA_VISIBLE_DEVICES' not in slot_environments(1)[0]
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    assert [item['CUDA_VISIBLE_DEVICES'] for item in slot_environments(2)] == ['4', '6']
    with pytest.raises(ValueError, match='3 slots, but 2 GPUs'):
        slot_environments(3)


def test_time_left(bench):
    """Known: 0.5 s a step by the log of the first; the second has 8 steps to go."""
    runs = runs_of(bench)
    bench(runs)
    (bench.root / 'rows' / 'a-short-s0.json').unlink()
    plan = make_plan([*runs, *runs_of(bench, 1, steps=8, budget='long')], bench.root / 'work',
                     bench.root / 'rows', bench.root / 'tools')
    assert time_left(plan.pending, [], bench.root / 'rows', 1) == 4
    assert time_left(plan.pending[1:], [], bench.root / 'rows', 1) is None
    plan = make_plan(runs, bench.root / 'work', bench.root / 'rows', bench.root / 'tools', 'all')
    Schedule(plan, bench.root / 'rows', 'all')
    assert time_left(plan.pending, [], bench.root / 'rows', 1) == 3  # what is there is removed
    assert words_of(None) == 'time left not known yet' and words_of(20) == 'less than a minute left'
    assert words_of(3600 * 2 + 290) == 'about 2 h 05 min left' and words_of(61) == (
        'about 1 min left')
