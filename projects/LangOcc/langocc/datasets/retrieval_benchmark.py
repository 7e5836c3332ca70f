"""Files of the POP-3D retrieval benchmark: words, asked at the LiDAR points of key frames.

``retrieval_anns_all.csv`` has a query a line, ``token;split;annotation file;points file;query``;
the annotation file labels the frame's LiDAR points, the points file lists those that a camera sees.

Legend: P points, M entries of a file of visible points.
"""
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence, Tuple, Union

import numpy as np

from ..teachers.base import image_of
from .geometry import homogeneous, lidar_to_camera, project
from .ray_sources import read_lidar

SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Query:
    """One query of the benchmark.

    Attributes:
        token: key frame.
        split: 'train', 'val' or 'test'.
        words: the query.
        labels: (P,) bool over the frame's LiDAR points.
        matching: (M,) int64, indices of the points that a camera sees, as the file has them.
    """
    token: str
    split: str
    words: str
    labels: np.ndarray
    matching: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """(P,) bool, points seen by a camera."""
        mask = np.zeros(len(self.labels), dtype=bool)
        mask[self.matching] = True
        return mask


@dataclass(frozen=True)
class TableLine:
    """A line of the benchmark's table, files not read; ``where`` names file and line."""
    token: str
    split: str
    labels_path: Path
    matching_path: Path
    words: str
    where: str


def read_table(root: Union[str, Path], splits: Sequence[str] = SPLITS) -> List[TableLine]:
    """Lines of ``retrieval_anns_all.csv`` of the wanted splits, in order.

    Raises:
        FileNotFoundError: no table.
        ValueError: a line or a wanted split is wrong; names file and line.
    """
    root = Path(root)
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise ValueError(f'splits {unknown} are unknown, expected some of {list(SPLITS)}')
    table = root / 'retrieval_anns_all.csv'
    if not table.is_file():
        raise FileNotFoundError(f'no retrieval benchmark: {table} does not exist')
    lines = []
    with open(table, newline='', encoding='utf-8') as file:
        for number, row in enumerate(csv.reader(file, delimiter=';'), start=1):
            if len(row) != 5 or row[1] not in SPLITS:
                raise ValueError(f'{table}, line {number}: expected token;split;annotation file;'
                                 f'points file;query, got {row}')
            if row[1] in splits:
                lines.append(TableLine(row[0], row[1], root / row[2], root / row[3], row[4],
                                       f'{table}, line {number}'))
    return lines


def load_query(line: TableLine) -> Query:
    """A query with its labels and visible points.

    Raises:
        FileNotFoundError: an array is not there.
        ValueError: an array is damaged, of another shape, or has an index beyond the points.
    """
    labels = _load_array(line.labels_path, line)
    matching = _load_array(line.matching_path, line).astype(np.int64)
    if len(matching) and not 0 <= matching.min() <= matching.max() < len(labels):
        bad = matching.max() if matching.min() >= 0 else matching.min()
        raise ValueError(f'{line.matching_path}: point {bad} of {len(labels)}')
    return Query(line.token, line.split, line.words, labels.astype(bool), matching)


def load_queries(root: Union[str, Path], splits: Sequence[str] = SPLITS) -> List[Query]:
    """Queries of a benchmark folder.

    Args:
        root: folder with ``retrieval_anns_all.csv``, ``annotations`` and ``matching_points``.
        splits: those wanted.

    Raises:
        FileNotFoundError: table or arrays are not there.
        ValueError: a line of the table, a split or an array is wrong; names file and line.
    """
    return [load_query(line) for line in read_table(root, splits)]


def _load_array(path: Path, line: TableLine) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f'{line.where}: {path} does not exist')
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{line.where}: cannot read {path}: {error}') from error
    if values.ndim != 1 or values.dtype.kind not in 'biu':
        raise ValueError(f'{line.where}: {path} has shape {values.shape} and type {values.dtype}, '
                         'expected one row of integers')
    return values


def lidar_in_ego(info: dict) -> np.ndarray:
    """LiDAR points of an info in its LiDAR-time ego frame, (P, 3) float64 metres."""
    lidar2ego = homogeneous(info['lidar_points']['lidar2ego'])
    return read_lidar(info) @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]


def seen_by(info: dict, camera: str, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """LiDAR points that a camera's image shows, by its own pose at its own time.

    Args:
        info: the key frame.
        camera: name.
        points: (P, 3) metres, LiDAR frame.

    Returns:
        Indices (S,) of the points strictly inside the image and at least 1 m in front, and their
        pixels (S, 2).
    """
    image = image_of(info, camera)
    pixels, depths = project(points, lidar_to_camera(info, camera), image['cam2img'])
    size = np.array([image['width'] - 1, image['height'] - 1])
    seen = np.flatnonzero((depths > 1) & ((pixels > 0) & (pixels < size)).all(1))
    return seen, pixels[seen]
