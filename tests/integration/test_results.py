"""Committed rows belong to the recipes as they are, the tables of the pages to the rows."""
import re

import pytest

from langocc.experiments import (
    choose_runs, class_table, comparison_table, definition_of, query_table, read_experiments,
    read_rows
)
from langocc.files import write_json

FOLDER = 'benchmarks/synthetic'
FILES = ('synthetic', 'synthetic_baselines', 'synthetic_ablations')


@pytest.fixture
def rows_of(repository, tmp_path, monkeypatch):
    """Name of an experiments file -> its runs, and the rows of those that were run."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv('SYNTHETIC_ROOT', str(tmp_path))
    write_json(tmp_path / 'synthetic.json', {})
    (tmp_path / 'text_embeds').mkdir()
    write_json(tmp_path / 'text_embeds' / 'encoder.json', {})

    def read(name):
        runs = read_experiments(f'configs/experiments/{name}.yaml')
        return runs, read_rows(FOLDER, runs)

    return read


@pytest.mark.parametrize('name', FILES)
def test_rows_are_of_the_recipes_as_they_are(rows_of, name):
    """Who changes a recipe measures it again, or says with compare.py why that cannot matter."""
    runs, rows = rows_of(name)
    runs = {run.name: run for run in runs}
    for row in rows:
        now = definition_of(runs[row['run']])
        changed = [key for key in now if key != 'data' and now[key] != row['definition'][key]]
        assert not changed, f'{FOLDER}/{row["run"]}.json: {changed} changed since'
    assert len({tuple(row['definition']['data']) for row in rows}) == 1  # all on the same streets


@pytest.mark.parametrize('name, tables', [
    ('synthetic', (comparison_table, class_table, query_table)),
    ('synthetic_baselines', (comparison_table, )),
    ('synthetic_ablations', (comparison_table, ))])
def test_tables_are_those_of_the_rows(rows_of, repository, name, tables):
    """As `python tools/report.py --rows benchmarks/synthetic --experiments FILE` prints them."""
    text = (repository / 'docs' / 'results.md').read_text().splitlines()
    _, rows = rows_of(name)
    for table in tables:
        missing = [line for line in table(rows).splitlines() if line not in text]
        assert not missing, f'{table.__name__} of {name}.yaml: docs/results.md lacks {missing[0]}'


def test_readme_has_the_table_that_its_command_prints(rows_of, repository):
    text = (repository / 'README.md').read_text()
    command = re.search(r'report\.py --rows benchmarks/synthetic[^`#]*', text)[0]
    names = re.search(r'--only ([\w\s-]+)', command)[1].split()
    runs, _ = rows_of('synthetic')
    rows = read_rows(repository / FOLDER, choose_runs(runs, names))
    assert comparison_table(rows) in text
