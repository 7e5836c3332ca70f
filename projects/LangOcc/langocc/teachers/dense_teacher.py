"""Teachers that compute whole maps from images, on any device; pixels are read from the maps.

A map covers exactly the image it was made of, whatever its size (the pixel rule of
:mod:`.sampling`), so what a network sees is always the whole image, resized and never cropped.

Legend: B images, M maps, E embedding, C classes, P pixels, (H, W) size of an image, (h, w) size of
a map.
"""
from abc import abstractmethod
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..files import existing_file
from .base import image_of
from .sampling import LRUCache, sample_map
from .text import TextEncoder
from .text_teacher import TextTeacher

# (mean, std) of the three channels of images in [0, 1].
Normalization = Tuple[Sequence[float], Sequence[float]]
_DTYPES = {name: getattr(torch, name) for name in ('float32', 'bfloat16', 'float16')}


class DenseTeacher(TextTeacher):
    """Base of teachers that compute maps: resizing, chunks, precision and lookup are done here.

    A subclass says how many cells an input has (:meth:`cells`) and computes them
    (:meth:`compute`), and extends :meth:`describe` by whatever else makes the values.

    Args:
        embed_dims: E.
        network: What computes the maps; :meth:`to` moves it. A module is put into evaluation mode
            without gradients. None where there is nothing to move.
        input_size: (H, W) that images are resized to, whatever their aspect; None leaves them.
        dtype: Precision of the network by autocast: 'float32', 'bfloat16' or 'float16'. Maps are
            float32 in any case.
        chunk_size: Images that go through the network at a time.
        cache_size: Maps that :meth:`features` keeps in memory (h x w x E x 4 bytes each).
        parity_half_pixel: See :func:`sample_map`.
        **text: ``text_encoder``, ``class_names``, ``dynamic_classes``, ``sky_classes``,
            ``ground_classes``, ``prompts`` of :class:`TextTeacher`.

    Raises:
        ValueError: a size that is not two positive numbers, an unknown ``dtype``, or a
            ``chunk_size`` below one.
    """

    def __init__(self,
                 embed_dims: int,
                 network: Optional[nn.Module] = None,
                 input_size: Optional[Sequence[int]] = None,
                 dtype: str = 'float32',
                 chunk_size: int = 8,
                 cache_size: int = 8,
                 parity_half_pixel: bool = False,
                 **text: Union[TextEncoder, Sequence[str], dict, None]) -> None:
        super().__init__(embed_dims, **text)
        if dtype not in _DTYPES:
            raise ValueError(f'dtype {dtype!r} is not one of {sorted(_DTYPES)}')
        if chunk_size < 1:
            raise ValueError(f'chunk_size is {chunk_size}, expected at least 1')
        self.input_size = None if input_size is None else size_pair('input_size', input_size)
        self.dtype = _DTYPES[dtype]
        self.chunk_size = chunk_size
        self.parity_half_pixel = parity_half_pixel
        self.device = torch.device('cpu')
        self.network = network
        if isinstance(network, nn.Module):
            network.eval().requires_grad_(False)
        self._cache = LRUCache(cache_size)

    @abstractmethod
    def cells(self, height: int, width: int) -> Tuple[int, int]:
        """(h, w) of the map that :meth:`compute` makes of an input of this size."""

    @abstractmethod
    def compute(self, images: Tensor) -> Tensor:
        """Features of a chunk of images, under autocast and without gradients.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1], already of :meth:`fitted_size`, on
                ``self.device``.

        Returns:
            (B, E, h, w) of any floating type and length.
        """

    def fitted_size(self, height: int, width: int) -> Tuple[int, int]:
        """(H, W) that an image of this size is resized to before :meth:`compute`."""
        return self.input_size or (height, width)

    def map_size(self, height: int, width: int) -> Tuple[int, int]:
        """(h, w) of the map of an image of this size."""
        return self.cells(*self.fitted_size(height, width))

    def to(self, device: Union[str, torch.device]) -> 'DenseTeacher':
        """Move the network; maps are computed and returned there."""
        self.device = torch.device(device)
        if isinstance(self.network, nn.Module):
            self.network.to(self.device)
        return self

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        """Feature maps of whole images.

        Args:
            images: (B, 3, H, W) uint8 RGB of original size, on any device.

        Returns:
            (B, E, h, w) float32, unit length per cell, on ``self.device``.

        Raises:
            ValueError: images of another shape or type, or the network gave maps of another shape
                than :meth:`map_size` or values that are not finite.
        """
        if images.dim() != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f'images have shape {tuple(images.shape)} and type {images.dtype}, '
                             f'expected (B, 3, H, W) uint8')
        size = self.map_size(*images.shape[2:])
        out = torch.empty(len(images), self.embed_dims, *size, device=self.device)
        for start in range(0, len(images), self.chunk_size):
            part = slice(start, start + self.chunk_size)
            out[part] = self._unit_maps(images[part], size)
        return out

    def features(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Tensor:
        """See :meth:`Teacher.features`; the map of an image is computed once and kept."""
        image = image_of(info, camera)
        values = sample_map(self.image_map(info, camera), np.asarray(pixels),
                            (image['width'], image['height']), self.parity_half_pixel)
        return F.normalize(torch.from_numpy(values), dim=1)

    def image_map(self, info: Dict[str, Any], camera: str) -> np.ndarray:
        """The map of one image of a frame, (E, h, w) float32, computed once and kept.

        Raises:
            FileNotFoundError: the image file is not there.
            ValueError: it is damaged, or its size is not that of the info.
        """
        image = image_of(info, camera)
        return self._cache.get(image['sample_data_token'], lambda: self._map_of(image))

    def kept_prompts(self, maps: Tensor) -> Optional[Tensor]:
        """Which of the C classes are candidates in each of (M, E, h, w) maps.

        Returns:
            (M, C) bool; None where all are (the default).
        """
        return None

    def classes(self, info: Dict[str, Any], camera: str, pixels: Tensor) -> Optional[Tensor]:
        """See :meth:`TextTeacher.classes`; among the candidates of the image."""
        if self.text_embeds is None:
            return None
        kept = self.kept_prompts(torch.from_numpy(self.image_map(info, camera))[None])
        return self.nearest_prompt(self.features(info, camera, pixels),
                                   None if kept is None else kept[0])

    def describe(self) -> Dict[str, Any]:
        """What makes the values, as JSON values; kept beside maps that are stored."""
        return dict(teacher=type(self).__name__, embed_dims=self.embed_dims,
                    input_size=None if self.input_size is None else list(self.input_size),
                    dtype=str(self.dtype).removeprefix('torch.'))

    def _unit_maps(self, images: Tensor, size: Tuple[int, int]) -> Tensor:
        fitted = self.fitted_size(*images.shape[2:])
        resized = resize_images(images.to(self.device), fitted)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            values = self.compute(resized).float()
        expected = (len(images), self.embed_dims, *size)
        if values.shape != expected:
            raise ValueError(f'{type(self).__name__} made maps of shape {tuple(values.shape)} of '
                             f'inputs of {fitted}, expected {expected}')
        unit = F.normalize(values, dim=1)
        if not torch.isfinite(unit).all():
            raise ValueError(f'{type(self).__name__} made values that are not finite, in '
                             f'{self.dtype}; expected finite ones (float16 overflows at 65504)')
        return unit

    def _map_of(self, image: Dict[str, Any]) -> np.ndarray:
        return self.maps(read_original(image)[None])[0].cpu().numpy()


def size_pair(name: str, size: Sequence[int]) -> Tuple[int, int]:
    """A setting (H, W) as two positive integers.

    Raises:
        ValueError: anything else.
    """
    try:
        height, width = (int(value) for value in size)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{name} is {size!r}, expected (H, W)') from error
    if height < 1 or width < 1:
        raise ValueError(f'{name} is {size!r}, expected (H, W), both at least 1')
    return height, width


def channel_values(name: str, values: Sequence[float]) -> Tensor:
    """A setting 'mean' or 'std' of three channels, (3, 1, 1) float32.

    Raises:
        ValueError: other than three numbers, or a deviation that is not positive.
    """
    out = torch.tensor([float(value) for value in values]).view(-1, 1, 1)
    if len(out) != 3 or (name == 'std' and (out <= 0).any()):
        raise ValueError(f'{name} of the images is {values}, expected three '
                         f'{"positive " if name == "std" else ""}numbers')
    return out


def read_image(path: Union[str, Path]) -> Tensor:
    """An image file as (3, H, W) uint8 RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no image or is cut short.
    """
    try:
        with Image.open(existing_file(path, 'image')) as image:
            values = np.array(image.convert('RGB'))
    except FileNotFoundError:
        raise
    except OSError as error:  # PIL's UnidentifiedImageError and truncated files
        raise ValueError(f'cannot read image {path}: {error}') from error
    return torch.from_numpy(values).permute(2, 0, 1)


def read_original(image: Dict[str, Any]) -> Tensor:
    """The file of an info's image as (3, H, W) uint8 RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or not of the size that its info says.
    """
    pixels = read_image(image['img_path'])
    if pixels.shape[1:] != (image['height'], image['width']):
        raise ValueError(f'image {image["img_path"]} has {pixels.shape[1]} x {pixels.shape[2]} '
                         f'pixels, expected {image["height"]} x {image["width"]} (height x width): '
                         'so its info says')
    return pixels


def one_size_batches(sizes: Sequence[Tuple[int, ...]], batch_size: int) -> List[List[int]]:
    """Indices of images in batches of one size, in order within a size.

    Args:
        sizes: of every image.
        batch_size: images of a batch at most.
    """
    by_size: Dict[Tuple[int, ...], List[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(tuple(size), []).append(index)
    return [group[start:start + batch_size] for group in by_size.values()
            for start in range(0, len(group), batch_size)]


def resize_images(images: Tensor, size: Tuple[int, int]) -> Tensor:
    """Bicubic, antialiased resizing of (B, 3, H, W) uint8 to float32 in [0, 1].

    The corners of the old and the new image coincide. Images of the right size stay as they are.
    """
    values = images.float() / 255
    if values.shape[2:] == tuple(size):
        return values
    return F.interpolate(values, size, mode='bicubic', antialias=True,
                         align_corners=False).clamp(0, 1)
