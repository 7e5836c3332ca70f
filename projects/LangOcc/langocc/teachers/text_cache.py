"""Text embeddings on disk, so that a sentence goes through a text network once.

One small file a prompt: ``{root}/{space}/{prompt}.safetensors``, both names hashes. The space is
all that makes a row beside its prompt: model, hash of the weights, templates. Files are written
whole or not at all, so that any number of processes may read and write at once.

Legend: K prompts, E embedding.
"""
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import atomic_write
from .text import PathLike

TEXT_CACHE_VARIABLE = 'LANGOCC_TEXT_CACHE'
# Part of every space: a change of the layout of files or of the computation makes new ones.
_VERSION = 1


def default_cache_root() -> Path:
    """LANGOCC_TEXT_CACHE, or else ``langocc/text`` in XDG_CACHE_HOME (``~/.cache``)."""
    named = os.environ.get(TEXT_CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'langocc' / 'text'


class TextCache:
    """Rows of one text network under one set of templates.

    A file that is damaged, or not of this prompt, is computed again with a warning; a folder that
    cannot be written to is used for reading, with one warning.

    Args:
        root: Folder of the cache; None is :func:`default_cache_root`.
        space: All that makes a row beside its prompt, as JSON values.
        embed_dims: E.
    """

    def __init__(self, root: Optional[PathLike], space: Dict[str, Any], embed_dims: int) -> None:
        text = json.dumps(dict(space, version=_VERSION), sort_keys=True)
        self.space = hashlib.sha256(text.encode()).hexdigest()
        self.folder = (default_cache_root() if root is None else Path(root)) / self.space[:32]
        self.embed_dims = embed_dims
        self._writable = True

    def path(self, prompt: str) -> Path:
        """The file of a prompt."""
        return self.folder / f'{hashlib.sha256(prompt.encode()).hexdigest()[:32]}.safetensors'

    def rows(self, prompts: Sequence[str], encode: Callable[[List[str]], Tensor]) -> Tensor:
        """Rows of prompts: those on disk, and ``encode``'s of the others, which are then kept.

        Args:
            prompts: K prompts.
            encode: Gives (k, E) float32 unit rows of a list of k prompts; called at most once.

        Returns:
            (K, E) float32.
        """
        known = {prompt: self._read(prompt) for prompt in dict.fromkeys(prompts)}
        missing = [prompt for prompt, row in known.items() if row is None]
        if missing:
            for prompt, row in zip(missing, encode(missing)):
                known[prompt] = row
                self._write(prompt, row)
        if not known:
            return torch.zeros(0, self.embed_dims)
        return torch.stack([known[prompt] for prompt in prompts])

    def _read(self, prompt: str) -> Optional[Tensor]:
        path = self.path(prompt)
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), framework='pt') as file:
                facts = file.metadata() or {}
                row = file.get_tensor('row')
            wrong = self._wrong(row, facts, prompt)
        except (SafetensorError, OSError) as error:
            wrong = str(error)
        if wrong:
            print_log(f'text cache: {path} is damaged ({wrong}); computing {prompt!r} again',
                      'current', logging.WARNING)
            return None
        return row

    def _wrong(self, row: Tensor, facts: Dict[str, str], prompt: str) -> str:
        """What is wrong with a file, in words; empty where nothing is."""
        if facts.get('prompt') != prompt or facts.get('space') != self.space:
            return f"it holds {facts.get('prompt')!r} of the space {facts.get('space')!r}"
        if row.shape != (self.embed_dims, ) or row.dtype != torch.float32:
            return f'{tuple(row.shape)} {row.dtype}, expected ({self.embed_dims},) float32'
        return '' if facts.get('sha256') == _digest(row) else 'its checksum differs'

    def _write(self, prompt: str, row: Tensor) -> None:
        if not self._writable:
            return
        row = row.contiguous().clone()
        try:
            with atomic_write(self.path(prompt)) as temporary:
                save_file(dict(row=row), str(temporary), metadata=dict(
                    prompt=prompt, space=self.space, sha256=_digest(row)))
        except (OSError, SafetensorError) as error:
            self._writable = False
            print_log(f'text cache: cannot write to {self.folder} ({error}); embeddings are '
                      f'computed anew each time', 'current', logging.WARNING)


def _digest(row: Tensor) -> str:
    return hashlib.sha256(row.numpy().tobytes()).hexdigest()
