"""LangOcc for MMDetection3D: open-vocabulary 3D occupancy from surround cameras.

Importing this package registers everything a config names
(``custom_imports = dict(imports=['langocc'])``).
"""
from . import datasets, engine, evaluation, feature_store, models, structures, teachers
from .engine import allow_mmengine_checkpoints

__version__ = '0.1.0'
__all__ = ['datasets', 'engine', 'evaluation', 'feature_store', 'models', 'structures', 'teachers']

allow_mmengine_checkpoints()
