"""Where the files of a store lie.

- ``{root}/manifest.json``, ``{root}/codec-{hash}.safetensors``;
- ``{root}/parts/rank-{rank}-{number}.safetensors``: finished parts;
- ``{root}/pending/rank-{rank}/{number}.safetensors``: single items that are in no part yet; beside
  them the rank's lock and temporary file. A finished store has no ``pending``.
"""
import re
from pathlib import Path
from typing import List, Tuple

PARTS, PENDING = 'parts', 'pending'
_PART = re.compile(r'rank-(\d{5})-(\d{6})\.safetensors')
_ITEM = re.compile(r'(\d{8})\.safetensors')
_RANK = re.compile(r'rank-(\d{5})')


def part_path(root: Path, rank: int, number: int) -> Path:
    """File of a finished part."""
    return root / PARTS / f'rank-{rank:05d}-{number:06d}.safetensors'


def rank_folder(root: Path, rank: int) -> Path:
    """Folder of what a rank has not finished."""
    return root / PENDING / f'rank-{rank:05d}'


def item_path(root: Path, rank: int, number: int) -> Path:
    """File of a single item."""
    return rank_folder(root, rank) / f'{number:08d}.safetensors'


def finished_parts(root: Path) -> List[Tuple[int, int, Path]]:
    """Rank, number and path of every finished part, in that order."""
    found = ((_PART.fullmatch(path.name), path) for path in _listed(root / PARTS))
    return sorted((int(match[1]), int(match[2]), path) for match, path in found if match)


def pending_ranks(root: Path) -> List[int]:
    """Ranks that have a folder of unfinished items."""
    found = (_RANK.fullmatch(path.name) for path in _listed(root / PENDING))
    return sorted(int(match[1]) for match in found if match)


def pending_items(root: Path, rank: int) -> List[Tuple[int, Path]]:
    """Number and path of every single item of a rank, in order."""
    found = ((_ITEM.fullmatch(path.name), path) for path in _listed(rank_folder(root, rank)))
    return sorted((int(match[1]), path) for match, path in found if match)


def _listed(folder: Path) -> List[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
