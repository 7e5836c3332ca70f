"""Lists of experiments in YAML: configs x budgets x seeds, expanded into runs.

    budgets: {short: 250, long: 800}         # name: training steps
    retrieval: ${ROOT:-data}/benchmark       # POP-3D's layout; of entries that do not say otherwise
    experiments:
      - name: camera                         # [A-Za-z0-9_-]; runs are <name>-<budget>-s<seed>
        title: camera-only rays              # in tables (default: the name)
        config: configs/model.py             # relative to the working directory
        budgets: [short, long]               # none: the config says how long
        seeds: [0, 1, 2]                     # default: [0]
        cfg_options: {optim_wrapper.optimizer.lr: 1.0e-3}
        environment: {NAME: value}
        retrieval: null                      # no retrieval for this one
        cost: true                           # measure parameters, FLOPs, time, memory (model_cost)
      - {name: prior, config: configs/prior.py, train: false}

``seeds``, ``cfg_options``, ``environment``, ``retrieval``, ``cost``, ``data`` (files that say what
the data were made of; their content is part of a definition) and ``save_every`` (steps between
checkpoints) may stand at the top for all entries; mappings are merged, an entry's values win.
``${NAME}`` and ``${NAME:-default}`` are taken from the environment.
"""
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import yaml

_SHARED = ('seeds', 'cfg_options', 'environment', 'retrieval', 'cost', 'data', 'save_every')
_TOP = ('experiments', 'budgets', 'description', *_SHARED)
_ENTRY = ('name', 'title', 'config', 'train', 'budgets', *_SHARED)
_NAME = re.compile(r'[A-Za-z0-9_-]+')
_VARIABLE = re.compile(r'\$\{(\w+)(?::-([^}]*))?\}')


@dataclass(frozen=True)
class Run:
    """One training, or none, and its evaluation.

    Attributes:
        entry: name of the entry in the file.
        title: what tables call it.
        config: config file.
        train: False for what is evaluated as it is.
        budget, steps: name of the budget and its training steps; None where the config decides.
        seed: of training; None without one.
        options: dotted key -> value, given to the tools as --cfg-options.
        environment: variables of the tools, variables in them not yet replaced.
        retrieval: folder of a retrieval benchmark, None for none; likewise.
        cost: measure what a prediction of the trained model costs.
        data: files whose content belongs to the definition; likewise.
        save_every: training steps between checkpoints.
    """
    entry: str
    title: str
    config: str
    train: bool = True
    budget: Optional[str] = None
    steps: Optional[int] = None
    seed: Optional[int] = None
    options: Dict[str, Any] = field(default_factory=dict)
    environment: Dict[str, str] = field(default_factory=dict)
    retrieval: Optional[str] = None
    cost: bool = False
    data: Tuple[str, ...] = ()
    save_every: int = 50

    @property
    def name(self) -> str:
        """``<entry>[-<budget>][-s<seed>]``: unique in a file, the name of folder and row."""
        parts = [self.entry, self.budget, None if self.seed is None else f's{self.seed}']
        return '-'.join(part for part in parts if part is not None)


def read_experiments(path: Union[str, Path]) -> List[Run]:
    """Runs of an experiments file, in its order; of an entry budget by budget, seed by seed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not what the module's docstring describes; names file, entry and key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'experiments file {path} does not exist')
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not valid YAML: {error}') from error
    _check_mapping(content, _TOP, ('experiments', ), str(path))
    budgets = content.get('budgets', {})
    _check(isinstance(budgets, dict) and all(
        _is_name(key) and _is_count(value) for key, value in budgets.items()),
        f"{path}, key 'budgets'", 'a mapping from names to training steps', budgets)
    entries = content['experiments']
    _check(isinstance(entries, list) and entries, f"{path}, key 'experiments'",
           'a list of entries', entries)
    shared = _shared_values(content, str(path))
    runs = [run for number, entry in enumerate(entries, start=1)
            for run in _expand(entry, number, shared, budgets, path)]
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'{path}: {twice} are there more than once')
    return runs


def choose_runs(runs: List[Run], names: Optional[List[str]]) -> List[Run]:
    """Runs whose entry or name fits one of ``names`` (``*`` for anything); all for None.

    Raises:
        ValueError: a name fits no run.
    """
    if names is None:
        return list(runs)

    def fits(run: Run, name: str) -> bool:
        return fnmatch(run.name, name) or fnmatch(run.entry, name)

    unused = [name for name in names if not any(fits(run, name) for run in runs)]
    if unused:
        raise ValueError(f'{unused}: no such entry or run; there are {[run.name for run in runs]}')
    return [run for run in runs if any(fits(run, name) for name in names)]


def expand_variables(text: str, where: str) -> str:
    """``text`` with ``${NAME}`` and ``${NAME:-default}`` replaced from the environment.

    Raises:
        ValueError: a variable is not set and has no default; names ``where``.
    """

    def replace(match: re.Match) -> str:
        value = os.environ.get(match[1]) or match[2]
        if value is None:
            raise ValueError(f'{where}: variable {match[1]} of {text!r} is not set')
        return value

    return _VARIABLE.sub(replace, text)


def _expand(entry: Any, number: int, shared: Dict[str, Any], budgets: Dict[str, int], path: Path
            ) -> List[Run]:
    """The runs of one entry."""
    where = f'{path}, entry {number}'
    if isinstance(entry, dict) and 'name' in entry:
        where += f' ({entry["name"]!r})'
    _check_mapping(entry, _ENTRY, ('name', 'config'), where)
    for key in ('name', 'config', 'title'):
        _check(isinstance(entry.get(key, ''), str), f"{where}, key '{key}'", 'text', entry.get(key))
    _check(_is_name(entry['name']), f"{where}, key 'name'", 'letters, digits, - and _',
           entry['name'])
    train = entry.get('train', True)
    _check(isinstance(train, bool), f"{where}, key 'train'", 'true or false', train)
    values = _shared_values(entry, where)
    merged = {**shared, **values}
    for key in ('cfg_options', 'environment'):
        merged[key] = {**shared.get(key, {}), **values.get(key, {})}
    chosen = entry.get('budgets', [])
    _check(isinstance(chosen, list) and all(name in budgets for name in chosen),
           f"{where}, key 'budgets'", f'names out of {sorted(budgets)}', chosen)
    seeds = merged.get('seeds', [0])
    if not train:
        wrong = [key for key in ('seeds', 'budgets', 'save_every', 'cost') if key in entry]
        _check(not wrong, f"{where}, 'train: false'", 'no seeds, budgets, save_every, cost', wrong)
        chosen, seeds = [], [None]
    common = dict(
        entry=entry['name'], title=entry.get('title', entry['name']), config=entry['config'],
        train=train, options=merged['cfg_options'], environment=merged['environment'],
        retrieval=merged.get('retrieval'), cost=train and merged.get('cost', False),
        data=tuple(merged.get('data', ())),
        save_every=merged.get('save_every', Run.save_every))
    return [Run(budget=budget, steps=budgets.get(budget), seed=seed, **common)
            for budget in chosen or [None] for seed in seeds]


def _shared_values(content: Dict[str, Any], where: str) -> Dict[str, Any]:
    """The keys that file and entry have in common, checked; text of environment values."""
    values = {key: content[key] for key in _SHARED if key in content}
    expected = dict(
        seeds=('a list of different integers >= 0', lambda value: isinstance(value, list)
               and value and all(_is_count(seed, 0) for seed in value)
               and len(set(value)) == len(value)),
        cfg_options=('a mapping from dotted keys to values', _is_text_mapping),
        environment=('a mapping from names to text or numbers', lambda value: _is_text_mapping(
            value) and not any(isinstance(item, (dict, list, bool, type(None)))
                               for item in value.values())),
        retrieval=('a folder or null', lambda value: value is None or isinstance(value, str)),
        cost=('true or false', lambda value: isinstance(value, bool)),
        data=('a list of files', lambda value: isinstance(value, list)
              and all(isinstance(item, str) for item in value)),
        save_every=('a number of steps', _is_count))
    for key, value in values.items():
        _check(expected[key][1](value), f"{where}, key '{key}'", expected[key][0], value)
    if 'environment' in values:
        values['environment'] = {key: str(value) for key, value in values['environment'].items()}
    return values


def _check_mapping(value: Any, known: Tuple[str, ...], needed: Tuple[str, ...], where: str) -> None:
    _check(isinstance(value, dict), where, 'a mapping', value)
    unknown = [key for key in value if key not in known]
    if unknown:
        raise ValueError(f'{where}: unknown keys {unknown}; known: {list(known)}')
    missing = [key for key in needed if key not in value]
    if missing:
        raise ValueError(f'{where}: keys {missing} are missing')


def _check(condition: Any, where: str, expected: str, value: Any) -> None:
    if not condition:
        raise ValueError(f'{where}: expected {expected}, got {value!r}')


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_count(value: Any, lowest: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _is_text_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader; a key that stands twice in one mapping is an error."""

    def construct_mapping(self, node, deep=False):
        """See PyYAML."""
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if isinstance(key, str) and keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f'keys {twice} stand twice in one mapping', node.start_mark)
        return super().construct_mapping(node, deep)
