"""Checkpoints and configs of BEVDet, LangOcc's and torchvision's checkpoints -> ours, and back."""
from .colors import fold_colors
from .config_reading import ConfigValues, read_config_values
from .config_translation import config_text, difference, translate
from .conversion import Conversion, to_ours
from .families import FAMILIES, Family, detect_family
from .originals import networks_of
from .reading import Checkpoint, read_checkpoint
from .targets import Target, target_of
from .way_back import back_family, check_complete, from_ours
from .writing import SUFFIXES, check_suffix, describe, notes_of, table, write_checkpoint

__all__ = ['Checkpoint', 'ConfigValues', 'Conversion', 'FAMILIES', 'Family', 'SUFFIXES', 'Target',
           'back_family', 'check_complete', 'check_suffix', 'config_text', 'describe',
           'detect_family', 'difference', 'fold_colors', 'from_ours', 'networks_of', 'notes_of',
           'read_checkpoint', 'read_config_values', 'table', 'target_of', 'to_ours', 'translate',
           'write_checkpoint']
