"""docs/checkpoints.md: its commands are the tools' own, and each line of its table is held."""
import argparse
import re
import shlex
import subprocess
import sys

import pytest
from mmengine.config import Config, DictAction

from langocc.teachers import Reducer

ROW = re.compile(r'^\| (.+?) \| (.+?) \| `([\w/]+\.py):(\w+)` \| `([\w/]+\.py):(\w+)` \|$', re.M)


@pytest.fixture(scope='module')
def text(repository):
    return (repository / 'docs/checkpoints.md').read_text()


def test_every_behaviour_has_code_and_a_test(text, repository):
    rows = ROW.findall(text)
    section = text.split('## Every published behaviour')[1]
    assert len(rows) == len(re.findall(r'^\| ', section, re.M)) - 1 > 30
    for published, here, code, symbol, test, name in rows:
        source = (repository / 'projects/LangOcc' / code).read_text()
        assert re.search(rf'^(def|class) {symbol}\b', source, re.M), published
        assert f'def {name}(' in (repository / 'tests' / test).read_text(), published
        for switch in re.findall(r'`(\w+)=', here):
            assert re.search(rf'\b{switch}\b', source), (published, switch)


def test_every_switch_of_readme_is_in_the_table(text, repository):
    readme = (repository / 'README.md').read_text()
    table = re.search(r'\| published \| ours \| switch \|\n(.*?)\n\n', readme, re.S)[1]
    last = [line.split('|')[-2] for line in table.splitlines()]
    switches = set(re.findall(r"(\w+)=(?:True|')", ''.join(last)))
    assert len(switches) >= 7
    assert switches <= set(re.findall(r'\b(\w+)=', ''.join(row[1] for row in ROW.findall(text))))


def test_commands_are_the_tools_own(text, repository):
    blocks = '\n'.join(re.findall(r'```bash\n(.*?)```', text, re.S)).replace('\\\n', ' ')
    commands = [shlex.split(line) for line in blocks.splitlines() if line.strip()]
    assert len(commands) >= 10
    usage = {}
    for _, tool, *arguments in commands:
        if tool not in usage:
            usage[tool] = subprocess.run(
                [sys.executable, tool, '--help'], cwd=repository, capture_output=True, text=True,
                check=True).stdout
        for argument in arguments:
            if argument.startswith('--'):
                assert re.search(rf'{argument}\b', usage[tool]), (tool, argument)
            if argument.startswith('configs/') and argument != 'configs/mine.py':
                assert (repository / argument).is_file(), argument


def test_the_reduced_model_needs_no_reducer_file(text, repository):
    """The page's option, given to the recipe: a matrix of the published shape, to be loaded."""
    config, option = re.search(r'(configs/published/langocc-reduced\S+).*?--cfg-options '
                               r'(model.occ_head.reducer=\S+)', text, re.S).groups()
    cfg = Config.fromfile(repository / config)
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', option]).cfg_options)
    assert cfg.model.occ_head.decoders.lang.embed_dims == 128
    assert Reducer.from_config(cfg.model.occ_head.reducer).matrix.shape == (512, 128)
