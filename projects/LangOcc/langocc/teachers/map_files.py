"""Files of two-dimensional maps, one an image: labels of a segmenter, depths of an estimator.

Legend: (h, w) size of a map.
"""
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, Optional, Union

import numpy as np
from PIL import Image

from .base import image_of
from .sampling import LRUCache

SUFFIXES = ('.npy', '.npz', '.png')
LAYOUTS = ('token', 'camera')


class MapFiles:
    """Where the map of an image is, and what is in it.

    A map covers its whole image and may have any size. Layouts:
        token: ``{root}/{sample_data_token}{suffix}``;
        camera: ``{root}/{camera}/{name of the image file}{suffix}``, as tools write that run over
        nuScenes' ``samples`` folder.

    Args:
        root: Folder.
        what: What the maps are, for errors ('depth maps').
        layout: See above.
        key: Name of the array in ``.npz`` files; None takes the only one.
        cache_size: Maps kept in memory; ``.npy`` files are only mapped.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: unknown layout.
    """

    def __init__(self, root: Union[str, Path], what: str, layout: str = 'token',
                 key: Optional[str] = None, cache_size: int = 64) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f'{what}: layout is {layout!r}, expected one of {LAYOUTS}')
        self.root, self.what = Path(root), what
        if not self.root.is_dir():
            raise FileNotFoundError(f'{what}: no folder {self.root}')
        self.layout, self.key = layout, key
        self._cache = LRUCache(cache_size)

    def read(self, info: Dict[str, Any], camera: str) -> np.ndarray:
        """The map of an image, (h, w).

        Raises:
            FileNotFoundError: it has none; names the paths that were looked for.
            ValueError: the file cannot be read, or holds no (h, w).
        """
        path = self.find(info, camera)
        return self._cache.get(path, lambda: self._load(path))

    def find(self, info: Dict[str, Any], camera: str) -> Path:
        """The file of an image; raises as :meth:`read`."""
        image = image_of(info, camera)
        stem = self.root / image['sample_data_token']
        if self.layout == 'camera':
            stem = self.root / camera / Path(image['img_path']).stem
        paths = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise FileNotFoundError(f'{self.what} of frame {info.get("token")}: none of '
                                    f'{[str(path) for path in paths]} exists')
        return path

    def _load(self, path: Path) -> np.ndarray:
        try:
            values = self._open(path)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error,
                SyntaxError) as error:
            raise ValueError(f'{self.what}: cannot read {path}: {error}') from error
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f'{self.what}: {path} has shape {values.shape}, expected (h, w)')
        return values

    def _open(self, path: Path) -> np.ndarray:
        if path.suffix == '.png':
            with Image.open(path) as image:  # a palette's numbers, not its colours
                return np.array(image)
        return read_array(path, self.key)


def read_array(path: Path, key: Optional[str] = None) -> np.ndarray:
    """The array of a ``.npy`` file, memory-mapped, or of a ``.npz`` file.

    Args:
        path: The file.
        key: Name of the array in a ``.npz`` file; None takes the only one.

    Raises:
        ValueError: no such array, or several and no ``key``.
    """
    if path.suffix == '.npy':
        return np.load(path, mmap_mode='r', allow_pickle=False)
    with np.load(path, allow_pickle=False) as archive:
        if key is None and len(archive.files) == 1:
            key = archive.files[0]
        if key not in archive.files:
            raise ValueError(f'no array {key!r} among {archive.files}; set key')
        return archive[key]
