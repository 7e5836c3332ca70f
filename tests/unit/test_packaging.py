"""setup.cfg: what pip installs beside the packages is what they import."""
import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions, version

# Comes with one that is named; only where it is wanted.
NOT_NAMED = {'cv2': 'mmcv', 'triton': 'torch on CUDA machines'}


def plain(name):
    return re.split(r'[<>=!;\s]', name.strip())[0].lower().replace('_', '-')


def requirements(repository):
    parser = configparser.ConfigParser()
    parser.read(repository / 'setup.cfg')
    return [line for line in parser['options']['install_requires'].splitlines() if line.strip()]


def test_imports_are_required(repository):
    named = {plain(line) for line in requirements(repository)}
    imported = set()
    for path in (repository / 'projects/LangOcc').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split('.')[0])
    imported -= {*sys.stdlib_module_names, 'langocc', 'voxelrender', *NOT_NAMED}
    owners = packages_distributions()
    missing = [name for name in imported if not {plain(owner) for owner in owners[name]} & named]
    assert len(imported) > 15 and missing == []


def test_requirements_are_those_of_the_project(repository):
    """All are installed, and what the set-up script installs for running is among them."""
    named = {plain(line): version(plain(line)) for line in requirements(repository)}
    runtime = (repository / 'requirements/runtime.txt').read_text().splitlines()
    assert {plain(line) for line in runtime if line and line[0] != '#'} <= set(named)
    assert named['mmdet3d'].startswith('1.4') and 'mmdet3d>=1.4' in requirements(repository)
