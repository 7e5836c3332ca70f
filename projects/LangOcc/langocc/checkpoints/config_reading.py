"""Values of a Python config, read without running it.

A config of mmcv or mmengine is a Python program. What it assigns is found here from its syntax
tree: literals, names, ``dict(...)``, arithmetic, slices, ``dict.update`` and loops over lists. No
import, no attribute and no other call is followed, so a file from anywhere can be read.
"""
import ast
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Union

from ..files import existing_file

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
              ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
              ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
_CALLS = {call.__name__: call for call in (dict, list, tuple, len, range, min, max, int, float,
                                           round, sum, abs)}
_MOST = 10_000  # items of a sequence, rounds of a loop: a config that needs more means harm


class _Unread(Exception):
    """An expression that is not followed; holds its node."""

    def __init__(self, node: ast.AST):
        super().__init__(f'line {node.lineno}')
        self.node = node


@dataclass
class ConfigValues:
    """What a config file assigns.

    Attributes:
        values: name -> value, the files of ``_base_`` merged in.
        unread: name -> what could not be followed in its assignment, with file and line.
        bases: files of ``_base_`` that are not there.
    """
    values: Dict[str, Any] = field(default_factory=dict)
    unread: Dict[str, str] = field(default_factory=dict)
    bases: List[str] = field(default_factory=list)

    def get(self, name: str, default: Any = None) -> Any:
        """Value of a name; ValueError where its assignment could not be followed."""
        if name in self.unread:
            raise ValueError(self.unread[name])
        return self.values.get(name, default)


def read_config_values(path: Union[str, Path]) -> ConfigValues:
    """Reads a config and those of its ``_base_`` that are there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not Python, or is its own base.
    """
    return _read(Path(existing_file(path, 'config')), ())


def _read(path: Path, above: tuple) -> ConfigValues:
    if path.resolve() in above:
        raise ValueError(f'{path} is its own _base_')
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'), filename=str(path))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not Python: {error}') from error
    own = ConfigValues()
    for statement in tree.body:
        _run(statement, own, path)
    merged, bases = ConfigValues(), own.values.pop('_base_', [])
    for base in [bases] if isinstance(bases, str) else bases:
        file = path.parent / base
        if not file.is_file():
            merged.bases.append(str(base))
            continue
        inherited = _read(file, (*above, path.resolve()))
        merged.values.update(inherited.values)
        merged.unread.update(inherited.unread)
        merged.bases += inherited.bases
    for name, value in own.values.items():
        merged.values[name] = merge(merged.values.get(name), value)
        merged.unread.pop(name, None)
    merged.unread.update(own.unread)
    return merged


def merge(base: Any, value: Any) -> Any:
    """mmengine's rule: dicts are merged unless they say ``_delete_=True``, the rest is replaced."""
    if not isinstance(value, dict):
        return value
    value = dict(value)
    if value.pop('_delete_', False) or not isinstance(base, dict):
        return {key: merge(None, item) for key, item in value.items()}
    return {**base, **{key: merge(base.get(key), item) for key, item in value.items()}}


def _run(statement: ast.stmt, found: ConfigValues, path: Path) -> None:
    """Follows one statement; what it would have changed is noted where it cannot be followed."""
    try:
        if isinstance(statement, ast.Assign):
            value = _value(statement.value, found)
            for target in statement.targets:
                _assign(target, value, found)
        elif isinstance(statement, ast.For) and _is_plain(statement):
            for value in _few(_value(statement.iter, found), statement):
                _assign(statement.target, value, found)
                for inner in statement.body:
                    _run(inner, found, path)
        elif isinstance(statement, ast.Expr) and _is_update(statement.value):
            call = statement.value
            owner = _value(call.func.value, found)
            if not isinstance(owner, dict):
                raise _Unread(call)
            owner.update(*(_value(argument, found) for argument in call.args),
                         **{word.arg: _value(word.value, found) for word in call.keywords})
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            raise _Unread(statement)
    except (_Unread, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        node = error.node if isinstance(error, _Unread) else statement
        for name in _touched(statement) - set(found.unread):  # the first reason is the reason
            found.unread[name] = (f"{path}:{node.lineno}: '{name}' depends on "
                                  f"'{_text(node)}', which is not followed")


def _text(node: ast.AST) -> str:
    """The beginning of what the node says."""
    try:
        return ast.unparse(node)[:60]
    except RecursionError:
        return 'an expression that nests too deep'


def _is_plain(loop: ast.For) -> bool:
    """Whether its rounds are all that it costs: no ``else``, no loop within."""
    return not loop.orelse and not any(isinstance(node, ast.For) for node in ast.walk(loop)
                                       if node is not loop)


def _is_update(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) \
        and node.func.attr == 'update'


def _touched(statement: ast.stmt) -> set:
    """Names that a statement may change: those it assigns, and those that it calls methods of."""
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        owner = node.func if isinstance(node, ast.Call) else node
        if isinstance(owner, (ast.Attribute, ast.Subscript)):
            while isinstance(owner, (ast.Attribute, ast.Subscript)):
                owner = owner.value
            changes = not isinstance(node, ast.Subscript) or isinstance(node.ctx, ast.Store)
            if isinstance(owner, ast.Name) and changes:
                names.add(owner.id)
    return names


def _assign(target: ast.expr, value: Any, found: ConfigValues) -> None:
    if isinstance(target, ast.Name):
        found.values[target.id] = value
        found.unread.pop(target.id, None)
    elif isinstance(target, ast.Subscript):
        _value(target.value, found)[_value(target.slice, found)] = value
    else:
        raise _Unread(target)


def _value(node: ast.expr, found: ConfigValues) -> Any:
    """Value of an expression."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in found.values and node.id not in found.unread:
        return found.values[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        items = _items(node.elts, found)
        return tuple(items) if isinstance(node, ast.Tuple) else items
    if isinstance(node, ast.Dict):
        return _pairs(node, found)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand, found))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, found), _value(node.right, found)
        if isinstance(node.op, ast.Mult):
            _check_product(left, right, node)
        result = _OPERATORS[type(node.op)](left, right)
        return _few(result, node) if isinstance(result, Sequence) else result
    if isinstance(node, ast.Subscript):
        return _value(node.value, found)[_value(node.slice, found)]
    if isinstance(node, ast.Slice):
        return slice(*(None if part is None else _value(part, found)
                       for part in (node.lower, node.upper, node.step)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        return _call(node, found)
    raise _Unread(node)


def _call(node: ast.Call, found: ConfigValues) -> Any:
    words = {}
    for word in node.keywords:
        value = _value(word.value, found)
        words.update(value if word.arg is None else {word.arg: value})
    result = _CALLS[node.func.id](*_items(node.args, found), **words)
    return _few(result, node) if isinstance(result, (range, list, tuple)) else result


def _items(nodes: Sequence, found: ConfigValues) -> list:
    items = []
    for node in nodes:
        if isinstance(node, ast.Starred):
            items += _few(_value(node.value, found), node)
        else:
            items.append(_value(node, found))
    return items


def _pairs(node: ast.Dict, found: ConfigValues) -> dict:
    pairs = {}
    for key, value in zip(node.keys, node.values):
        value = _value(value, found)
        pairs.update(value if key is None else {_value(key, found): value})
    return pairs


def _few(values: Any, node: ast.AST) -> Any:
    if not isinstance(values, (Sequence, dict)) or len(values) > _MOST:
        raise _Unread(node)
    return values


def _check_product(left: Any, right: Any, node: ast.AST) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Sequence) and len(one) * max(other, 0) > _MOST:
            raise _Unread(node)
        if isinstance(one, int) and one.bit_length() > 64:
            raise _Unread(node)
