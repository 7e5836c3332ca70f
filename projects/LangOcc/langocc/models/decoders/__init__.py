"""Per-voxel decoders."""
from .voxel_decoder import DensityDecoder, LanguageDecoder, RGBDecoder, SemanticDecoder

__all__ = ['DensityDecoder', 'LanguageDecoder', 'RGBDecoder', 'SemanticDecoder']
