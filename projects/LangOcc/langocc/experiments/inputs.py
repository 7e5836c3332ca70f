"""Whether what a run reads is there: known before hours of other runs have passed."""
from pathlib import Path
from typing import Any, Iterator, Tuple

from mmengine.config import Config

from ..files import existing_file
from .definition import Run, expand_variables

_SUFFIXES = ('.npz', '.safetensors')


def check_inputs(run: Run, cfg: Config) -> None:
    """Look for the files and folders that a run's config names, and for its retrieval benchmark.

    Files are those of the model and of the data that the run trains or is scored on, by their
    endings .npz and .safetensors (prior, reducer, text embeddings); folders are what is called
    ``root`` there (maps of a teacher, of depths). Images and labels are not looked for.

    Args:
        run: the run.
        cfg: its config (:func:`load_config`).

    Raises:
        FileNotFoundError: one does not exist; names run and path.
        ValueError: a variable is not set.
    """
    loader = cfg.get('train_dataloader' if run.train else 'test_dataloader')
    for key, text in _texts('', [cfg.get('model'), loader]):
        if key == 'root' and not Path(text).is_dir():
            raise FileNotFoundError(f'run {run.name}: folder {text} of {run.config} does not exist')
        if text.endswith(_SUFFIXES):
            existing_file(text, f'run {run.name}: of {run.config} the file')
    if run.retrieval:
        where = f"run {run.name}, key 'retrieval'"
        folder = expand_variables(run.retrieval, where)
        if not Path(folder).is_dir():
            raise FileNotFoundError(f'{where}: folder {folder} does not exist')


def _texts(key: str, value: Any) -> Iterator[Tuple[str, str]]:
    """Every text in a config with the key that it stands at."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(name, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(key, item)
