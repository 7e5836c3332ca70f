"""Codecs by short names, fitted on features of the images at hand.

Legend: P cells, E embedding, D kept dimensions, (h, w) size of a map.
"""
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from ..feature_store import Codec, LinearCodec, Manifest, ProductCodec, build_codec
from ..feature_store.store import read_codec
from .extraction_images import ImageItem, MapSource, make_batches
from .extraction_pipeline import ComputedBatch, compute_batches

CODEC_NAMES = ('fp16', 'int8', 'pca64-int8', 'pq', 'reducer')
RECOMMENDED_CODEC = 'pq'
_PCA = re.compile(r'pca([1-9]\d*)-int8')
_PQ = re.compile(r'pq([1-9]\d*)?')
_PQ_BYTES = 64
_WAIT_SECONDS = 7200.  # for rank 0's codec; then rank 0 is taken for dead
_POLL_SECONDS = 0.5
_NAME = 'name'  # of a fitted codec, in what it was fitted on and how


@dataclass(frozen=True)
class CodecRequest:
    """How features are to be kept.

    Attributes:
        name: 'fp16'; 'int8'; 'pca64-int8' or any other number of dimensions; 'pq' (64 bytes a
            vector) or 'pq' and another number of bytes; 'reducer'.
        reducer: file of tools/fit_reducer.py, for 'reducer'.
        num_images: images that a codec is fitted on, drawn at random.
        rows_per_image: cells of each of them, drawn at random.
        seed: of both.

    Raises:
        ValueError: an unknown name, a reducer without 'reducer' or the other way round, or a number
            below one.
    """
    name: str = RECOMMENDED_CODEC
    reducer: Union[str, Path, None] = None
    num_images: int = 64
    rows_per_image: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check_codec_name(self.name)
        if (self.name == 'reducer') != (self.reducer is not None):
            raise ValueError(f"codec {self.name!r} with reducer file {self.reducer}: 'reducer' and "
                             f'a file of tools/fit_reducer.py only go together')
        for key in ('num_images', 'rows_per_image'):
            if getattr(self, key) < 1:
                raise ValueError(f'{key} is {getattr(self, key)}, expected at least 1')

    @property
    def needs_features(self) -> bool:
        """Whether it is fitted on features."""
        return needs_features(self.name)


def check_codec_name(name: str) -> None:
    """ValueError for what is no name of a codec."""
    if name not in CODEC_NAMES and not _PCA.fullmatch(name) and not _PQ.fullmatch(name):
        raise ValueError(f'codec {name!r} is not known; expected one of {list(CODEC_NAMES)}, with '
                         f'any number in place of 64 in pca64-int8, or pq and a number of bytes')


def needs_features(name: str) -> bool:
    """Whether a codec is fitted on features."""
    return bool(_PCA.fullmatch(name) or _PQ.fullmatch(name))


def fit_codec(name: str, rows: Optional[Tensor], embed_dims: int,
              reducer: Union[str, Path, None] = None,
              metadata: Optional[Dict[str, Any]] = None) -> Codec:
    """A codec by its short name.

    Args:
        name: see :class:`CodecRequest`.
        rows: (P, E) features to fit on; None where the codec needs none.
        embed_dims: E.
        reducer: file for 'reducer'.
        metadata: what the rows are; kept with the codec, and its name with it.

    Raises:
        ValueError: an unknown name, or a reducer of another width.
    """
    metadata = dict(metadata or {}, **{_NAME: name})
    check_codec_name(name)
    if name in ('fp16', 'int8'):
        return build_codec(dict(type=f'{name.capitalize()}Codec', embed_dims=embed_dims))
    if name == 'reducer':
        codec = build_codec(dict(type='LinearCodec', reducer=str(reducer)))
        if codec.embed_dims != embed_dims:
            raise ValueError(f'reducer {reducer} takes {codec.embed_dims} values, the features '
                             f'have {embed_dims}')
        return codec
    if pca := _PCA.fullmatch(name):
        return LinearCodec.fit(rows, dims=int(pca[1]), metadata=metadata)
    parts = int(_PQ.fullmatch(name)[1] or _PQ_BYTES)
    return ProductCodec.fit(rows, num_parts=parts, metadata=metadata)


def rows_of_maps(maps: Iterable[Tensor], rows_per_map: int, rng: np.random.Generator) -> Tensor:
    """Features of cells drawn at random.

    Args:
        maps: (E, h, w) each, on any device; taken one after the other.
        rows_per_map: cells of each at most.
        rng: random numbers.

    Returns:
        (P, E) on the CPU, in the order of the maps and of their cells.
    """
    rows: List[Tensor] = []
    for values in maps:
        cells = values.flatten(1).T
        chosen = torch.from_numpy(np.sort(rng.permutation(len(cells))[:rows_per_map]))
        rows.append(cells[chosen.to(cells.device)].cpu())
    return torch.cat(rows) if rows else torch.empty(0, 0)


def rows_for(request: CodecRequest, batches: Iterable[ComputedBatch]) -> Optional[Tensor]:
    """(P, E) features of computed batches to fit a codec on; None where it needs none.

    Images that could not be read are left out.

    Raises:
        ValueError: none of the images could be read; names the first.
    """
    if not request.needs_features:
        return None
    broken: List[str] = []

    def readable() -> Iterator[Tensor]:
        for batch in batches:
            bad = {index for index, _ in batch.broken}
            broken.extend(message for _, message in batch.broken)
            yield from (values for index, values in enumerate(batch.maps) if index not in bad)

    rows = rows_of_maps(readable(), request.rows_per_image, np.random.default_rng(request.seed))
    if not len(rows):
        raise ValueError(f'no image to fit a codec on can be read: {broken[0]}')
    return rows


def sample_rows(source: MapSource, images: Sequence[ImageItem], request: CodecRequest,
                batch_size: int, workers: int) -> Optional[Tensor]:
    """As :func:`rows_for`, of ``request.num_images`` of the images, drawn at random."""
    rng = np.random.default_rng(request.seed)
    chosen = np.sort(rng.permutation(len(images))[:request.num_images])
    batches = make_batches([images[index] for index in chosen], batch_size)
    return rows_for(request, compute_batches(source, batches, workers))


def prepare_codec(request: CodecRequest, source: MapSource, images: Sequence[ImageItem],
                  root: Union[str, Path], rank: int = 0, batch_size: int = 8, workers: int = 4,
                  say: Callable[[str], None] = lambda line: None,
                  wait_seconds: float = _WAIT_SECONDS) -> Codec:
    """The codec of a store that is to be begun or gone on with, the same in all ranks.

    A codec that must be fitted is taken from the store. Where there is none yet, rank 0 fits it
    (and begins the store with it), and the other ranks wait.

    Args:
        request: what is wanted.
        source, images: what it is fitted on.
        root: folder of the store.
        rank: of this process.
        batch_size, workers: see :class:`~langocc.apis.extraction.ExtractionOptions`.
        say: takes lines for the user.
        wait_seconds: that other ranks wait for rank 0.

    Raises:
        TimeoutError: rank 0 began no store in time.
        ValueError: the store has a codec of another name.
    """
    if not request.needs_features:
        return fit_codec(request.name, None, source.embed_dims, request.reducer)
    codec = stored_codec(root)
    if codec is None and rank == 0:
        say(f'fitting codec {request.name} on {min(request.num_images, len(images))} images')
        rows = sample_rows(source, images, request, batch_size, workers)
        facts = dict(num_images=request.num_images, rows_per_image=request.rows_per_image,
                     seed=request.seed)
        return fit_codec(request.name, rows, source.embed_dims, metadata=facts)
    if codec is None:
        say(f'rank {rank} waits for the codec that rank 0 fits')
        codec = _wait_for_codec(root, wait_seconds)
    if codec.fitted.get(_NAME) != request.name:
        raise ValueError(f'feature store {root} keeps features by a {type(codec).__name__} '
                         f'{codec.fitted.get(_NAME, "")}, not by {request.name}; name its codec, '
                         f'or another folder')
    return codec


def stored_codec(root: Union[str, Path]) -> Optional[Codec]:
    """The codec of a store; None where no store is."""
    try:
        manifest = Manifest.load(root)
    except FileNotFoundError:
        return None
    return read_codec(Path(root), manifest)


def _wait_for_codec(root: Union[str, Path], seconds: float) -> Codec:
    end = time.monotonic() + seconds
    while (codec := stored_codec(root)) is None:
        if time.monotonic() > end:
            raise TimeoutError(f'rank 0 began no feature store at {root} within {seconds:.0f} s; '
                               f'does it run, and does it see the same folder?')
        time.sleep(_POLL_SECONDS)
    return codec
