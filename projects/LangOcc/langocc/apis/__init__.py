"""Python interface: load a model, predict, ask it for words."""
from .inferencer import OccInferencer
from .init_model import build_dataset, init_model
from .language_index import LanguageIndex
from .query import QueryResult, save_query
from .retrieval import score_retrieval
from .visualize import SampleVisualizer

__all__ = ['LanguageIndex', 'OccInferencer', 'QueryResult', 'SampleVisualizer', 'build_dataset',
           'init_model', 'save_query', 'score_retrieval']
