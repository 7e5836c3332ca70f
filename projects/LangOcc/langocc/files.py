"""Writing files whole or not at all; saying in one line which file is missing."""
import ast
import json
import math
import os
import sys
import uuid
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Iterator, Type, Union


@contextmanager
def atomic_write(path: Union[str, Path]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    Folders are made. The temporary file keeps the suffix of ``path`` (writers such as PIL and numpy
    choose the format by it) and is removed where the block fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{uuid.uuid4().hex}{path.suffix}')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Union[str, Path], value: Any, **kwargs) -> None:
    """Write ``value`` as JSON with a final newline; ``kwargs`` go to ``json.dumps``.

    NaN and infinities, which JSON has not, become null.
    """
    with atomic_write(path) as temporary:
        text = json.dumps(_finite(value), allow_nan=False, **kwargs)
        temporary.write_text(text + '\n', encoding='utf-8')


def existing_file(path: Union[str, Path], what: str) -> str:
    """``path`` if it is a file.

    Raises:
        FileNotFoundError: it is not; the message says ``what`` was expected there, and which
            files of that kind its folder has.
    """
    path = Path(path)
    if not path.is_file():
        names = sorted(other.name for other in path.parent.glob(f'*{path.suffix}')
                       if other.is_file())
        near = get_close_matches(path.name, names, cutoff=0)
        raise FileNotFoundError(f'{what} {path} does not exist'
                                + (f'; beside it there are {near}' if near else ''))
    return str(path)


@contextmanager
def one_line_errors(tool: str, *kinds: Type[Exception]) -> Iterator[None]:
    """For the entry of a tool: a missing file is one line on stderr and exit status 2.

    An error in a process of a data loader is said as it was raised there. With LANGOCC_TRACEBACK
    set in the environment errors come with their traceback, as any other.

    Args:
        tool: what the line begins with.
        kinds: errors that are the user's files or arguments too, beside FileNotFoundError.
    """
    try:
        yield
    except (FileNotFoundError, *kinds) as error:
        if os.environ.get('LANGOCC_TRACEBACK'):
            raise
        print(f'{tool}: {_message(error)}', file=sys.stderr)
        raise SystemExit(2) from error


def _message(error: Exception) -> str:
    """What the error says, without the traceback that torch writes around a worker's."""
    is_key = isinstance(error, KeyError)  # str() of it is a repr
    text = str(error.args[0] if is_key and error.args else error)
    if not text.startswith('Caught ') or '\nOriginal Traceback' not in text:
        return text
    text = text.rsplit(f'\n{type(error).__name__}: ', maxsplit=1)[-1].strip()
    return str(ast.literal_eval(text)) if is_key and text[:1] in ('"', "'") else text


def _finite(value: Any) -> Any:
    """The value with None for every float that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
