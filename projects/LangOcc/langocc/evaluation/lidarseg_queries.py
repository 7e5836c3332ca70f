"""A user's own words as retrieval queries: the right points are those of labelled categories.

Labels are nuScenes-lidarseg's: a file of one byte a LiDAR point, and names of the numbers in the
infos (``metainfo['categories']``).

Legend: P points.
"""
from typing import Dict, List, Mapping, Sequence

import numpy as np

from ..datasets.label_source import read_lidarseg
from ..datasets.ray_sources import read_lidar
from ..datasets.retrieval_benchmark import Query, seen_by
from ..teachers import nearest_names

# Where queries are of no split of a benchmark.
NO_SPLIT = ''


def parse_words(words: Sequence[str], categories: Mapping[int, str]) -> Dict[str, List[int]]:
    """Words and the categories that they should find.

    Args:
        words: ``word=category,category``, a category being a whole name ('vehicle.bus.rigid') or
            some of its parts ('vehicle', 'bus', 'bus.rigid'), which stand for all categories that
            have them. ``word`` alone stands for ``word=word``.
        categories: number -> name.

    Returns:
        Word -> numbers of its categories.

    Raises:
        ValueError: a word or a category is empty, a word occurs twice, or a category is unknown
            (the nearest known are listed).
    """
    if not categories:
        raise ValueError('the infos have no categories of LiDAR labels: prepare them from tables '
                         'with lidarseg')
    parsed: Dict[str, List[int]] = {}
    for item in words:
        word, _, names = (part.strip() for part in item.partition('='))
        wanted = [name.strip() for name in (names or word).split(',')]
        if not word or not all(wanted):
            raise ValueError(f'{item!r} is no word with categories, expected '
                             "'word=category,category'")
        if word in parsed:
            raise ValueError(f'the word {word!r} is given twice')
        parsed[word] = sorted({number for name in wanted
                               for number in _find(name, categories)})
    return parsed


def _find(name: str, categories: Mapping[int, str]) -> List[int]:
    """Numbers of the category of that name, or else of all that have it among their parts."""
    exact = [number for number, known in categories.items() if known == name]
    found = exact or [number for number, known in categories.items()
                      if f'.{name}.' in f'.{known}.']
    if not found:
        known = dict.fromkeys(part for category in categories.values()
                              for part in (category, *category.split('.')))
        raise ValueError(f'no category {name!r} in the LiDAR labels; nearest: '
                         f'{nearest_names(name, list(known)) or list(categories.values())}')
    return found


def lidarseg_queries(info: dict, classes: Mapping[str, Sequence[int]]) -> List[Query]:
    """A query for each word at the LiDAR points of a frame, in the order of ``classes``.

    Args:
        info: the key frame, with ``pts_semantic_mask_path``, ``lidar_points`` and cameras.
        classes: word -> numbers of its categories.

    Raises:
        ValueError: the frame has no LiDAR labels, or their number is not that of the points.
        FileNotFoundError: the file of labels or points is not there.
    """
    points = read_lidar(info)
    labels = read_lidarseg(info, len(points))
    seen = [seen_by(info, camera, points)[0] for camera in info['camera_names']]
    matching = np.unique(np.concatenate(seen)) if seen else np.zeros(0, np.int64)
    return [Query(info['token'], NO_SPLIT, word, np.isin(labels, numbers), matching)
            for word, numbers in classes.items()]
