"""Feature storage: read cost, sizes, codecs, extraction; see the modules feature_*."""
import dataclasses
import tempfile
from pathlib import Path
from typing import Dict

from .feature_case import FEATURE_SIZES, FeatureCase
from .feature_embedded import benchmark_embedded
from .feature_extraction import benchmark_extraction
from .feature_read import benchmark_read
from .feature_tables import benchmark_codecs, benchmark_size
from .progress import say

PARTS = ('read', 'size', 'codecs', 'extraction')
EMBEDDED = 'embedded'  # of the embedded world; the others are of the real sequence


def benchmark_features(arguments) -> Dict:
    """The parts that are asked for, each a list of rows; files go to a temporary folder."""
    size = FEATURE_SIZES[arguments.preset]
    if arguments.vit_images:
        size = dataclasses.replace(size, vit_images=arguments.vit_images)
    result = {}
    case = FeatureCase(size) if set(arguments.parts) & set(PARTS) else None
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        folder = Path(folder)
        runs = dict(read=lambda: benchmark_read(case, folder / 'read', arguments.repeats),
                    size=lambda: benchmark_size(case, folder / 'size'),
                    embedded=lambda: benchmark_embedded(size, arguments.synthetic),
                    codecs=lambda: benchmark_codecs(case, folder, arguments.device),
                    extraction=lambda: benchmark_extraction(case, folder, arguments.device))
        for part in arguments.parts:
            say(part)
            result[part] = runs[part]()
    return result
