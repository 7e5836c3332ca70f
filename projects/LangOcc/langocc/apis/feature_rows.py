"""Features of many images, some of each, wherever they are: to fit a basis on.

Legend: P features, E embedding, (h, w) size of a map.
"""
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet3d.registry import DATASETS, TASK_UTILS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from ..feature_store import FeatureStore
from ..feature_store.manifest import MANIFEST_NAME
from ..teachers import DenseTeacher, Teacher
from ..teachers.base import image_of


class FeatureSource(ABC):
    """Images with features."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def rows(self, index: int, count: int, rng: np.random.Generator) -> Tensor:
        """At most ``count`` features (P, E) of an image, drawn at random from its places."""

    @abstractmethod
    def describe(self) -> Dict[str, Any]:
        """What the features are, as JSON values; kept with what is fitted on them."""


class MapFolder(FeatureSource):
    """Maps (E, h, w) in files ``.npy`` or ``.npz`` (of one array), as FeatureMapTeacher reads them.

    Args:
        root: folder.

    Raises:
        FileNotFoundError: no folder, or no map in it.
    """

    def __init__(self, root: Union[str, Path]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f'features: no folder {self.root}')
        self.paths = sorted(path for path in self.root.iterdir()
                            if path.suffix in ('.npy', '.npz'))
        if not self.paths:
            raise FileNotFoundError(f'features: neither {MANIFEST_NAME} of a feature store nor a '
                                    f'.npy or .npz in {self.root}')

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, index: int, count: int, rng: np.random.Generator) -> Tensor:
        """See :class:`FeatureSource`; ValueError where a file is damaged or holds no map."""
        path = self.paths[index]
        try:
            values = self._read(path)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f'cannot read features {path}: {error}') from error
        if values.ndim != 3 or 0 in values.shape or values.dtype.kind != 'f':
            raise ValueError(f'{path}: shape {values.shape} and type {values.dtype}, expected a '
                             'map (E, h, w) of floats')
        return _some_cells(values, count, rng)

    def describe(self) -> Dict[str, Any]:
        """See :class:`FeatureSource`."""
        return dict(source='maps', path=str(self.root), num_images=len(self))

    @staticmethod
    def _read(path: Path) -> np.ndarray:
        if path.suffix == '.npy':
            return np.load(path, mmap_mode='r', allow_pickle=False)
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise ValueError(f'arrays {archive.files}, expected one')
            return archive[archive.files[0]]


class StoredMaps(FeatureSource):
    """Maps of a :class:`FeatureStore`, decoded.

    Args:
        root: folder of the store.
    """

    def __init__(self, root: Union[str, Path]) -> None:
        self.store = FeatureStore(root)
        self.tokens = self.store.tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: int, count: int, rng: np.random.Generator) -> Tensor:
        """See :class:`FeatureSource`."""
        return _some_cells(self.store.map(self.tokens[index]).numpy(), count, rng)

    def describe(self) -> Dict[str, Any]:
        """See :class:`FeatureSource`."""
        return dict(source='store', path=str(self.store.root), digest=self.store.digest(),
                    teacher=self.store.manifest.description, codec=self.store.manifest.codec,
                    num_images=len(self))


class TeacherPixels(FeatureSource):
    """What a teacher says at random pixels of a data set's images.

    Args:
        teacher: any :class:`Teacher`.
        dataset: a NuScenesOccDataset.
        description: added to :meth:`describe`.
    """

    def __init__(self, teacher: Teacher, dataset, description: Dict[str, Any]) -> None:
        self.teacher, self.dataset = teacher, dataset
        self._description = description
        self.images: List[Tuple[int, str]] = [
            (index, camera) for index in range(len(dataset)) for camera in dataset.camera_names]

    @classmethod
    def from_config(cls, config: Union[str, Path, Config]) -> 'TeacherPixels':
        """``teacher`` of a config at the images of its training data; a GPU computes maps.

        Raises:
            ValueError: the config has no ``teacher`` or no training data.
        """
        cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
        init_default_scope(cfg.get('default_scope', 'mmdet3d'))
        if cfg.get('teacher') is None or cfg.get('train_dataloader') is None:
            raise ValueError(f'{cfg.filename}: a basis is fitted on what `teacher` says of '
                             '`train_dataloader`, and one of the two is not there')
        teacher = TASK_UTILS.build(cfg.teacher)
        if isinstance(teacher, DenseTeacher) and torch.cuda.is_available():
            teacher.to('cuda')
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[], ray_frame_ids=()))
        facts = dict(teacher=dict(cfg.teacher), ann_file=str(dataset.ann_file))
        if hasattr(teacher, 'describe'):
            facts['teacher_made_by'] = teacher.describe()
        return cls(teacher, dataset, facts)

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: int, count: int, rng: np.random.Generator) -> Tensor:
        """See :class:`FeatureSource`."""
        frame, camera = self.images[index]
        info = self.dataset.get_data_info(frame)
        image = image_of(info, camera)
        size = image['width'], image['height']
        pixels = rng.uniform([-0.5, -0.5], [size[0] - 0.5, size[1] - 0.5], (count, 2))
        return self.teacher.features(info, camera, torch.from_numpy(pixels))

    def describe(self) -> Dict[str, Any]:
        """See :class:`FeatureSource`."""
        return dict(self._description, source='teacher', num_images=len(self))


def open_features(path: Union[str, Path]) -> FeatureSource:
    """A folder as a source: a feature store where it has a manifest, else maps in files.

    Raises:
        FileNotFoundError: nothing of the kind is there.
    """
    return StoredMaps(path) if (Path(path) / MANIFEST_NAME).is_file() else MapFolder(path)


def split_images(source: FeatureSource, limit: int, rng: np.random.Generator
                 ) -> Tuple[List[int], List[int]]:
    """At most ``limit`` images drawn at random: those to fit on, and every tenth to check with.

    Fewer than ten are all fitted on, and checked with.
    """
    chosen = rng.permutation(len(source))[:limit].tolist()
    if len(chosen) < 10:
        return chosen, chosen
    return [item for place, item in enumerate(chosen) if place % 10], chosen[::10]


def draw_rows(source: FeatureSource, images: Sequence[int], count: int, rng: np.random.Generator):
    """Yield ``count`` features (P, E) of each of ``images``."""
    for index in images:
        yield source.rows(index, count, rng)


def _some_cells(values: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
    """(P, E) cells of a map (E, h, w); all where there are no more than ``count``."""
    cells = values.shape[1] * values.shape[2]
    chosen = np.arange(cells)
    if cells > count:
        chosen = np.sort(rng.choice(cells, count, replace=False))
    y, x = np.divmod(chosen, values.shape[2])
    return torch.from_numpy(np.ascontiguousarray(values[:, y, x].T))
