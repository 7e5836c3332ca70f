"""Reading ahead and writing behind, so that the network never waits for a file.

Threads and not processes: decoding images releases Python's lock, nothing is copied between
processes, and a killed run leaves nothing behind.

Legend: B images, E embedding, (h, w) size of a map.
"""
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Deque, Iterable, Iterator, List, Sequence, Tuple

from torch import Tensor

from .extraction_images import ImageItem, MapSource

# What decoders raise about a file; anything else is an error of ours.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError)


@dataclass
class ComputedBatch:
    """Maps of a batch.

    Attributes:
        images: B images; those that could not be read are in ``broken`` too.
        maps: (B, E, h, w) float32.
        broken: index in ``images`` and what is wrong, for every image that could not be read.
        teacher_seconds: seconds in the teacher alone.
        seconds: seconds since the batch before (or since the start), waiting included.
    """
    images: List[ImageItem]
    maps: Tensor
    broken: List[Tuple[int, str]]
    teacher_seconds: float
    seconds: float


def compute_batches(source: MapSource, batches: Sequence[List[ImageItem]], workers: int = 4,
                    ahead: int = 2) -> Iterator[ComputedBatch]:
    """Maps of batches, in order.

    Args:
        source: what reads and computes.
        batches: the batches.
        workers: threads that read files.
        ahead: batches that are read while one is computed.
    """
    last = time.perf_counter()
    for images, contents, broken in read_ahead(source, batches, workers, ahead):
        start = time.perf_counter()
        maps = source.maps(images, contents)
        end = time.perf_counter()
        yield ComputedBatch(images, maps, broken, end - start, end - last)
        last = end


def read_ahead(source: MapSource, batches: Iterable[List[ImageItem]], workers: int, ahead: int
               ) -> Iterator[Tuple[List[ImageItem], List[Any], List[Tuple[int, str]]]]:
    """(images, what ``source`` read of each, those that are broken) of batches, in order."""
    pending: Deque[Tuple[List[ImageItem], List[Future]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix='read') as pool:
        try:
            for images in batches:
                pending.append((images, [pool.submit(source.read, item) for item in images]))
                if len(pending) > ahead:
                    yield _collect(source, *pending.popleft())
            while pending:
                yield _collect(source, *pending.popleft())
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()


def _collect(source: MapSource, images: List[ImageItem], futures: Sequence[Future]
             ) -> Tuple[List[ImageItem], List[Any], List[Tuple[int, str]]]:
    contents, broken = [], []
    for index, (item, future) in enumerate(zip(images, futures)):
        try:
            contents.append(future.result())
        except _BROKEN as error:
            where = '' if item.path in str(error) else f'{item.path}: '
            broken.append((index, f'{item.camera} {item.token}: {where}{error}'))
            contents.append(source.blank(item))
    return images, contents, broken


class BackgroundWriter:
    """Calls a function in a thread of its own, in order.

    As a context it waits for what is left; where the block fails, it stops after the call that is
    under way.

    Args:
        write: called with the arguments of :meth:`put`.
        depth: calls that may wait; :meth:`put` blocks beyond.
    """

    def __init__(self, write: Callable[..., None], depth: int = 2) -> None:
        self._write = write
        self._queue: 'queue.Queue[Any]' = queue.Queue(depth)
        self._error: List[BaseException] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name='write', daemon=True)

    def __enter__(self) -> 'BackgroundWriter':
        self._thread.start()
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            self._stopped.set()
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, *arguments: Any) -> None:
        """Queue a call.

        Raises:
            Exception: what an earlier call raised.
        """
        self._raise()
        self._queue.put(arguments)

    def _run(self) -> None:
        while (arguments := self._queue.get()) is not None:
            if self._error or self._stopped.is_set():
                continue  # keep taking, so that nobody waits for a place in the queue
            try:
                self._write(*arguments)
            except BaseException as error:  # handed over to whoever puts or leaves
                self._error.append(error)

    def _raise(self) -> None:
        if self._error:
            raise self._error[0]
