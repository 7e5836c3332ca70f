"""What README and the pages that it was divided into name exists."""
import re
import shlex

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from langocc.engine.config_options import merge_options

SOURCES = ('.py', '.sh')
PAGES = ('README.md', 'docs/speed.md', 'docs/real_street.md')


@pytest.mark.parametrize('page', PAGES)
def test_named_files_exist(page, repository):
    text = (repository / page).read_text()
    pattern = r"\b(?:configs|tools|tests|projects|docs|benchmarks)/[\w./-]+\.\w+"
    names = set(re.findall(pattern, text))
    assert len(names) >= 4
    missing = [name for name in names if not (repository / name).exists()]
    assert not missing, missing
    tools = re.findall(r'`([a-z_]+\.(?:py|sh))`', text)
    assert [name for name in tools if not (repository / 'tools' / name).exists()] == []


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page, repository):
    path = repository / page
    for target, anchor in re.findall(r'\]\(([\w./]*)(?:#([\w-]+))?\)', path.read_text()):
        linked = path.parent / target if target else path
        assert linked.is_file(), target
        headings = re.findall(r'^#+ (.*)$', linked.read_text(), re.M) if anchor else ()
        plain = [re.sub(r'[^\w -]', '', heading).lower().replace(' ', '-') for heading in headings]
        assert not anchor or anchor in plain, (target, anchor)


def test_every_tool_is_in_the_table(repository):
    text = (repository / 'README.md').read_text()
    table = re.search(r'## Tools\n(.*?)\n## ', text, re.S)[1]
    named = set(re.findall(r'`(\w+\.(?:py|sh))`', table))
    there = {path.name for path in (repository / 'tools').iterdir() if path.is_file()}
    # What the page has under 'Install', and parts of other tools.
    assert there - named <= {'setup_env.sh', 'run_tests.sh', 'quickstart_report.sh'}


def test_every_variable_of_the_environment_is_in_the_table(repository):
    text = (repository / 'README.md').read_text()
    table = re.search(r'## Environment variables\n(.*?)\n## ', text, re.S)[1]
    named = set(re.findall(r'\b[A-Z][A-Z_]+\b', table))
    code = '\n'.join(path.read_text() for folder in ('projects', 'configs', 'tools')
                     for path in (repository / folder).rglob('*.*') if path.suffix in SOURCES)
    read = set(re.findall(r'\b(?:LANGOCC|QUICKSTART)_[A-Z_]+', code))
    read |= set(re.findall(r"environ\.get\('([A-Z]+_ROOT)'", code))
    assert len(read) >= 12 and read <= named, read - named


def test_options_of_the_table_are_read(repository):
    """Each '--cfg-options' of 'To change one thing', given to the recipe of the quickstart."""
    text = (repository / 'README.md').read_text()
    table = re.search(r'### To change one thing\n(.*?)\n\n[^|]', text, re.S)[1]
    options = dict(re.findall(r'`([\w.]+\.[\w.]+)=([^`]+)`', table))
    assert len(options) >= 7
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(repository / 'configs/langocc-tiny_r18_1xb1_synthetic-camera.py')
    merge_options(cfg, options)
    for name in ('input_size', 'rays_per_sample'):
        with pytest.raises(ValueError, match='only a variable'):
            merge_options(cfg, {name: 1})


def test_commands_take_their_options(repository):
    code = '\n'.join(path.read_text() for folder in ('tools', 'projects')
                     for path in (repository / folder).rglob('*.py'))
    for page in PAGES:
        blocks = re.findall(r'```bash\n(.*?)```', (repository / page).read_text(), re.S)
        lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
        for line in (line for line in lines if line.startswith('python tools/')):
            for word in shlex.split(line, comments=True):
                assert not word.startswith('--') or f"'{word}'" in code, (page, word)


def test_named_options_are_in_the_code(repository):
    """Switches of the parity table: every keyword stands in the package."""
    text = (repository / 'README.md').read_text()
    code = '\n'.join(path.read_text() for path in (repository / 'projects').rglob('*.py'))
    switches = set(re.findall(r'\b(\w+)=(?:True|\')', text))
    assert {'bgr', 'truncate', 'published_invalid', 'key_ego'} <= switches
    assert [name for name in switches if not re.search(rf'\b{name}\b', code)] == []
