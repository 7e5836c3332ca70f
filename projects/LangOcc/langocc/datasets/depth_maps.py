"""Stored metric depth of images, of any estimator, as distances along rays.

A depth says how far a surface is along the optical axis ('z', what nearly all estimators and depth
cameras give) or along the ray from the camera's centre ('ray'). Rays are supervised with distances:
z-depth times the length of the ray per metre of axis, |K^-1 (u, v, 1)|, which is 1 at the principal
point and 1.2 at the edge of nuScenes' front camera. So whoever stores depth must say which it is.

Legend: P pixels, (h, w) size of a map, nan: unknown.
"""
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet3d.registry import TASK_UTILS

from ..feature_store import FeatureStore
from ..teachers.base import image_of
from ..teachers.map_files import MapFiles
from ..teachers.sampling import map_corners, nearest_cells
from ..teachers.text import PathLike
from .geometry import homogeneous

KINDS = ('z', 'ray')
INTERPOLATIONS = ('nearest', 'bilinear')
# Rows (P,) and columns (P,) -> depths (P,) in metres.
Reader = Callable[[np.ndarray, np.ndarray], np.ndarray]


class DepthSource(ABC):
    """Base of what tells distances at pixels.

    Args:
        kind: 'z' or 'ray': what is stored, see the module. No default: maps do not tell.
        depth_range: Metres (as stored); outside, and where a value is not finite, the distance is
            unknown. Estimators give skies their largest value.
        interpolation: 'nearest' takes the cell that the pixel lies in; 'bilinear' blends the four
            around it, unless one of them is unknown or they differ by more than ``edge_ratio``
            (largest to smallest), where the nearest is taken: between the two sides of an edge
            there is nothing.
        edge_ratio: See ``interpolation``.

    Raises:
        ValueError: a setting that is none of those.
    """

    def __init__(self, kind: str, depth_range: Sequence[float] = (0.5, 80.),
                 interpolation: str = 'nearest', edge_ratio: float = 1.1) -> None:
        name = type(self).__name__
        if kind not in KINDS:
            raise ValueError(f"{name}: kind is {kind!r}, expected 'z' (along the optical axis) or "
                             "'ray' (along the ray)")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f'{name}: interpolation is {interpolation!r}, expected one of '
                             f'{INTERPOLATIONS}')
        if len(depth_range) != 2 or not 0 < depth_range[0] < depth_range[1]:
            raise ValueError(f'{name}: depth_range is {depth_range}, expected 0 < low < high')
        if edge_ratio < 1:
            raise ValueError(f'{name}: edge_ratio is {edge_ratio}, expected at least 1')
        self.kind, self.interpolation = kind, interpolation
        self.depth_range, self.edge_ratio = tuple(depth_range), edge_ratio

    def distances(self, info: Dict[str, Any], camera: str, pixels: np.ndarray) -> np.ndarray:
        """Distances along the rays of pixels.

        Args:
            info: Of the frame.
            camera: Name.
            pixels: (P, 2) (u, v) in the original image; integer = pixel centre.

        Returns:
            (P,) float64 metres from the camera's centre; nan unknown.

        Raises:
            FileNotFoundError, KeyError: the image has no depth.
            ValueError: what is stored is no depth map, or a pixel lies outside the image.
        """
        image = image_of(info, camera)
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        size, read = self._open(info, camera)
        depths = self._sample(pixels, size, (image['width'], image['height']), read)
        return depths * ray_lengths(pixels, image['cam2img']) if self.kind == 'z' else depths

    @abstractmethod
    def _open(self, info: Dict[str, Any], camera: str) -> Tuple[Tuple[int, int], Reader]:
        """(h, w) of the image's map, and what reads its cells."""

    def _sample(self, pixels: np.ndarray, size: Tuple[int, int], image_size: Tuple[int, int],
                read: Reader) -> np.ndarray:
        nearest = self._known(read(*nearest_cells(pixels, size, image_size)))
        if self.interpolation == 'nearest':
            return nearest
        (x0, x1, fx), (y0, y1, fy) = map_corners(pixels, size, image_size)
        corners = np.stack([self._known(read(y, x)) for y in (y0, y1) for x in (x0, x1)])
        blended = ((corners[0] * (1 - fx) + corners[1] * fx) * (1 - fy)
                   + (corners[2] * (1 - fx) + corners[3] * fx) * fy)
        smooth = corners.max(axis=0) <= self.edge_ratio * corners.min(axis=0)  # nan: False
        return np.where(smooth, blended, nearest)

    def _known(self, depths: np.ndarray) -> np.ndarray:
        """Float64 with nan for what is out of range."""
        depths = np.asarray(depths, dtype=np.float64)
        low, high = self.depth_range
        return np.where((depths >= low) & (depths <= high), depths, np.nan)


def ray_lengths(pixels: np.ndarray, cam2img: np.ndarray) -> np.ndarray:
    """Metres along the ray of each pixel (P, 2) per metre along the optical axis, (P,)."""
    in_image = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    return np.linalg.norm(in_image @ np.linalg.inv(homogeneous(cam2img)[:3, :3]).T, axis=1)


@TASK_UTILS.register_module()
class DepthMaps(DepthSource):
    """Depth maps from files: ``.npy`` and ``.npz`` in metres, ``.png`` of 16 bits.

    Args:
        root: Folder of the files.
        kind: 'z' or 'ray', see :class:`DepthSource`.
        scale: Metres of a stored 1; needed for integers, such as 1 / 256 in KITTI's PNGs or 0.001
            for millimetres. Zero is unknown.
        layout, key, cache_size: See :class:`MapFiles`.
        kwargs: See :class:`DepthSource`.
    """

    def __init__(self, root: PathLike, kind: str, scale: Optional[float] = None,
                 layout: str = 'token', key: Optional[str] = None, cache_size: int = 64,
                 **kwargs) -> None:
        super().__init__(kind, **kwargs)
        if scale is not None and not scale > 0:
            raise ValueError(f'DepthMaps: scale is {scale}, expected metres, above 0')
        try:
            self.files = MapFiles(root, 'depth maps', layout, key, cache_size)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}: write an estimator\'s maps there; for a synthetic '
                                    'set tools/make_pseudo_depth.py makes them') from error
        self.scale = scale

    def _open(self, info: Dict[str, Any], camera: str) -> Tuple[Tuple[int, int], Reader]:
        stored = self.files.read(info, camera)
        is_integer = np.issubdtype(stored.dtype, np.integer)
        if not is_integer and not np.issubdtype(stored.dtype, np.floating):
            raise ValueError(f'depth maps: {self.files.find(info, camera)} holds {stored.dtype}, '
                             'expected floating or integers')
        if is_integer and self.scale is None:
            raise ValueError(f'depth maps: {self.files.find(info, camera)} holds {stored.dtype}: '
                             'set scale, the metres of a stored 1')
        scale = 1. if self.scale is None else self.scale
        return stored.shape, lambda rows, columns: stored[rows, columns] * np.float64(scale)


@TASK_UTILS.register_module()
class DepthStore(DepthSource):
    """Depth from a :class:`FeatureStore` of :func:`depth_directions`.

    Args:
        root: Folder of the store.
        kind: 'z' or 'ray', see :class:`DepthSource`.
        unit: Metres, as they were given to :func:`depth_directions`.
        verify, expected: See :class:`FeatureStore`.
        kwargs: See :class:`DepthSource`.
    """

    def __init__(self, root: PathLike, kind: str, unit: float = 10., verify: str = 'manifest',
                 expected: Optional[Dict[str, Any]] = None, **kwargs) -> None:
        super().__init__(kind, **kwargs)
        self.store, self.unit = FeatureStore(root, verify, expected), unit
        if self.store.embed_dims != 2:
            raise ValueError(f'DepthStore: the features of {root} have {self.store.embed_dims} '
                             'values, expected the 2 of depth_directions')

    def _open(self, info: Dict[str, Any], camera: str) -> Tuple[Tuple[int, int], Reader]:
        stored = self.store.rows(image_of(info, camera)['sample_data_token'])

        def read(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            far, near = self.store.codec.decode(
                torch.from_numpy(stored[rows, columns].copy())).double().numpy().T
            with np.errstate(divide='ignore', invalid='ignore'):
                return self.unit * far / near  # 0 / 0 where nothing is known

        return stored.shape[:2], read


def depth_directions(depths: np.ndarray, unit: float = 10.) -> np.ndarray:
    """Depths as unit vectors, which is what a :class:`FeatureStore` keeps.

    The vector of a depth d is (d, unit) / |(d, unit)|, zero where d is unknown. With Fp16Codec a
    cell takes 4 bytes, and a depth comes back within 0.1 % at ``unit``, 0.4 % at 8 times it.

    Args:
        depths: (h, w) metres; 0, negative or not finite: unknown.
        unit: Metres at which it is most exact.

    Returns:
        (2, h, w) float32.
    """
    known = np.isfinite(depths) & (np.asarray(depths) > 0)
    depths = np.where(known, depths, 0).astype(np.float64)
    vectors = np.stack([depths, np.full_like(depths, unit)]) / np.hypot(depths, unit)
    return np.where(known, vectors, 0).astype(np.float32)
