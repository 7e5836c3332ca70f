"""2D teachers, text, vocabularies and the reducer."""
from .base import Teacher
from .clip_text import ClipTextEncoder, available_text_encoder
from .clip_weights import CLIP_WEIGHTS_VARIABLE, ClipWeights, find_weights
from .dense_teacher import DenseTeacher
from .feature_map_teacher import FeatureMapTeacher
from .free_text import write_text_file
from .label_map_teacher import LabelMapTeacher
from .maskclip import MaskClipTeacher
from .maskclip_blocks import LastBlock
from .network_teacher import NetworkTeacher, SegmenterTeacher
from .offline_text import OfflineTextEncoder
from .online_teacher import OnlineTeacher
from .pca import FeatureMoments, fit_pca, moments_of
from .probability_teacher import CITYSCAPES_CLASSES, CITYSCAPES_DYNAMIC, ProbabilityTeacher
from .reducer import Reducer, fit_reducer, reducer_loss, stable_angle
from .sampling import LRUCache, sample_map, sample_tensor_maps
from .templates import find_templates
from .text import TextEmbeddings, TextEncoder, UnknownWordError, nearest_names
from .text_cache import TEXT_CACHE_VARIABLE, TextCache
from .text_teacher import TextTeacher
from .vocabulary import VOCABULARY_CLASSES, Vocabulary, find_vocabulary, read_vocabulary

__all__ = [
    'CITYSCAPES_CLASSES', 'CITYSCAPES_DYNAMIC', 'CLIP_WEIGHTS_VARIABLE', 'ClipTextEncoder',
    'ClipWeights', 'DenseTeacher', 'FeatureMapTeacher', 'FeatureMoments', 'LRUCache',
    'LabelMapTeacher', 'LastBlock', 'MaskClipTeacher', 'NetworkTeacher', 'OfflineTextEncoder',
    'OnlineTeacher', 'ProbabilityTeacher', 'Reducer', 'SegmenterTeacher', 'TEXT_CACHE_VARIABLE',
    'Teacher', 'TextCache', 'TextEmbeddings', 'TextEncoder', 'TextTeacher', 'UnknownWordError',
    'VOCABULARY_CLASSES', 'Vocabulary', 'available_text_encoder', 'find_templates',
    'find_vocabulary', 'find_weights', 'fit_pca', 'fit_reducer', 'moments_of', 'nearest_names',
    'read_vocabulary', 'reducer_loss', 'sample_map', 'sample_tensor_maps', 'stable_angle',
    'write_text_file'
]
