"""From the images of a data set to a feature store, by any number of processes.

Every rank takes every n-th batch and writes what the store lacks of it, so that a run may be killed
at any moment and started again, with as many ranks as there are then.

Legend: B images, P cells, E embedding, (h, w) size of a map.
"""
import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Callable, List, Mapping, Sequence, Tuple, Union

from ..feature_store import DamagedStoreError, FeatureWriter, finish_store
from .extraction_codecs import CodecRequest, fit_codec, prepare_codec, rows_for, stored_codec
from .extraction_images import ImageItem, MapSource, make_batches
from .extraction_pipeline import BackgroundWriter, ComputedBatch, compute_batches
from .extraction_progress import Progress, project

Say = Callable[[str], None]
# Rank and number of ranks, by whoever started the processes; a step's number of tasks counts before
# the allocation's, which may have several steps.
_RANK_VARIABLES = (('RANK', ('WORLD_SIZE', )),
                   ('SLURM_PROCID', ('SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS')))


@dataclass(frozen=True)
class ExtractionOptions:
    """How to extract; none of it but ``batch_size`` touches the values.

    Attributes:
        batch_size: images that the teacher gets at a time. Sums may be rounded otherwise in other
            batches: the same bytes need the same batch size, device and number of threads.
        workers: threads that read images.
        measured_batches: batches after which size and time are projected.
        max_broken: images that cannot be read before a rank gives up; they are named at the end.
        interval: seconds between lines of progress.
    """
    batch_size: int = 8
    workers: int = 4
    measured_batches: int = 3
    max_broken: int = 10
    interval: float = 30.


@dataclass
class ExtractionReport:
    """What one rank did.

    Attributes:
        images: images written.
        present: images of its share that were there.
        total: images of the whole list.
        seconds: from the first batch to the last byte, codec fitting left out.
        teacher_seconds: of these in the teacher.
        projected_bytes: of the whole store; 0 if nothing was to be done.
        broken: a line for each image that could not be read.
    """
    images: int = 0
    present: int = 0
    total: int = 0
    seconds: float = 0.
    teacher_seconds: float = 0.
    projected_bytes: int = 0
    broken: List[str] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """Throughput of this rank."""
        return self.images / self.seconds if self.seconds else 0.

    @property
    def teacher_share(self) -> float:
        """Part of the time that went into the teacher, in [0, 1]."""
        return self.teacher_seconds / self.seconds if self.seconds else 0.


def rank_of(environment: Mapping[str, str] = os.environ) -> Tuple[int, int]:
    """(rank, number of ranks) by torchrun's or slurm's variables; (0, 1) without them.

    Raises:
        ValueError: a rank without a number of ranks, no number, or a rank out of range.
    """
    for name, totals in _RANK_VARIABLES:
        if name not in environment:
            continue
        total_name = next((total for total in totals if total in environment), None)
        if total_name is None:
            raise ValueError(f'{name} is set and none of {list(totals)} is')
        rank, world = environment[name], environment[total_name]
        if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
            raise ValueError(f'{name}={rank} and {total_name}={world}: expected 0 <= rank < number')
        return int(rank), int(world)
    return 0, 1


def extract_features(source: MapSource, images: Sequence[ImageItem], root: Union[str, Path],
                     codec: CodecRequest, rank: int = 0, world: int = 1,
                     options: ExtractionOptions = ExtractionOptions(), dry_run: bool = False,
                     say: Say = lambda line: None) -> ExtractionReport:
    """Write the maps of all images to a store; those that are there stay.

    Args:
        source: what makes the maps.
        images: the whole list, the same in every rank.
        root: folder of the store.
        codec: how to keep features; a store that is there has its own, which must be of the kind.
        rank, world: this process among all.
        options: see the class.
        dry_run: only project size and time; nothing is written.
        say: takes lines for the user.

    Raises:
        OSError: the disk has not the space that is projected.
        ValueError: too many images cannot be read (names them), or the store is of another teacher
            or codec.
    """
    batches = make_batches(images, options.batch_size)[rank::world]
    if dry_run:
        return _dry_run(source, images, batches, root, codec, options, say)
    prepared = prepare_codec(codec, source, images, root, rank, options.batch_size,
                             options.workers, say).to(source.device)
    report = ExtractionReport(total=len(images))
    with FeatureWriter(root, prepared, source.describe(), rank=rank) as writer:
        todo = [batch for batch in batches if any(item.token not in writer for item in batch)]
        share = sum(map(len, batches))
        missing = sum(item.token not in writer for batch in todo for item in batch)
        report.present = share - missing
        say(f'rank {rank} of {world}: {share} of {len(images)} images, {report.present} of them '
            f'are there')
        if todo:
            _extract(source, todo, writer, options, report, images, missing, say)
        complete = all(item.token in writer for item in images)
    if complete:
        _tidy(root)
    return report


def _dry_run(source: MapSource, images: Sequence[ImageItem], batches: Sequence[List[ImageItem]],
             root: Union[str, Path], codec: CodecRequest, options: ExtractionOptions, say: Say
             ) -> ExtractionReport:
    """Measure and project; a codec that no store has yet is fitted on the measured images."""
    with closing(compute_batches(source, batches, options.workers)) as computed:
        first = list(islice(computed, options.measured_batches))
    if not first:
        raise ValueError(f'{len(images)} images are too few: nothing is left for this rank')
    fitted = stored_codec(root) or fit_codec(
        codec.name, rows_for(codec, first), source.embed_dims, codec.reducer)
    projection = project(source, first, fitted, images, sum(map(len, batches)))
    say(str(projection))
    return ExtractionReport(total=len(images), projected_bytes=projection.total_bytes)


def _extract(source: MapSource, todo: Sequence[List[ImageItem]], writer: FeatureWriter,
             options: ExtractionOptions, report: ExtractionReport, images: Sequence[ImageItem],
             missing: int, say: Say) -> None:
    """Compute and write batches, of which ``missing`` images are not in the store."""
    start = time.perf_counter()
    with closing(compute_batches(source, todo, options.workers)) as computed:
        first = list(islice(computed, options.measured_batches))
        projection = project(source, first, writer.codec, images, missing)
        projection.check_space(writer.root, sum(item.token not in writer for item in images))
        say(str(projection))
        report.projected_bytes = projection.total_bytes
        progress = Progress(missing, options.interval, say)
        with BackgroundWriter(_batch_writer(writer)) as background:
            for batch in chain(first, computed):
                new = [item.token not in writer for item in batch.images]
                background.put(batch)
                progress.add(sum(new), batch)
                report.broken += [message for index, message in batch.broken if new[index]]
                if len(report.broken) > options.max_broken:
                    raise ValueError(f'{len(report.broken)} images cannot be read, given up: '
                                     + '; '.join(report.broken))
    report.images = missing - len(report.broken)
    report.seconds = time.perf_counter() - start
    report.teacher_seconds = progress.teacher_seconds


def _batch_writer(writer: FeatureWriter) -> Callable[[ComputedBatch], None]:
    """Writes what a store lacks of a batch."""
    def write(batch: ComputedBatch) -> None:
        broken = {index for index, _ in batch.broken}
        for index, (item, values) in enumerate(zip(batch.images, batch.maps)):
            if index not in broken and item.token not in writer:
                writer.write(item.token, values)
    return write


def _tidy(root: Union[str, Path]) -> None:
    """Make parts of what ranks of earlier runs left as single items, if no rank is at work."""
    try:
        finish_store(root)
    except DamagedStoreError:
        raise
    except ValueError:
        pass  # another rank is at work and will do it
