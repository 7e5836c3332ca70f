"""What is made and what is known about it: settings, scenes, tokens, and the record of a frame.

A frame's record is plain JSON, written when all files of the frame are; the tables of the whole set
are made from records alone, so that a run that was killed goes on where it was.
"""
import hashlib
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from .trajectory import key_frame_time

VERSION = 'v1.0-synthetic'
# Raised whenever the same arguments give other bytes.
GENERATOR_VERSION = 1
SPLITS = ('train', 'val')
# Worlds of the validation scenes, so far away that no number of training scenes reaches them.
_FIRST_WORLD = dict(train=0, val=100_000)
_EPOCH = 1_600_000_000_000_000  # microseconds
_SCENE_SPACING = 60_000_000


@dataclass(frozen=True)
class Settings:
    """The arguments that decide every byte of a set.

    Attributes:
        seed: of the worlds and of all that is drawn.
        scenes_train, scenes_val: numbers of scenes.
        frames: key frames a scene.
        image_size: (W, H) pixels.

    Raises:
        ValueError: a number is too small.
    """
    seed: int = 0
    scenes_train: int = 20
    scenes_val: int = 4
    frames: int = 10
    image_size: Tuple[int, int] = (400, 225)

    def __post_init__(self) -> None:
        for name, least in dict(seed=0, scenes_train=0, scenes_val=0, frames=1).items():
            if getattr(self, name) < least:
                raise ValueError(f'{name} is {getattr(self, name)}, expected at least {least}')
        if self.scenes_train + self.scenes_val == 0:
            raise ValueError('no scene asked for: scenes_train and scenes_val are both 0')

    def as_json(self) -> Dict[str, Any]:
        """What the output folder remembers."""
        return dict(generator_version=GENERATOR_VERSION, **asdict(self),
                    image_size_order='width, height') | dict(image_size=list(self.image_size))

    def scenes(self) -> List['SceneSpec']:
        """All scenes, training first."""
        counts = dict(train=self.scenes_train, val=self.scenes_val)
        return [SceneSpec(f'synthetic-{split}-{i:04d}', split, _FIRST_WORLD[split] + i, self)
                for split in SPLITS for i in range(counts[split])]


@dataclass(frozen=True)
class SceneSpec:
    """One scene.

    Attributes:
        name: e.g. ``synthetic-train-0003``.
        split: ``train`` or ``val``.
        world_index: of :func:`make_world`.
        settings: of the set.
    """
    name: str
    split: str
    world_index: int
    settings: Settings

    def token(self, *names: Any) -> str:
        """32 hexadecimal digits that depend on seed, scene and ``names`` alone."""
        return token_of(self.settings.seed, self.name, *names)

    def rng(self, *names: Any) -> np.random.Generator:
        """Random numbers that depend on seed, scene and ``names`` alone."""
        label = '/'.join(str(name) for name in names)
        return np.random.default_rng(
            [self.settings.seed, self.world_index, zlib.crc32(label.encode('utf-8'))])

    @property
    def number(self) -> int:
        """A number below 2^32 that only this scene of this seed has, but for chance."""
        return zlib.crc32(self.token().encode('utf-8'))

    def timestamp(self, time: float) -> int:
        """Microseconds, as nuScenes counts them, of a time in seconds since the scene's start."""
        return _EPOCH + self.world_index * _SCENE_SPACING + round(time * 1e6)

    def key_times(self) -> List[float]:
        """Seconds of the key frames since the scene's start."""
        return [key_frame_time(frame) for frame in range(self.settings.frames)]


def token_of(*names: Any) -> str:
    """32 hexadecimal digits that depend on the names alone."""
    return hashlib.md5('/'.join(str(name) for name in names).encode('utf-8')).hexdigest()


def pose_record(matrix: np.ndarray) -> Dict[str, List[float]]:
    """``translation`` and ``rotation`` (w, x, y, z; w >= 0) of a (4, 4) rigid transform."""
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat(canonical=True).tolist()
    return dict(translation=[float(value) for value in matrix[:3, 3]], rotation=[w, x, y, z])
