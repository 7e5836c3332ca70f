"""Per-voxel decoders."""
from .encoded_language import EncodedLanguage
from .voxel_decoder import DensityDecoder, LanguageDecoder, RGBDecoder, SemanticDecoder

__all__ = ['DensityDecoder', 'EncodedLanguage', 'LanguageDecoder', 'RGBDecoder', 'SemanticDecoder']
