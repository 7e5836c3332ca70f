"""Writing files whole or not at all."""
import json
import math
import os
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Union


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


def _finite(value: Any) -> Any:
    """The value with None for every float that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
