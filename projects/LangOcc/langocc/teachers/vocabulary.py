"""Vocabularies: which words stand for which class, in text files that users edit.

Format: one line a class, ``class: prompt, prompt, ...``; ``#`` starts a comment; a class may have
several lines. Classes are Occ3D-nuScenes' (docs/protocols.md). A feature gets the class of the
prompt with the largest cosine over all prompts (as in the paper).

Legend: K prompts, E embedding, V features (voxels).
"""
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from ..occ3d import FREE_CLASS, OCC3D_CLASSES
from .text import PathLike, TextEncoder, nearest_names

# A vocabulary names what is there; 'free' is the density's business.
VOCABULARY_CLASSES: Tuple[str, ...] = OCC3D_CLASSES[:FREE_CLASS]

VOCABULARY_ROOT = Path(__file__).resolve().parent / 'vocabularies'


def find_vocabulary(name: PathLike) -> Path:
    """A vocabulary file by path, or by the bare name of one that comes with the package."""
    path = Path(name)
    if path.is_file():
        return path
    packaged = VOCABULARY_ROOT / f'{path.name.removesuffix(".txt")}.txt'
    if path.parent == Path('.') and packaged.is_file():
        return packaged
    known = sorted(p.stem for p in VOCABULARY_ROOT.glob('*.txt'))
    raise FileNotFoundError(f'no vocabulary file {path}; those of the package: {known}')


def read_vocabulary(path: PathLike,
                    class_names: Sequence[str] = VOCABULARY_CLASSES) -> Dict[str, List[str]]:
    """Read a vocabulary file.

    Args:
        path: Text file.
        class_names: The classes that may occur.

    Returns:
        class -> prompts, in the order of the file.

    Raises:
        ValueError: with file, line and word: no colon, an unknown class, a class without a prompt,
            an empty prompt, or a prompt given twice.
    """
    path = Path(path)
    prompts: Dict[str, List[str]] = {}
    seen: Dict[str, str] = {}
    for number, raw in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        line = raw.split('#', 1)[0].strip()
        if not line:
            continue
        where = f'{path}, line {number}'
        name, colon, rest = (part.strip() for part in line.partition(':'))
        if not colon:
            raise ValueError(f'{where}: expected "class: prompt, prompt, ...", got {line!r}')
        if name not in class_names:
            raise ValueError(f'{where}: unknown class {name!r}; nearest known: '
                             f'{nearest_names(name, class_names)}; known: {list(class_names)}')
        words = [' '.join(word.split()) for word in rest.split(',')]
        if not all(words):
            raise ValueError(f'{where}: class {name!r} has an empty prompt in {line!r}')
        for word in words:
            if word in seen:
                raise ValueError(f'{where}: prompt {word!r} of class {name!r} already stands for '
                                 f'{seen[word]!r}')
            seen[word] = name
        prompts.setdefault(name, []).extend(words)
    if not prompts:
        raise ValueError(f'{path}: no class in this vocabulary')
    return prompts


@TASK_UTILS.register_module()
class Vocabulary:
    """Prompts, their embeddings, and the class of each.

    Args:
        path: Vocabulary file, or the name of one that comes with the package.
        text_encoder: A :class:`TextEncoder` or its config; None leaves ``text_embeds`` unset, for
            uses that need only words and classes.
        class_names: The classes that may occur; indices of ``classify`` count in this list.

    Attributes:
        prompts: K prompts, all classes in file order.
        prompt_to_class: (K,) long.
        text_embeds: (K, E) float32 unit rows, or None.
    """

    def __init__(self,
                 path: PathLike,
                 text_encoder: Union[TextEncoder, dict, None] = None,
                 class_names: Sequence[str] = VOCABULARY_CLASSES) -> None:
        self.path = find_vocabulary(path)
        self.class_names = tuple(class_names)
        per_class = read_vocabulary(self.path, self.class_names)
        pairs = [(word, self.class_names.index(name))
                 for name, words in per_class.items() for word in words]
        self.prompts: Tuple[str, ...] = tuple(word for word, _ in pairs)
        self.prompt_to_class = torch.tensor([index for _, index in pairs])
        if isinstance(text_encoder, dict):
            text_encoder = TASK_UTILS.build(text_encoder)
        self.text_embeds: Optional[Tensor] = None
        if text_encoder is not None:
            try:
                self.text_embeds = text_encoder.encode(self.prompts)
            except KeyError as error:
                raise ValueError(f'vocabulary {self.path}: {error.args[0]}') from error

    def __len__(self) -> int:
        return len(self.prompts)

    def classify(self,
                 feats: Tensor,
                 text_embeds: Optional[Tensor] = None,
                 chunk_size: int = 65536) -> Tensor:
        """Class of each feature: argmax over all prompts, then prompt -> class.

        Args:
            feats: (V, E) features; their length does not matter.
            text_embeds: (K, E) rows to use instead of the vocabulary's own, for instance reduced
                ones for a reduced model.
            chunk_size: Features at a time; bounds memory at chunk_size x K values.

        Returns:
            (V,) uint8 class indices, on the device of ``feats``.

        Raises:
            ValueError: no embeddings, or their width is not that of the features.
        """
        embeds = self.text_embeds if text_embeds is None else text_embeds
        if embeds is None:
            raise ValueError(f'vocabulary {self.path} was built without a text encoder')
        if feats.dim() != 2 or embeds.shape != (len(self), feats.shape[1]):
            raise ValueError(f'features {tuple(feats.shape)} do not fit text embeddings '
                             f'{tuple(embeds.shape)} of the {len(self)} prompts in {self.path}')
        embeds = embeds.to(feats.device, torch.float32)
        classes = self.prompt_to_class.to(feats.device, torch.uint8)
        out = torch.empty(len(feats), dtype=torch.uint8, device=feats.device)
        for start in range(0, len(feats), chunk_size):
            scores = feats[start:start + chunk_size].float() @ embeds.T
            out[start:start + chunk_size] = classes[scores.argmax(dim=1)]
        return out
