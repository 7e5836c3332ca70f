"""2D teachers, text, vocabularies and the reducer."""
from .base import Teacher
from .clip_text import CLIP_WEIGHTS_VARIABLE, ClipTextEncoder, available_text_encoder
from .feature_map_teacher import FeatureMapTeacher
from .offline_text import OfflineTextEncoder
from .probability_teacher import CITYSCAPES_CLASSES, CITYSCAPES_DYNAMIC, ProbabilityTeacher
from .reducer import Reducer, fit_reducer, reducer_loss, stable_angle
from .sampling import LRUCache, sample_map
from .text import TextEmbeddings, TextEncoder, UnknownWordError, nearest_names
from .vocabulary import VOCABULARY_CLASSES, Vocabulary, find_vocabulary, read_vocabulary

__all__ = [
    'CITYSCAPES_CLASSES', 'CITYSCAPES_DYNAMIC', 'CLIP_WEIGHTS_VARIABLE', 'ClipTextEncoder',
    'FeatureMapTeacher', 'LRUCache', 'OfflineTextEncoder', 'ProbabilityTeacher', 'Reducer',
    'Teacher', 'TextEmbeddings', 'TextEncoder', 'UnknownWordError', 'VOCABULARY_CLASSES',
    'Vocabulary', 'available_text_encoder', 'find_vocabulary', 'fit_reducer', 'nearest_names',
    'read_vocabulary', 'reducer_loss', 'sample_map', 'stable_angle'
]
