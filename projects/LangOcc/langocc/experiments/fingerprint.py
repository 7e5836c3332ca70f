"""What a run is defined by, and whether its options arrive in its config.

A definition is what may change a result: the code of the config and its bases (not comments and
docstrings), the options, environment, seed and steps of the run, the content of its data files.
Paths of this machine are not in it: variables stay as they are written.
"""
import ast
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

from mmengine.config import Config, DictAction

from ..files import existing_file
from .definition import Run, expand_variables

STEPS_VARIABLE = 'LANGOCC_MAX_ITERS'  # the recipes' schedules read it


def definition_of(run: Run) -> Dict[str, Any]:
    """The definition of ``run``, as it is stored in rows.

    Raises:
        FileNotFoundError: config, base or data file is missing.
        ValueError: a config is not valid Python, or a variable is not set.
    """
    code = '\n'.join(config_code(run.config))
    data = []
    for name in run.data:
        path = expand_variables(name, f"run {run.name}, key 'data'")
        data.append(_digest(Path(existing_file(path, f'data file of run {run.name}')).read_bytes()))
    return dict(config=_digest(code.encode()), options=run.options, environment=run.environment,
                data=data, train=run.train, seed=run.seed, steps=run.steps)


def fingerprint(definition: Dict[str, Any]) -> str:
    """Sixteen hexadecimal digits of a definition."""
    return _digest(json.dumps(definition, sort_keys=True).encode())


def describe_change(old: Dict[str, Any], new: Dict[str, Any]) -> str:
    """In words what differs between two definitions."""
    changes = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key in ('config', 'data'):
            changes.append(f'{key} changed')
        elif isinstance(before, dict) and isinstance(after, dict):
            changes += [f'{key} {name}: {before.get(name)!r} -> {after.get(name)!r}'
                        for name in sorted({*before, *after})
                        if before.get(name) != after.get(name)]
        else:
            changes.append(f'{key}: {before!r} -> {after!r}')
    return ', '.join(changes)


def config_code(path: str) -> List[str]:
    """Code of a config's bases and of the config itself, without comments and docstring.

    A base of another package (``mmdet3d::...``) is there by its name only.

    Raises:
        FileNotFoundError: the config or a base does not exist.
        ValueError: one is not valid Python.
    """
    text = Path(existing_file(path, 'config')).read_text(encoding='utf-8')
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f'config {path} is not valid Python: {error}') from error
    if ast.get_docstring(tree, clean=False) is not None:
        del tree.body[0]
    parts: List[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            bases = ast.literal_eval(node.value)
            for base in [bases] if isinstance(bases, str) else bases:
                parts += [base] if '::' in base else config_code(str(Path(path).parent / base))
    return parts + [ast.unparse(tree)]


def environment_of(run: Run) -> Dict[str, str]:
    """Variables of the tools of ``run`` beside those that are set anyway, ready to use."""
    values = {key: expand_variables(value, f'run {run.name}, environment {key}')
              for key, value in run.environment.items()}
    if run.steps is not None:
        values[STEPS_VARIABLE] = str(run.steps)
    return values


def option_arguments(run: Run) -> List[str]:
    """``KEY=VALUE`` of every option and of the seed, as --cfg-options takes them.

    Raises:
        ValueError: a value that the command line cannot say.
    """
    options = dict(run.options)
    if run.seed is not None:
        options['randomness.seed'] = run.seed
    arguments = []
    for key, value in options.items():
        if isinstance(value, str):
            value = expand_variables(value, f'run {run.name}, option {key}')
        text = _written(value)
        if DictAction._parse_iterable(text) != value:
            raise ValueError(f'run {run.name}, option {key}: {value!r} cannot be given by '
                             '--cfg-options; expected a number, a word, true, false, null or lists '
                             'of them (a mapping: one dotted key for each of its values)')
        arguments.append(f'{key}={text}')
    return arguments


def load_config(run: Run) -> Config:
    """The config as the tools of ``run`` will see it.

    Raises:
        ValueError: an option names a place that the config does not have, or the config does not
            follow the run's number of steps.
    """
    with _environment(environment_of(run)):
        cfg = Config.fromfile(existing_file(run.config, f'config of run {run.name}'))
    parsed = {}
    for argument in option_arguments(run):
        key, text = argument.split('=', maxsplit=1)
        parsed[key] = DictAction._parse_iterable(text)
    for key in parsed:
        _check_place(cfg, key, parsed, run)
    cfg.merge_from_dict(parsed)
    steps = (cfg.get('train_cfg') or {}).get('max_iters')
    if run.steps is not None and steps != run.steps:
        raise ValueError(f'run {run.name}: train_cfg.max_iters of {run.config} is {steps} where '
                         f'{STEPS_VARIABLE} is {run.steps}; expected a config that reads it')
    return cfg


def _check_place(cfg: Config, key: str, options: Dict[str, Any], run: Run) -> None:
    """A dotted key must exist, or name an argument of something that has a type."""
    value, names = cfg._cfg_dict, key.split('.')
    for depth, name in enumerate(names):
        if isinstance(value, (list, tuple)):
            known = name.isdigit() and int(name) < len(value)
            if known:
                value = value[int(name)]
                continue
        elif isinstance(value, dict):
            if name in value:
                value = value[name]
                continue
            if depth == len(names) - 1 and 'type' in value:
                return
        if any('.'.join([*names[:end], 'type']) in options
               for end in range(depth + 1, len(names))):
            return
        place = '.'.join(names[:depth]) or 'its top'
        raise ValueError(f"run {run.name}, option '{key}': {run.config} has no {name!r} at {place}")


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return '[' + ','.join(_written(item) for item in value) + ']'
    return str(value)


@contextmanager
def _environment(values: Dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
