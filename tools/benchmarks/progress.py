"""Progress on stderr, what is measured now and for how long; stdout holds the result alone."""
import sys
import time
from typing import Iterable, Iterator, Tuple

_START = time.perf_counter()
_SHORT = 1.  # seconds; runs under it are not worth a line each


def say(what: str) -> None:
    """A line with the seconds since the start."""
    print(f'{time.perf_counter() - _START:7.1f} s  {what}', file=sys.stderr, flush=True)


def turns(names: Iterable[str], repeats: int) -> Iterator[Tuple[int, str]]:
    """All names once as warm-up (turn 0), then ``repeats`` times, in turns; says which.

    After a turn of under a second no more is said of that name.

    Args:
        names: what is run.
        repeats: runs of each after the first.

    Yields:
        turn and name.
    """
    took = dict.fromkeys(names, float('inf'))
    for turn in range(repeats + 1):
        for name in took:
            if took[name] > _SHORT:
                say(f'{name}: ' + (f'run {turn} of {repeats}' if turn else 'warm-up'))
            start = time.perf_counter()
            yield turn, name
            took[name] = time.perf_counter() - start
