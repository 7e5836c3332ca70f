"""What an extraction will take, and how far it is.

Legend: (h, w) size of a map.
"""
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence, Union

from ..feature_store import Codec, projected_bytes
from .extraction_images import ImageItem, MapSource
from .extraction_pipeline import ComputedBatch

_UNITS = ((1e12, 'TB'), (1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB'))
_DAY = 24 * 3600


@dataclass(frozen=True)
class Projection:
    """Size and time, projected from the first batches.

    Attributes:
        images: of the whole list.
        missing: images that this process has to compute.
        total_bytes: of the store when it is whole.
        row_bytes: bytes a vector.
        map_size: (h, w) of the first map.
        seconds_per_image: measured.
        teacher_share: part of it in the teacher, in [0, 1].
        measured: images that were measured.
    """
    images: int
    missing: int
    total_bytes: int
    row_bytes: int
    map_size: Sequence[int]
    seconds_per_image: float
    teacher_share: float
    measured: int

    @property
    def bytes_per_image(self) -> float:
        """Mean of the whole list."""
        return self.total_bytes / self.images

    @property
    def seconds(self) -> float:
        """That this process will take."""
        return self.missing * self.seconds_per_image

    def check_space(self, root: Union[str, Path], missing: int) -> None:
        """Raise OSError where the disk has less space than what the store lacks.

        Args:
            root: folder of the store, which exists.
            missing: images that the store lacks, of all processes.
        """
        free, need = shutil.disk_usage(root).free, missing * self.bytes_per_image
        if need > free:
            raise OSError(f'{root}: {size_in_words(need)} are still to be written and '
                          f'{size_in_words(free)} are free')

    def __str__(self) -> str:
        height, width = self.map_size
        return (f'projected: {self.images:,} images x {self.bytes_per_image:,.0f} bytes = '
                f'{size_in_words(self.total_bytes)} ({self.row_bytes} bytes a vector, maps of '
                f'{height} x {width}); {self.missing:,} images here at '
                f'{self.seconds_per_image:.3g} s = {duration(self.seconds)} (measured on '
                f'{self.measured}, teacher {self.teacher_share:.0%})')


def project(source: MapSource, first: Sequence[ComputedBatch], codec: Codec,
            images: Sequence[ImageItem], missing: int) -> Projection:
    """A projection.

    Args:
        source: tells the sizes of maps.
        first: batches that were computed, one at least; the first of several is left out of the
            time, for what networks do only once.
        codec: tells the bytes of a vector.
        images: the whole list.
        missing: images that this process has to compute.
    """
    timed = first[1:] or first
    count = sum(len(batch.images) for batch in timed)
    seconds = sum(batch.seconds for batch in timed)
    sizes = {item.size: source.map_size(item) for item in images}
    return Projection(
        len(images), missing,
        sum(projected_bytes(codec, 1, sizes[item.size]) for item in images),
        codec.row_bytes, tuple(first[0].maps.shape[2:]), seconds / count,
        sum(batch.teacher_seconds for batch in timed) / max(seconds, 1e-9), count)


class Progress:
    """Lines of progress, no more often than every ``interval`` seconds.

    Args:
        total: images to come.
        interval: seconds.
        say: takes lines.
        clock: seconds of a steady clock.
    """

    def __init__(self, total: int, interval: float, say: Callable[[str], None],
                 clock: Callable[[], float] = time.perf_counter) -> None:
        self.total, self.done = total, 0
        self.teacher_seconds = 0.
        self._interval, self._say, self._clock = interval, say, clock
        self._seconds = 0.
        self._last = clock()

    def add(self, images: int, batch: ComputedBatch) -> None:
        """Count ``images`` new ones of a batch."""
        self.done += images
        self.teacher_seconds += batch.teacher_seconds
        self._seconds += batch.seconds
        now = self._clock()
        if now - self._last < self._interval and self.done < self.total:
            return
        self._last = now
        rate = self.done / max(self._seconds, 1e-9)
        left = (self.total - self.done) / rate if rate else float('inf')
        self._say(f'{self.done:,} of {self.total:,} images, {rate:.3g} images/s, teacher '
                  f'{self.teacher_seconds / max(self._seconds, 1e-9):.0%} of the time, '
                  f'{duration(left)} to go')


def size_in_words(count: float) -> str:
    """Bytes in words: '19 GB', '92.6 kB' (powers of 1000)."""
    for unit, name in _UNITS:
        if count >= unit:
            return f'{count / unit:.3g} {name}'
    return f'{count:.0f} bytes'


def duration(seconds: float) -> str:
    """Seconds in words: '2 d 3 h', '3 h 07 min', '4 min 05 s', '12 s'."""
    if seconds == float('inf'):
        return 'unknown time'
    seconds = round(seconds)
    if seconds >= _DAY:
        return f'{seconds // _DAY} d {seconds % _DAY // 3600} h'
    minutes = seconds // 60
    if minutes >= 60:
        return f'{minutes // 60} h {minutes % 60:02d} min'
    return f'{minutes} min {seconds % 60:02d} s' if minutes else f'{seconds} s'
