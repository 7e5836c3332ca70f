"""How fast images become a store, and how much of the time is the network itself.

Legend: (H, W) size of an image.
"""
import time
from pathlib import Path
from typing import Dict, List

import torch

from .feature_case import FeatureCase
from .measure import synchronize
from .progress import say

_BATCH = 2


class NetworkClock:
    """Counts the seconds that a dense teacher's network takes, resizing and all else left out."""

    def __init__(self, teacher):
        self.seconds, self._compute, self._device = 0., teacher.compute, teacher.device
        teacher.compute = self

    def __call__(self, images):
        synchronize(self._device)
        start = time.perf_counter()
        values = self._compute(images)
        synchronize(self._device)
        self.seconds += time.perf_counter() - start
        return values


def benchmark_extraction(case: FeatureCase, folder: Path, device: str) -> List[Dict]:
    """The same images one after the other, as a plain loop would, and by extract_features.

    ``network_share``: seconds in the network of all seconds, from the first image read to the last
    byte written; codec fitting left out.
    """
    source, images = case.random_vit(folder / 'vit', device), case.spread_images(
        case.size.vit_images)
    clock = NetworkClock(source.teacher)
    sequential(source, images[:1], folder / 'warm-up')
    rows = []
    for name, run in (('sequential', sequential), ('extract_features', pipelined)):
        say(f'extraction: {len(images)} images, {name}')
        clock.seconds, start = 0., time.perf_counter()
        measured = run(source, images, folder / name)
        seconds = measured or time.perf_counter() - start
        rows.append(dict(name=name, images=len(images), seconds=seconds,
                         images_per_s=len(images) / seconds, network_s=clock.seconds,
                         network_share=clock.seconds / seconds))
    facts = dict(model=case.size.vit, input_size=list(case.size.vit_input), batch_size=_BATCH)
    return [dict(row, **facts) for row in rows]


def sequential(source, images: List, root: Path) -> None:
    """Read, compute, encode and write, one batch after the other."""
    from langocc.feature_store import FeatureWriter
    with FeatureWriter(root, _codec(source), source.describe()) as writer:
        for start in range(0, len(images), _BATCH):
            batch = images[start:start + _BATCH]
            maps = source.maps(batch, [source.read(item) for item in batch])
            for item, values in zip(batch, maps):
                writer.write(item.token, values)


def pipelined(source, images: List, root: Path) -> float:
    """The tool's way; its own seconds."""
    from langocc.apis.extraction import ExtractionOptions, extract_features
    from langocc.apis.extraction_codecs import CodecRequest
    from langocc.feature_store import FeatureWriter
    with FeatureWriter(root, _codec(source), source.describe()):
        pass  # begins the store, so that no codec is fitted
    report = extract_features(source, images, root, CodecRequest(), options=ExtractionOptions(
        batch_size=_BATCH, measured_batches=1))
    return report.seconds


def _codec(source):
    """The recommended codec at its full cost, on a basis of random rows."""
    from langocc.apis.extraction_codecs import RECOMMENDED_CODEC, fit_codec
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1024, source.embed_dims, generator=generator)
    return fit_codec(RECOMMENDED_CODEC, rows, source.embed_dims).to(source.device)
