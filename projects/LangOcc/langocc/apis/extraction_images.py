"""Which images to extract, in which batches, and what makes their maps.

Batches are cut from the whole list before it is shared out: whoever computes a batch, and however
often it was interrupted, the network sees the same images together and gives the same bits.

Legend: B images, E embedding, (H, W) size of an image, (h, w) size of a map.
"""
import hashlib
import os.path as osp
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor, nn

from ..datasets.key_frames import read_infos
from ..teachers import Teacher
from ..teachers.dense_teacher import DenseTeacher, one_size_batches, read_original, size_pair

_IMAGE_KEYS = ('img_path', 'sample_data_token', 'height', 'width')
PathLike = Union[str, Path]


@dataclass(frozen=True)
class ImageItem:
    """One image of the data set.

    Attributes:
        token: its nuScenes sample_data token, the key in a store.
        camera: name of the camera.
        record: its entry in the infos, with ``img_path`` joined with the data root.
    """
    token: str
    camera: str
    record: Dict[str, Any]

    @property
    def path(self) -> str:
        """The image file."""
        return self.record['img_path']

    @property
    def size(self) -> Tuple[int, int]:
        """(H, W)."""
        return self.record['height'], self.record['width']

    @property
    def info(self) -> Dict[str, Any]:
        """What a :class:`Teacher` is asked with."""
        return dict(token=self.token, images={self.camera: self.record})


def read_images(ann_files: Sequence[PathLike], data_root: PathLike,
                cameras: Optional[Sequence[str]] = None) -> List[ImageItem]:
    """The images of infos files, each once, in the order of files, samples and cameras.

    Args:
        ann_files: infos of :class:`~langocc.datasets.NuScenesOccDataset`.
        data_root: folder that their paths are relative to.
        cameras: cameras to take, in this order; None takes those of every sample.

    Raises:
        FileNotFoundError: no such infos.
        ValueError: infos that are not valid JSON or have no image, a sample without a camera or a
            key, a token that stands for two files; the message names file, sample, camera and key.
    """
    found: Dict[str, ImageItem] = {}
    for ann_file in ann_files:
        for info in read_infos(ann_file)['data_list']:
            where = f'{ann_file}: sample {info.get("token", "<no token>")}'
            images = info.get('images') or {}
            for camera in images if cameras is None else cameras:
                if camera not in images:
                    raise ValueError(f'{where} has no camera {camera}; it has {sorted(images)}')
                item = _item(images[camera], camera, data_root, where)
                other = found.setdefault(item.token, item)
                if other.path != item.path:
                    raise ValueError(f'{where}: sample_data_token {item.token} of {camera} stands '
                                     f'for {item.path} and for {other.path}')
    if not found:
        raise ValueError(f'no image in {[str(name) for name in ann_files]}')
    return list(found.values())


def _item(record: Mapping[str, Any], camera: str, data_root: PathLike, where: str) -> ImageItem:
    missing = [key for key in _IMAGE_KEYS if key not in record]
    if missing:
        raise ValueError(f'{where}: {camera} lacks {missing}; it has {sorted(record)}')
    kept = {key: record[key] for key in _IMAGE_KEYS}
    kept['img_path'] = osp.join(data_root, record['img_path'])
    return ImageItem(record['sample_data_token'], camera, kept)


def make_batches(images: Sequence[ImageItem], batch_size: int) -> List[List[ImageItem]]:
    """Images in batches of one size (H, W), in order within a size.

    Raises:
        ValueError: ``batch_size`` below one.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size is {batch_size}, expected at least 1')
    return [[images[index] for index in batch]
            for batch in one_size_batches([item.size for item in images], batch_size)]


class DenseMaps:
    """Maps that a :class:`DenseTeacher` computes from the image files.

    Args:
        teacher: the teacher, on the device that it is to run on.
    """

    def __init__(self, teacher: DenseTeacher) -> None:
        self.teacher = teacher

    @property
    def embed_dims(self) -> int:
        """E."""
        return self.teacher.embed_dims

    @property
    def device(self) -> torch.device:
        """Where maps are computed."""
        return self.teacher.device

    def describe(self) -> Dict[str, Any]:
        """What makes the values, as JSON values.

        A teacher that does not say the hash of its weights itself gets one of its parameters.
        """
        description = self.teacher.describe()
        if 'weights_sha256' not in description:
            description['weights_sha256'] = parameters_sha256(self.teacher.network)
        return description

    def map_size(self, item: ImageItem) -> Tuple[int, int]:
        """(h, w) of an image's map."""
        return self.teacher.map_size(*item.size)

    def read(self, item: ImageItem) -> Tensor:
        """What :meth:`maps` needs of an image: (3, H, W) uint8. Called in several threads.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is broken or not of the size that its info says.
        """
        return read_original(item.record)

    def blank(self, item: ImageItem) -> Tensor:
        """Stands for an image that could not be read, so that its batch keeps its shape."""
        return torch.zeros(3, *item.size, dtype=torch.uint8)

    def maps(self, batch: Sequence[ImageItem], contents: Sequence[Tensor]) -> Tensor:
        """(B, E, h, w) float32 unit maps on :attr:`device`, finished when this returns."""
        maps = self.teacher.maps(torch.stack(list(contents)))
        if maps.device.type == 'cuda':
            torch.cuda.synchronize(maps.device)
        return maps


class SampledMaps:
    """Maps of any teacher that answers at pixels (from files), read at the centres of cells.

    Args:
        teacher: the teacher.
        map_size: (h, w).
        description: what makes the values, as JSON values.
    """
    device = torch.device('cpu')

    def __init__(self, teacher: Teacher, map_size: Sequence[int],
                 description: Mapping[str, Any]) -> None:
        self.teacher = teacher
        self._map_size = size_pair('map_size', map_size)
        self._description = dict(description)

    @property
    def embed_dims(self) -> int:
        """E."""
        return self.teacher.embed_dims

    def describe(self) -> Dict[str, Any]:
        """What makes the values, as JSON values."""
        return dict(self._description, map_size=list(self._map_size))

    def map_size(self, item: ImageItem) -> Tuple[int, int]:
        """(h, w) of an image's map."""
        return self._map_size

    def read(self, item: ImageItem) -> None:
        """Nothing: such a teacher reads its own files."""

    def blank(self, item: ImageItem) -> None:
        """Nothing."""

    def maps(self, batch: Sequence[ImageItem], contents: Sequence[None]) -> Tensor:
        """(B, E, h, w) float32 unit maps."""
        return torch.stack([self._map(item) for item in batch])

    def _map(self, item: ImageItem) -> Tensor:
        pixels = torch.from_numpy(cell_centres(self._map_size, item.size))
        feats = self.teacher.features(item.info, item.camera, pixels)
        return feats.T.reshape(self.embed_dims, *self._map_size)


MapSource = Union[DenseMaps, SampledMaps]


def cell_centres(map_size: Tuple[int, int], image_size: Tuple[int, int]) -> np.ndarray:
    """Pixels (u, v) at the centres of a map's cells, row by row.

    Args:
        map_size: (h, w).
        image_size: (H, W) of the image that the map covers; integer pixels are pixel centres.

    Returns:
        (h * w, 2) float64.
    """
    (rows, columns), (height, width) = map_size, image_size
    v = (np.arange(rows) + 0.5) * (height / rows) - 0.5
    u = (np.arange(columns) + 0.5) * (width / columns) - 0.5
    return np.stack(np.broadcast_arrays(u[None, :], v[:, None]), axis=-1).reshape(-1, 2)


def build_map_source(config: Mapping[str, Any], map_size: Optional[Sequence[int]] = None,
                     device: Union[str, torch.device] = 'cpu') -> MapSource:
    """A teacher's config as a source of maps.

    Args:
        config: config of a teacher, registered in TASK_UTILS.
        map_size: (h, w) for a teacher that is no :class:`DenseTeacher`.
        device: where a :class:`DenseTeacher` runs.

    Raises:
        ValueError: ``map_size`` is missing, or given to a teacher that has its own.
    """
    teacher = TASK_UTILS.build(dict(config))
    if isinstance(teacher, DenseTeacher):
        if map_size is not None:
            raise ValueError(f'map_size {tuple(map_size)}: {type(teacher).__name__} makes maps of '
                             f'its own size; set its input_size instead')
        return DenseMaps(teacher.to(device))
    if map_size is None:
        raise ValueError(f'{type(teacher).__name__} answers at pixels and has no maps: say at how '
                         f'many cells to read it, map_size (h, w), for instance 28 50')
    description = dict(teacher=config['type'], weights_sha256=None, input_size=None,
                       config=_plain(config))
    return SampledMaps(teacher, map_size, description)


def parameters_sha256(network: Any) -> Optional[str]:
    """SHA-256 of the names and values of a module's parameters and buffers; None of no module."""
    if not isinstance(network, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """A config as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
