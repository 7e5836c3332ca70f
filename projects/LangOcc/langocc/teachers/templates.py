"""Sentences around a prompt ("templates"), by name, by file or as a list."""
from pathlib import Path
from typing import Dict, Sequence, Tuple, Union

from .text import PathLike

DEFAULT_TEMPLATES: Tuple[str, ...] = ('a photo of a {}.',)
_PACKAGED: Dict[str, str] = {'clip85': 'templates_85.txt'}
_NAMED: Dict[str, Tuple[str, ...]] = {'photo': DEFAULT_TEMPLATES, 'plain': ('{}',)}
TEMPLATE_NAMES: Tuple[str, ...] = (*_NAMED, *_PACKAGED)


def find_templates(templates: Union[PathLike, Sequence[str]]) -> Tuple[str, ...]:
    """The sentences of a setting.

    Args:
        templates: 'clip85', the 85 of the published recipe; 'photo', 'a photo of a {}.' alone;
            'plain', the prompt as it is; a text file with one sentence a line, where '#' starts a
            comment line; or the sentences themselves.

    Returns:
        Sentences, each with '{}' where the prompt goes.

    Raises:
        FileNotFoundError: neither a known name nor a file.
        ValueError: no sentences, one without '{}', or one that is there twice.
    """
    if isinstance(templates, str) and templates in _NAMED:
        return _NAMED[templates]
    if isinstance(templates, (str, Path)):
        source, sentences = _read(templates)
    else:
        source, sentences = 'templates', tuple(templates)
    wrong = [sentence for sentence in sentences if '{}' not in sentence]
    if wrong or not sentences:
        raise ValueError(f"{source}: templates {wrong[:3]}, expected at least one, each with "
                         f"'{{}}' where the prompt goes")
    twice = [sentence for sentence in sentences if sentences.count(sentence) > 1]
    if twice:
        raise ValueError(f'{source}: templates {sorted(set(twice))[:3]} are there more than once')
    return sentences


def _read(name: PathLike) -> Tuple[str, Tuple[str, ...]]:
    """The file's path and its sentences."""
    packaged = _PACKAGED.get(str(name))
    path = Path(__file__).with_name(packaged) if packaged else Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'templates {str(name)!r} are neither a file nor one of '
                                f'{sorted(TEMPLATE_NAMES)}')
    lines = (line.strip() for line in path.read_text(encoding='utf-8').splitlines())
    return str(path), tuple(line for line in lines if line and not line.startswith('#'))
