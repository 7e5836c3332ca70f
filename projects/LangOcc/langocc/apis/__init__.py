"""Python interface: load a model, predict, ask it for words; extract and inspect features."""
from .extraction import ExtractionOptions, extract_features
from .extraction_codecs import CodecRequest
from .extraction_images import build_map_source, read_images
from .inferencer import OccInferencer
from .init_model import build_dataset, init_model
from .inspection import inspect_codecs, inspect_store
from .language_index import LanguageIndex
from .model_cost import cost_table, measure_cost
from .query import QueryResult, save_query
from .retrieval import score_retrieval, score_words
from .visualize import SampleVisualizer

__all__ = ['CodecRequest', 'ExtractionOptions', 'LanguageIndex', 'OccInferencer', 'QueryResult',
           'SampleVisualizer', 'build_dataset', 'build_map_source', 'cost_table',
           'extract_features', 'init_model', 'inspect_codecs', 'inspect_store', 'measure_cost',
           'read_images', 'save_query', 'score_retrieval', 'score_words']
