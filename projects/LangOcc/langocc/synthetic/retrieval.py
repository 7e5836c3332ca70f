"""The retrieval benchmark of a synthetic data root: a word for every class, asked at LiDAR points.

In POP-3D's layout (protocols.md), which :func:`langocc.evaluation.retrieval.load_queries` reads: a
table of queries, for each the binary labels of one key frame's LiDAR points and the indices of the
points that a camera sees. Beside the occupancy metrics it says whether words find their places.

Legend: P points, N cameras.
"""
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple

import numpy as np

from ..datasets.geometry import project
from ..datasets.retrieval_benchmark import SPLITS
from ..files import atomic_write
from ..occ3d import FREE_CLASS, OCC3D_CLASSES, OCC3D_RANGE
from .confusions import SYNTHETIC_PROMPTS

BENCHMARK_FOLDER = 'retrieval_benchmark'
# The plain word of every class but 'others', which is no word to look for.
QUERY_WORDS: Dict[int, str] = dict(list(enumerate(SYNTHETIC_PROMPTS[:FREE_CLASS]))[1:])
# A camera sees a point from this z-depth on, in metres; as in evaluation.
_MIN_DEPTH = 1.


class PointCamera(NamedTuple):
    """What it takes to see LiDAR points: lidar2cam (4, 4), cam2img (3, 3), image size (W, H)."""
    lidar2cam: np.ndarray
    cam2img: np.ndarray
    size: Tuple[int, int]


@dataclass(frozen=True)
class LabelledSweep:
    """A key frame's LiDAR points with their true classes.

    Attributes:
        scene: name of the scene.
        token: sample token of the key frame.
        points: (P, 3) metres, LiDAR frame, in the order of the stored file.
        labels: (P,) Occ3D ids, 0 ... 16.
        lidar2ego: (4, 4) calibration.
        cameras: the frame's N cameras, each at its own time.
        split: 'train', 'val' or 'test'.

    Raises:
        ValueError: shapes do not fit, a label is none of Occ3D's, or the split is unknown.
    """
    scene: str
    token: str
    points: np.ndarray
    labels: np.ndarray
    lidar2ego: np.ndarray
    cameras: Sequence[PointCamera]
    split: str = 'val'

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.labels), 3) or self.labels.ndim != 1:
            raise ValueError(f'sweep of sample {self.token}: points {self.points.shape} and labels '
                             f'{self.labels.shape}, expected (P, 3) and (P,)')
        if len(self.labels) and not 0 <= int(self.labels.max()) < FREE_CLASS:
            raise ValueError(f'sweep of sample {self.token}: label {int(self.labels.max())}, '
                             f'expected 0 ... {FREE_CLASS - 1}')
        if self.split not in SPLITS:
            raise ValueError(f'sweep of sample {self.token}: split {self.split!r}, expected one of '
                             f'{SPLITS}')

    def visible(self) -> np.ndarray:
        """(P,) bool: points that project strictly inside an image, at least 1 m in front of it.

        Whether something stands between does not matter, as in POP-3D.
        """
        seen = np.zeros(len(self.points), dtype=bool)
        for camera in self.cameras:
            pixels, depths = project(self.points, camera.lidar2cam, camera.cam2img)
            size = np.array(camera.size) - 1
            seen |= (depths > _MIN_DEPTH) & ((pixels > 0) & (pixels < size)).all(1)
        return seen

    def in_grid(self) -> np.ndarray:
        """(P,) bool: points strictly inside Occ3D's range, in the LiDAR's ego frame."""
        low, high = np.array(OCC3D_RANGE).reshape(2, 3)
        in_ego = self.points @ self.lidar2ego[:3, :3].T + self.lidar2ego[:3, 3]
        return ((in_ego > low) & (in_ego < high)).all(1)


@dataclass(frozen=True)
class _Candidate:
    """What a key frame's files need; ``counts`` (17,) visible points inside the grid by class."""
    scene: str
    token: str
    split: str
    labels: np.ndarray
    visible: np.ndarray
    counts: np.ndarray


def write_benchmark(root,
                    sweeps: Iterable[LabelledSweep],
                    frames_per_query: int = 2,
                    min_points: int = 10) -> Path:
    """Write ``retrieval_benchmark`` of a data root: a query for every class that can be asked for.

    In each split a class is asked for in at most ``frames_per_query`` key frames, of different
    scenes where there are such: where it has enough points, of these in a frame that another class
    is asked in already (few frames then need a prediction), else in the frame with a middling
    number of points. The choice does not depend on the order of the sweeps.

    Args:
        root: Data root.
        sweeps: Labelled sweeps of held-out scenes; read once.
        frames_per_query: Most key frames a word is asked in, per split.
        min_points: Fewest visible points inside the grid that a class needs in a frame.

    Returns:
        The folder. Table rows, by token: ``token;split;annotations/...;matching_points/...;word``.

    Raises:
        ValueError: no sweep has a class with enough points, or two are of one key frame.
    """
    candidates = sorted((_candidate(sweep) for sweep in sweeps), key=lambda c: (c.scene, c.token))
    tokens = Counter(candidate.token for candidate in candidates).most_common(1)
    if tokens and tokens[0][1] > 1:
        raise ValueError(f'sample {tokens[0][0]} has {tokens[0][1]} sweeps, expected one')
    chosen = [query for split in SPLITS for query in _choose(
        [c for c in candidates if c.split == split], frames_per_query, min_points)]
    if not chosen:
        raise ValueError(f'retrieval benchmark of {root}: none of {len(candidates)} sweeps has '
                         f'{min_points} visible points of a class inside the grid')
    folder = Path(root) / BENCHMARK_FOLDER
    chosen.sort(key=lambda query: (query[0].scene, query[0].token, query[1]))
    rows = [(candidate.split, _write_query(folder, candidate, index))
            for candidate, index in chosen]
    for name in (*SPLITS, 'all'):
        with atomic_write(folder / f'retrieval_anns_{name}.csv') as path:
            path.write_text(''.join(f'{row}\n' for split, row in rows if name in ('all', split)),
                            encoding='utf-8')
    return folder


def _candidate(sweep: LabelledSweep) -> _Candidate:
    visible = sweep.visible()
    counts = np.bincount(sweep.labels[visible & sweep.in_grid()], minlength=FREE_CLASS)
    return _Candidate(sweep.scene, sweep.token, sweep.split, sweep.labels.astype(np.uint8),
                      np.flatnonzero(visible).astype(np.uint32), counts)


def _choose(candidates: List[_Candidate], frames_per_query: int, min_points: int
            ) -> List[Tuple[_Candidate, int]]:
    """Key frames and the class asked for in them, rare classes first."""
    able = {index: [c for c in candidates if c.counts[index] >= min_points]
            for index in QUERY_WORDS}
    chosen: List[Tuple[_Candidate, int]] = []
    used = set()  # tokens
    for index in sorted(able, key=lambda i: (len(able[i]), i)):
        left = able[index]
        for _ in range(min(frames_per_query, len(left))):
            scenes = {c.scene for c, other in chosen if other == index}
            fresh = [c for c in left if c.scene not in scenes] or left
            shared = [c for c in fresh if c.token in used] or fresh
            ranked = sorted(shared, key=lambda c: (c.counts[index], c.token))
            picked = ranked[len(ranked) // 2]
            left = [c for c in left if c.token != picked.token]
            chosen.append((picked, index))
            used.add(picked.token)
    return chosen


def _write_query(folder: Path, candidate: _Candidate, index: int) -> str:
    """Write labels and points of a query; its row of the table."""
    labels = f'annotations/{candidate.token}_{OCC3D_CLASSES[index]}__retrieval.npy'
    points = f'matching_points/{candidate.token}__points.npy'
    for name, values in ((labels, (candidate.labels == index).astype(np.uint8)),
                         (points, candidate.visible)):
        with atomic_write(folder / name) as path:
            np.save(path, values)
    return ';'.join([candidate.token, candidate.split, labels, points, QUERY_WORDS[index]])
