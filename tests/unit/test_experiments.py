"""Experiment files, definitions and tables."""
import pytest
from experiments_factory import READING, write_stand_ins

from langocc.experiments import (
    Run, check_inputs, class_table, comparison_table, definition_of, fingerprint, load_config,
    query_table, read_experiments, read_rows
)
from langocc.experiments.fingerprint import describe_change, option_arguments
from langocc.files import write_json

FILE = '''
budgets: {short: 4, long: 8}
seeds: [0, 1]
cfg_options: {model.width: 2}
environment: {ROOT: data}
cost: true
experiments:
  - name: camera
    title: camera only
    config: config.py
    budgets: [short, long]
    cfg_options: {model.losses.lang.mode: cosine}
  - {name: lidar, config: config.py, budgets: [long], seeds: [3], environment: {FAST: 1}}
  - {name: prior, config: config.py, train: false}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_stand_ins(tmp_path / 'work').parent / 'work'


def written(folder, text):
    (folder / 'list.yaml').write_text(text)
    return folder / 'list.yaml'


def run_of(folder, **values):
    return Run(entry='a', title='a', config=str(folder / 'config.py'), seed=0, **values)


def test_expansion(folder):
    runs = read_experiments(written(folder, FILE))
    assert [run.name for run in runs] == ['camera-short-s0', 'camera-short-s1', 'camera-long-s0',
                                          'camera-long-s1', 'lidar-long-s3', 'prior']
    camera, lidar, prior = runs[3], runs[4], runs[5]
    assert (camera.title, camera.steps, camera.seed) == ('camera only', 8, 1)
    assert camera.options == {'model.width': 2, 'model.losses.lang.mode': 'cosine'}
    assert lidar.environment == {'ROOT': 'data', 'FAST': '1'} and lidar.options == {
        'model.width': 2}
    assert camera.cost and lidar.cost and not prior.cost
    assert not prior.train and prior.steps is prior.seed is None and prior.title == 'prior'


@pytest.mark.parametrize('old, new, message', [
    ('budgets: [long]', 'budgets: [lang]', "entry 2 ('lidar'), key 'budgets'"),
    ('seeds: [3]', 'seeds: [3, 3]', "entry 2 ('lidar'), key 'seeds'"),
    ('seeds: [3]', 'seeds: 3', 'a list of different integers'),
    ('train: false', 'train: 0', "entry 3 ('prior'), key 'train'"),
    ('train: false', 'train: false, seeds: [1]', "entry 3 ('prior'), 'train: false'"),
    ('train: false', 'train: false, cost: true', "entry 3 ('prior'), 'train: false'"),
    ('seeds: [3]', 'cost: 1', "entry 2 ('lidar'), key 'cost': expected true or false"),
    ('long: 8', 'long: 0', "key 'budgets'"),
    ('title: camera only', 'titel: x', "unknown keys ['titel']"),
    ('name: prior, ', '', "entry 3: keys ['name'] are missing"),
    ('name: prior', 'name: a/b', 'letters, digits'),
    ('name: prior', 'name: lidar, budgets: [long], seeds: [3]', 'twice'),
    ('{FAST: 1}', '{FAST: [1]}', "key 'environment'"),
    ('config.py\n    budgets', 'config.py\n    config: x\n    budgets', "['config'] stand twice"),
    ('experiments:', 'runs:', 'unknown keys'),
    ('{name: prior', '{name: prior: x', 'not valid YAML')])
def test_errors_name_file_entry_and_key(folder, old, new, message):
    assert old in FILE
    text = FILE.replace(old, new)
    if message == 'twice':
        text, message = text.replace(', train: false', ''), "['lidar-long-s3'] are there more than"
    with pytest.raises(ValueError) as error:
        read_experiments(written(folder, text))
    assert 'list.yaml' in str(error.value) and message in str(error.value), error.value


def test_no_file(folder):
    with pytest.raises(FileNotFoundError, match='experiments file none.yaml does not exist'):
        read_experiments('none.yaml')


def test_definition_follows_code_not_comments(folder):
    def now(**values):
        return fingerprint(definition_of(run_of(folder, **values)))

    first, base = now(), folder / 'base.py'
    base.write_text('# seeds\n"""Not a docstring any more."""\n' + base.read_text())
    text = (folder / 'config.py').read_text()
    (folder / 'config.py').write_text(text.replace('"""A config."""', '"""Words."""  # more'))
    assert now() == first
    base.write_text(base.read_text().replace('seed=0', 'seed=1'))
    assert now() != first
    changed = {now(), now(steps=3), now(options={'model.width': 2}), now(environment={'A': 'b'})}
    assert len(changed) == 4
    assert now(retrieval='x', save_every=3, cost=True) == now()


def test_data_files_belong_to_the_definition(folder, monkeypatch):
    monkeypatch.setenv('WHERE', str(folder))
    (folder / 'facts.json').write_text('1')
    run = run_of(folder, data=('${WHERE}/facts.json', ))
    old = definition_of(run)
    (folder / 'facts.json').write_text('2')
    assert describe_change(old, definition_of(run)) == 'data changed'
    (folder / 'facts.json').unlink()
    with pytest.raises(FileNotFoundError, match='data file of run a-s0 .*facts.json'):
        definition_of(run)
    monkeypatch.delenv('WHERE')
    with pytest.raises(ValueError, match='run a-s0, key .data.: variable WHERE'):
        definition_of(run)


def test_changes_in_words(folder):
    old = definition_of(run_of(folder, steps=4, options={'model.width': 2, 'a': 1}))
    new = definition_of(run_of(folder, steps=5, options={'model.width': 3, 'a': 1}))
    assert describe_change(old, new) == 'options model.width: 2 -> 3, steps: 4 -> 5'


PLACES = {'model.width': 5, 'model.losses.lang.scale': 2.5, 'model.losses.lang.mode': 'cosine',
          'train_dataloader.dataset.pipeline.1.source.type': 'Camera',
          'train_dataloader.dataset.pipeline.1.frames': [-2, 0, 2],
          'model.losses.sky.type': 'Sky', 'model.losses.sky.loss_weight': None}


def test_options_arrive(folder):
    cfg = load_config(run_of(folder, steps=7, options=PLACES))
    assert cfg.train_cfg.max_iters == 7 and cfg.randomness.seed == 0
    assert cfg.model.width == 5
    assert cfg.model.losses.lang == dict(type='Loss', mode='cosine', scale=2.5)
    assert cfg.model.losses.sky == dict(type='Sky', loss_weight=None)
    rays = cfg.train_dataloader.dataset.pipeline[1]
    assert rays.source.type == 'Camera' and rays.frames == [-2, 0, 2]


@pytest.mark.parametrize('key, place', [
    ('model.losses.sky.loss_weight', "no 'sky' at model.losses"),
    ('modle.width', "no 'modle' at its top"),
    ('train_dataloader.dataset.pipeline.7.frames', "no '7' at train_dataloader.dataset.pipeline"),
    ('train_cfg.max_iter', "no 'max_iter' at train_cfg"),
    ('model.width.x', "no 'x' at model.width")])
def test_an_option_that_goes_nowhere_is_refused(folder, key, place):
    with pytest.raises(ValueError, match=f"run a-s0, option '{key}'.*{place}"):
        load_config(run_of(folder, options={key: 1}))


@pytest.mark.parametrize('value', [{'a': 1}, 'two words', '1', 'a,b', 'None'])
def test_a_value_that_the_command_line_cannot_say_is_refused(folder, value):
    with pytest.raises(ValueError, match='run a-s0, option model.width'):
        option_arguments(run_of(folder, options={'model.width': value}))


def test_a_config_that_does_not_read_the_steps_is_refused(folder):
    (folder / 'config.py').write_text('train_cfg = dict(max_iters=70)\nrandomness = dict(seed=0)')
    with pytest.raises(ValueError, match='max_iters of .* is 70 where LANGOCC_MAX_ITERS is 9'):
        load_config(run_of(folder, steps=9))


def test_files_and_folders_that_a_run_reads_are_looked_for(folder, monkeypatch):
    """One after the other is there; a training reads its maps, a prior what it is scored on."""
    (folder / 'reading.py').write_text(READING.format(root=folder / 'data'))
    benchmark = str(folder / 'data' / '${WHICH}')
    training = Run(entry='a', title='a', config=str(folder / 'reading.py'), seed=0,
                   retrieval=benchmark)
    prior = Run(entry='prior', title='prior', config=str(folder / 'reading.py'), train=False)

    def check(run, missing):
        with pytest.raises(FileNotFoundError, match=f'run {run.name}.*{missing} .*does not exist'):
            check_inputs(run, load_config(run))

    monkeypatch.setenv('WHICH', 'benchmark')
    check(prior, 'file .*/data/prior.npz')
    (folder / 'data').mkdir()
    (folder / 'data' / 'prior.npz').write_text('')
    check_inputs(prior, load_config(prior))
    check(training, 'folder .*/data/maps')
    (folder / 'data' / 'maps').mkdir()
    with pytest.raises(FileNotFoundError, match="run a-s0, key 'retrieval': .*/data/benchmark "):
        check_inputs(training, load_config(training))
    (folder / 'data' / 'benchmark').mkdir()
    check_inputs(training, load_config(training))


def row(entry, budget, seed, **values):
    steps = dict(short=4, long=8).get(budget)
    return dict(run=f'{entry}-{budget}-s{seed}', entry=entry, title=f'{entry} rays', budget=budget,
                seed=seed, train_steps=steps, fingerprint='x', definition={}, **values)


ROWS = [
    row('camera', 'short', 0, metrics=dict(geo_IoU=10., IoU_car=1.), train_seconds=60),
    row('camera', 'short', 1, metrics=dict(geo_IoU=12., IoU_car=None), train_seconds=180),
    row('camera', 'short', 2, metrics=dict(geo_IoU=17., IoU_car=2.), train_seconds=120),
    row('camera', 'long', 0, metrics=dict(geo_IoU=20., IoU_car=3.), train_seconds=600,
        retrieval=dict(means=dict(all=dict(visible=50., teacher=None)), queries=[
            dict(query='car', visible=40., teacher=80., chance=5.),
            dict(query='car', visible=60., teacher=90., chance=7.),
            dict(query='bus', visible=None, chance=0.)])),
    row('prior', None, None, metrics=dict(geo_IoU=5., RayIoU=4.25))]


def test_cost_is_shown_where_all_that_was_trained_has_it():
    cost = dict(trained_parameters=3.1e6, flops=2.54e11, seconds=0.8, peak_memory_mb=900.)
    short = [dict(line, cost=cost) if line['budget'] == 'short' else line for line in ROWS]
    assert 'GFLOPs' not in comparison_table(short)
    lines = comparison_table([line for line in short if line['budget'] != 'long']).splitlines()
    assert lines[0].endswith('| parameters, M | GFLOPs | s a prediction | MB a prediction |')
    assert lines[2].endswith('| 3.10 ± 0.00 | 254.0 ± 0.0 | 0.80 ± 0.00 | 900 ± 0 |')
    assert lines[3].startswith('| prior rays | - | - | 5.0 |') and lines[3].endswith('| - | - |')


def test_table_is_exact(tmp_path):
    """Mean 13, sample deviation sqrt((9 + 1 + 16) / 2) = 3.6; minutes 2 and sqrt(2 / 2) = 1."""
    lines = comparison_table(ROWS).splitlines()
    assert lines == [
        '| run | steps | seeds | geometric IoU | RayIoU | AP at LiDAR points | training, min |',
        '|---|---:|---:|---:|---:|---:|---:|',
        '| camera rays | 4 | 3 | 13.0 ± 3.6 | - | - | 2 ± 1 |',
        '| camera rays | 8 | 1 | 20.0 | - | 50.0 | 10 |',
        '| prior rays | - | - | 5.0 | 4.2 | - | - |']


def test_tables_of_classes_and_queries():
    lines = class_table(ROWS).splitlines()
    assert lines[0] == '| class | camera rays, short | camera rays, long | prior rays |'
    assert lines[2:] == ['| car | 1.5 ± 0.7 (2 of 3) | 3.0 | - |']
    lines = query_table(ROWS).splitlines()
    assert lines[0] == '| query | camera rays, long | teacher | chance |'
    assert lines[2:] == ['| car | 50.0 | 85.0 | 6.0 |', '| bus | - | - | 0.0 |']


def test_rows_of_a_folder(tmp_path, folder):
    for item in ROWS:
        write_json(tmp_path / 'rows' / f'{item["run"]}.json', item)
    names = [item['run'] for item in read_rows(tmp_path / 'rows')]
    assert names == [f'camera-{end}' for end in ('short-s0', 'short-s1', 'short-s2', 'long-s0')
                     ] + ['prior-None-sNone']
    runs = read_experiments(written(folder, FILE))
    rows = read_rows(tmp_path / 'rows', runs)
    assert [item['run'] for item in rows] == ['camera-short-s0', 'camera-short-s1',
                                              'camera-long-s0']
    assert rows[0]['title'] == 'camera only'
    assert len({item['entry'] for item in rows}) == 1
    (tmp_path / 'rows' / 'camera-short-s1.json').write_text('{"run": "camera-short-s1"}')
    with pytest.raises(ValueError, match="camera-short-s1.json is not the row of run .*'entry'"):
        read_rows(tmp_path / 'rows')
    with pytest.raises(FileNotFoundError, match='no rows in'):
        read_rows(tmp_path / 'none')


def test_unlike_rows_are_not_averaged(tmp_path):
    """Other steps or options stand alone; another code of the config is only named."""
    def define(number, **values):
        return dict(ROWS[number], definition=dict(dict(config='c', options={}, seed=number),
                                                  **values))

    def lines(*rows):
        for item in rows:
            write_json(tmp_path / 'rows' / f'{item["run"]}.json', item)
        table = comparison_table(read_rows(tmp_path / 'rows'))
        return [line.split(' |')[:4] for line in table.splitlines()[2:]]

    assert lines(define(0), define(1), define(2)) == [['| camera rays', ' 4', ' 3', ' 13.0 ± 3.6']]
    assert lines(dict(define(0), train_steps=2)) == [
        ['| camera rays, steps: 4 -> 2', ' 2', ' 1', ' 10.0'],
        ['| camera rays', ' 4', ' 2', ' 14.5 ± 3.5']]
    assert lines(define(0), define(1, options={'lr': 1}))[1] == [
        '| camera rays, options lr: None -> 1', ' 4', ' 1', ' 12.0']
    assert lines(define(1), define(2, config='d')) == [
        ['| camera rays, 2 versions of the config', ' 4', ' 3', ' 13.0 ± 3.6']]
