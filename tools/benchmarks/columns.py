"""What the columns of the tables mean, for --help and under the tables."""
from fnmatch import fnmatch
from typing import Dict, Iterable, List

# Pattern of a column -> meaning; the first that fits counts.
_TIMED = {'dense_s': 'seconds, median: the dense published computation',
          'ours_s': 'seconds, median: ours',
          'speedup': 'dense_s / ours_s'}
_MEMORY = {'*_peak_mb': 'MiB at the peak beyond what the inputs hold, in a process of its own',
           'memory_ratio': 'peak of the published computation / ours'}
_ERRORS = {'loss_error': '|our loss - dense loss| / dense loss',
           'grad_error': 'length of (our gradient - dense gradient) / length of the dense one, all '
                         'gradients as one vector',
           'grad_cosine': 'cosine of the two gradients',
           'one_minus_cosine': '1 - grad_cosine, which is too near to 1 to be read'}
_CLEAR = ('voxels of another class though nothing is close: neither the two best prompts to each '
          'other nor the density to the threshold')
_STAGES = {'published_s': 'seconds in the published layout', 'ours_s': 'seconds, ours'}

MEANINGS: Dict[str, Dict[str, str]] = dict(
    step={**_TIMED, **_MEMORY, **_ERRORS},
    prune={'threshold': 'pairs of ray and voxel, and samples, of at most this weight are left out',
           **_TIMED, **_ERRORS},
    head={**_TIMED, **_MEMORY, 'occupied': 'voxels that the dense side calls occupied',
          'voxels': 'all voxels', 'different': 'voxels of another class, ties among them',
          'different_where_clear': _CLEAR},
    query={'median_ms': 'milliseconds from a text\'s embedding to its cosine with every voxel',
           'worst_ms': 'the slowest of the repeats', 'megabytes': 'MiB that are kept of the voxels',
           'error': 'largest error of a cosine against decoding anew'},
    scale={'voxels': 'voxels of the grid', 'rays': 'rays', 'embed_dims': 'width of the features',
           'geometry_s': 'seconds of densities and samples, forward',
           'language_s': 'seconds of pairs of ray and voxel, decoding and their product, forward',
           '*_ratio': "seconds / those of the row 'base'"},
    lift={'forward_s': 'seconds of two frames', 'step_s': 'seconds of one frame forward and '
          'backward', '*_speedup': 'seconds of the reference / of this row',
          'error': 'largest error of the volume, in parts of its largest value'},
    predict={'*speedup': 'published_s / seconds of the side (without a name: ours)',
             'floor_s': 'seconds of the stage\'s main operation alone, at the fastest it was seen',
             '*_s': 'seconds, median; of a stage the fastest run', **_MEMORY,
             '*max_error': 'largest error of a density (1/m) against the published computation in '
             'float64',
             '*agreement': 'share of voxels that either calls occupied in which both say the same',
             '*different_where_clear': _CLEAR},
    profile={'speedup': 'total: published / ours', **_STAGES, **_MEMORY, **_ERRORS},
    features={'rays_per_frame': 'rows of a published file', 'row_bytes': 'bytes a vector',
              'bytes_per_vector': 'bytes a vector', '*_disk_mb': 'MB that a sample reads from disk',
              '*_cold_ms': 'milliseconds a sample, pages dropped before',
              '*_warm_ms': 'milliseconds, read again', '*_ratio': 'published / ours',
              '*_files_mb': 'MB of all files', 'ours_open_ms': 'milliseconds to open the store',
              'mean_cosine': 'to what was stored', 'lowest_cosine': 'the worst row',
              'p1_cosine': '1 % of the rows are worse',
              'class_agreement': 'share of cells whose nearest prompt stays of the same class',
              'teacher_ap': 'mean average precision of the teacher at LiDAR points, x 100',
              'class_accuracy': 'share of labelled LiDAR points that a camera sees whose nearest '
              'prompt is of their class',
              'frames': 'key frames scored', 'points': 'LiDAR points of class_accuracy',
              'fitted_images': 'images that the codec is fitted on', 'judged_images': 'images of '
              'the cosines', 'images': 'images', 'bytes_per_image': 'measured', 'fixed_bytes':
              'manifest and codec', 'nuscenes_gb': 'GB of train and val, 204,894 images',
              'seconds': 'of all images', 'images_per_s': 'images a second',
              'network_s': 'seconds in the network', 'network_share': 'of all seconds',
              'batch_size': 'images at once'})


def pattern_of(command: str, column: str) -> str:
    """The pattern under which MEANINGS has a column.

    Raises:
        KeyError: it has none.
    """
    for pattern in MEANINGS[command]:
        if fnmatch(column, pattern):
            return pattern
    raise KeyError(f'{command}: no meaning of the column {column}')


def legend(command: str, columns: Iterable[str]) -> List[str]:
    """A line for each meaning, the columns that have it before it."""
    groups: Dict[str, List[str]] = {}
    for column in columns:
        groups.setdefault(pattern_of(command, column), []).append(column)
    return _lines({', '.join(names): MEANINGS[command][pattern]
                   for pattern, names in groups.items()})


def help_text(command: str) -> str:
    """The meanings of a command's columns, for --help."""
    return '\n'.join(['columns of the result:', *_lines(MEANINGS[command])])


def _lines(meanings: Dict[str, str]) -> List[str]:
    return [f'  {names}: {text}' for names, text in meanings.items()]
