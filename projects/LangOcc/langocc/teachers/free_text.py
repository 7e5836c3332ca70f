"""Any words beside a file of text embeddings: the CLIP that made the file embeds them.

Rows of two encoders are strangers, and even another set of templates turns them. So before a word
is embedded, CLIP embeds some of the file's own names, and its rows must be the file's.

Rows of the offline words (:mod:`.offline_text`) have no such network: their words are compared as
that encoder compares them, and there are no others.

Files may say what made them: ``<file>.encoder.json`` or ``encoder.json`` beside it
(:meth:`TextEncoder.describe`, as :func:`write_text_file` writes it).

Legend: K words, E embedding.
"""
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from ..files import atomic_write, write_json
from .clip_text import ClipTextEncoder, find_clip
from .clip_weights import CLIP_WEIGHTS_VARIABLE, find_weights, named_weights
from .offline_text import OFFLINE_NAME
from .templates import TEMPLATE_NAMES
from .text import PathLike, TextEncoder

# Rows stored in half precision keep their cosine to 1e-6; the rest is room for other hardware.
_LOWEST_COSINE = 0.999
_PROBES = 4


class NoFreeText(Exception):
    """Why there is no CLIP for other words; its text is the end of a message."""


def write_text_file(path: PathLike, sets: Dict[str, Sequence[str]], encoder: TextEncoder,
                    names: Optional[PathLike] = None, about: Optional[PathLike] = None) -> Path:
    """Embed words and write what :class:`TextEmbeddings` reads.

    Args:
        path: The ``.npz`` file: an array (K, E) float32 of unit rows for each set.
        sets: Words of each set.
        encoder: What embeds them.
        names: JSON file of the names; None is ``<file>.json``.
        about: JSON file that says what made the rows; None is ``<file>.encoder.json``.

    Returns:
        ``path``.
    """
    path = Path(path)
    arrays = {key: encoder.encode(list(words)).cpu().numpy().astype(np.float32)
              for key, words in sets.items()}
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)
    write_json(names or path.with_suffix('.json'), sets, indent=0, ensure_ascii=False)
    write_json(about or path.with_suffix('.encoder.json'),
               dict(encoder.describe(), words=sum(map(len, sets.values()))), indent=2)
    return path


def clip_of_rows(files: Sequence[Path], words: Sequence[str], rows: Tensor,
                 options: Union[bool, Dict[str, Any]] = True) -> ClipTextEncoder:
    """The CLIP on this machine that makes the rows of files.

    Args:
        files: The ``.npz`` files, beside which it may say what made them.
        words: Their K names.
        rows: (K, E) unit rows.
        options: True looks for weights; or options of :class:`ClipTextEncoder`. Without
            ``templates`` those that the files name are taken, or else those of the named sets that
            give the rows.

    Raises:
        NoFreeText: there are no weights, or they made other rows.
        ImportError, FileNotFoundError, ValueError: of :class:`ClipTextEncoder`, if weights are
            named and cannot be used.
    """
    about = about_rows(files)
    options = {'cache': True, **(_clip_options(about) if options is True else options)}
    candidates = [options.pop('templates')] if 'templates' in options else (
        [about['templates']] if about.get('templates') else list(TEMPLATE_NAMES))
    probes = torch.linspace(0, len(words) - 1, min(_PROBES, len(words))).round().long()
    best = -1.0
    for templates in candidates:
        encoder = ClipTextEncoder(templates=templates, **options)
        if encoder.embed_dims != rows.shape[1]:
            raise NoFreeText(f'{encoder.name} from {encoder.weights} embeds in '
                             f'{encoder.embed_dims} dimensions, the rows have {rows.shape[1]}')
        own = encoder.encode([words[index] for index in probes.tolist()])
        lowest = (own * rows[probes]).sum(dim=1).min().item()
        if lowest >= _LOWEST_COSINE:
            print_log(f'words that are not in {[str(file) for file in files]}: {encoder.name} from '
                      f'{encoder.weights}, {len(encoder.templates)} templates', 'current')
            return encoder
        best = max(best, lowest)
    made_by = f' (made by {about["encoder"]})' if 'encoder' in about else ''
    raise NoFreeText(f'{encoder.name} from {encoder.weights} did not make these rows{made_by}: its '
                     f'cosine to them is {best:.3f}, expected {_LOWEST_COSINE} or more; other '
                     f'weights, another model or other templates')


def _clip_options(about: Dict[str, Any]) -> Dict[str, Any]:
    """Options of :class:`ClipTextEncoder` for the CLIP on this machine that may have made rows.

    Raises:
        NoFreeText: there is none.
    """
    if about.get('encoder') == OFFLINE_NAME:
        raise NoFreeText(f'{OFFLINE_NAME!r} made these rows, a fixed list of words and no language '
                         f'model. Free text needs data and models that were made with CLIP '
                         f'({CLIP_WEIGHTS_VARIABLE}, named before they are made)')
    own = {key: about[key] for key in ('model', 'pretrained') if about.get(key)}
    if 'pretrained' in own and not named_weights():
        try:
            find_weights(**own)
            return own
        except FileNotFoundError as error:
            raise NoFreeText(str(error)) from error
    found = find_clip()
    if found is None:
        raise NoFreeText(f'they need the weights of the CLIP that made these rows; name them in '
                         f'{CLIP_WEIGHTS_VARIABLE}')
    own.pop('pretrained', None)
    return {**own, **found}


def about_rows(files: Sequence[Path]) -> Dict[str, Any]:
    """What made the first file, where that is said; else {}."""
    path = Path(files[0])
    found: List[Path] = [place for place in (path.with_suffix('.encoder.json'),
                                             path.with_name('encoder.json')) if place.is_file()]
    if not found:
        return {}
    try:
        return dict(json.loads(found[0].read_text(encoding='utf-8')))
    except ValueError as error:
        raise ValueError(f'{found[0]}: expected a JSON object ({error})') from error
