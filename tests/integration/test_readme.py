"""What README names exists."""
import re


def test_named_files_exist(repository):
    text = (repository / 'README.md').read_text()
    pattern = r"\b(?:configs|tools|tests|projects|docs|benchmarks)/[\w./-]+\.\w+"
    names = set(re.findall(pattern, text))
    assert len(names) > 5
    missing = [name for name in names if not (repository / name).exists()]
    assert not missing, missing
    tools = re.findall(r'`([a-z_]+\.(?:py|sh))`', text)
    assert [name for name in tools if not (repository / 'tools' / name).exists()] == []


def test_named_options_are_in_the_code(repository):
    """Switches of the parity table: every keyword stands in the package."""
    text = (repository / 'README.md').read_text()
    code = '\n'.join(path.read_text() for path in (repository / 'projects').rglob('*.py'))
    switches = set(re.findall(r'\b(\w+)=(?:True|\')', text))
    assert {'bgr', 'truncate', 'published_invalid', 'key_ego'} <= switches
    assert [name for name in switches if not re.search(rf'\b{name}\b', code)] == []
