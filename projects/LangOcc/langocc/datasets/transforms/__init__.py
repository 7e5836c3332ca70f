"""Transforms of langocc; importing this registers them."""
from .augmentation import BEVAug, ImageAugmentation, sample_image_augmentation
from .boxes import LoadEgoBoxes
from .formatting import PackOccInputs
from .loading import LoadOccGTFromFile, PointToMultiViewDepth, PrepareImageInputs, read_image
from .queries import LoadRetrievalQueries
from .rays import PrepareRays

__all__ = [
    'BEVAug', 'ImageAugmentation', 'LoadEgoBoxes', 'LoadOccGTFromFile', 'LoadRetrievalQueries',
    'PackOccInputs',
    'PointToMultiViewDepth', 'PrepareImageInputs', 'PrepareRays', 'read_image',
    'sample_image_augmentation'
]
