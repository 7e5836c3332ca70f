"""Per-voxel decoders."""
from .class_probabilities import ClassProbabilityDecoder
from .encoded_language import EncodedLanguage
from .voxel_decoder import DensityDecoder, LanguageDecoder, RGBDecoder, SemanticDecoder

__all__ = ['ClassProbabilityDecoder', 'DensityDecoder', 'EncodedLanguage', 'LanguageDecoder',
           'RGBDecoder', 'SemanticDecoder']
