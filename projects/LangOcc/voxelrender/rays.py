"""Rays, and the way from pixels to rays and back.

Pixel rule, here and everywhere: integer coordinates are pixel centres, so an image of width W spans
[-0.5, W - 0.5]. Matrices follow ``p_b = a2b @ p_a``. ``img_aug_matrix`` acts on (u, v, depth, 1).

Legend: R rays, P points.
"""
from dataclasses import dataclass, field, fields, replace
from typing import Dict, Iterator, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .voxel_grid import full_precision


@dataclass
class RayBundle:
    """Rays in one ego frame with what they are compared to.

    Args:
        origins: (R, 3) in metres.
        directions: (R, 3), unit length (see `validate`).
        camera_ids: (R,) long; zeros by default.
        frame_ids: (R,) long, offset from the key frame; zeros by default.
        targets: Name -> (R, ...). A target named ``distances`` is a length along the ray in
            metres and is scaled by `transformed`.
    """

    origins: Tensor
    directions: Tensor
    camera_ids: Optional[Tensor] = None
    frame_ids: Optional[Tensor] = None
    targets: Dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        for name in ('camera_ids', 'frame_ids'):
            if getattr(self, name) is None:
                setattr(self, name, torch.zeros(len(self.origins), dtype=torch.long,
                                                device=self.origins.device))

    def __len__(self) -> int:
        return self.origins.shape[0]

    @property
    def num_rays(self) -> int:
        """Number of rays R."""
        return len(self)

    @property
    def device(self) -> torch.device:
        """Device of the rays."""
        return self.origins.device

    def validate(self, tolerance: float = 1e-3) -> 'RayBundle':
        """Returns self if shapes agree, values are finite and directions have unit length.

        Raises:
            ValueError: Naming the field, and what was expected.
        """
        count = len(self)
        shapes = dict(origins=(count, 3), directions=(count, 3), camera_ids=(count,),
                      frame_ids=(count,))
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f'rays: {name} has shape {tuple(getattr(self, name).shape)}, '
                                 f'expected {shape}')
        for name, target in self.targets.items():
            if target.dim() == 0 or len(target) != count:
                raise ValueError(f'rays: target {name!r} has shape {tuple(target.shape)}, '
                                 f'expected ({count}, ...)')
        for name in ('origins', 'directions'):
            bad = ~torch.isfinite(getattr(self, name)).all(-1)
            if bad.any():
                raise ValueError(f'rays: {name} of {int(bad.sum())} of {count} rays not finite')
        lengths = self.directions.norm(dim=-1)
        bad = (lengths - 1).abs() > tolerance
        if bad.any():
            raise ValueError(f'rays: {int(bad.sum())} of {count} directions are not of unit '
                             f'length, the first has length {lengths[bad][0].item():.6g}')
        return self

    def to(self, device: Union[str, torch.device], non_blocking: bool = False) -> 'RayBundle':
        """The rays on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def __getitem__(self, index) -> 'RayBundle':
        """Rays picked by an integer (a bundle of one), slice, index tensor or boolean mask."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f'ray {index} of {len(self)}')
            index = slice(index % len(self), index % len(self) + 1)
        return self._map(lambda tensor: tensor[index])

    def __iter__(self) -> Iterator['RayBundle']:
        return (self[index] for index in range(len(self)))

    def chunks(self, size: int) -> Iterator['RayBundle']:
        """Bundles of at most ``size`` rays; one empty bundle where there are none."""
        if size < 1:
            raise ValueError(f'chunk size is {size}, expected at least 1')
        for start in range(0, max(len(self), 1), size):
            yield self[start:start + size]

    @classmethod
    def cat(cls, bundles: Sequence['RayBundle']) -> 'RayBundle':
        """Joins bundles that have the same targets.

        Raises:
            ValueError: Without a bundle, or where the names of targets differ.
        """
        bundles = list(bundles)
        if not bundles:
            raise ValueError('RayBundle.cat needs at least one bundle; use RayBundle.empty')
        names = set(bundles[0].targets)
        for bundle in bundles:
            if set(bundle.targets) != names:
                raise ValueError(f'bundles with targets {sorted(names)} and '
                                 f'{sorted(bundle.targets)} cannot be joined')
        plain = {item.name: torch.cat([getattr(bundle, item.name) for bundle in bundles])
                 for item in fields(cls) if item.name != 'targets'}
        targets = {name: torch.cat([bundle.targets[name] for bundle in bundles])
                   for name in bundles[0].targets}
        return cls(**plain, targets=targets)

    @classmethod
    def empty(cls, device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None,
              targets: Optional[Dict[str, Tensor]] = None) -> 'RayBundle':
        """No ray at all. ``targets``: name -> tensor whose trailing shape and type are kept."""
        blank = torch.zeros(0, 3, device=device, dtype=dtype)
        return cls(blank, blank.clone(), targets={
            name: target[:0].to(blank.device) for name, target in (targets or {}).items()})

    def transformed(self, matrix: Tensor) -> 'RayBundle':
        """Maps origins and directions by an affine matrix (4, 4), directions to unit length.

        Raises:
            ValueError: If the matrix is not (4, 4).
        """
        if tuple(matrix.shape) != (4, 4):
            raise ValueError(f'matrix has shape {tuple(matrix.shape)}, expected (4, 4)')
        matrix = matrix.to(self.origins)
        linear = self.directions @ matrix[:3, :3].T
        lengths = linear.norm(dim=-1, keepdim=True)
        targets = dict(self.targets)
        if 'distances' in targets:
            targets['distances'] = targets['distances'] * lengths[:, 0].to(targets['distances'])
        return replace(self, origins=self.origins @ matrix[:3, :3].T + matrix[:3, 3],
                       directions=linear / lengths, targets=targets)

    def points(self, distances: Tensor) -> Tensor:
        """Points (R, S, 3) in metres at distances (R, S) along the rays, in their dtype."""
        return (self.origins.to(distances)[:, None]
                + distances[..., None] * self.directions.to(distances)[:, None])

    def _map(self, function) -> 'RayBundle':
        """Applies ``function`` to every tensor."""
        plain = {item.name: function(getattr(self, item.name)) for item in fields(self)
                 if item.name != 'targets'}
        return RayBundle(**plain, targets={name: function(target)
                                           for name, target in self.targets.items()})


def pixels_to_rays(pixels: Tensor, cam2img: Tensor, cam2ego: Tensor,
                   img_aug_matrix: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
    """Rays through (augmented) pixels, in the ego frame of ``cam2ego``.

    Args:
        pixels: (R, 2) u, v; integer = pixel centre.
        cam2img: Intrinsics, (4, 4) or (R, 4, 4).
        cam2ego: (4, 4) or (R, 4, 4), metres.
        img_aug_matrix: Original -> augmented pixel, (4, 4) or (R, 4, 4); None where the pixels
            are the original image's.

    Returns:
        origins (R, 3) in metres and directions (R, 3) of unit length, in the wider of the
        pixels' and the matrices' types.
    """
    pixels, cam2img, cam2ego, img_aug_matrix = _same_type(pixels, cam2img, cam2ego, img_aug_matrix)
    ones = torch.ones_like(pixels[:, :1])
    if img_aug_matrix is not None:
        rows = torch.cat([pixels, ones, ones], dim=-1)
        pixels = _apply(torch.linalg.inv(img_aug_matrix), rows)[:, :2]
    in_camera = _apply(torch.linalg.inv(cam2img[..., :3, :3]), torch.cat([pixels, ones], dim=-1))
    directions = _apply(cam2ego[..., :3, :3], in_camera)
    origins = cam2ego[..., :3, 3].expand_as(directions).clone()
    return origins, directions / directions.norm(dim=-1, keepdim=True)


def project_points(points: Tensor, cam2img: Tensor, cam2ego: Tensor,
                   img_aug_matrix: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
    """Projects points into an (augmented) image: the inverse of `pixels_to_rays`.

    Args:
        points: (P, 3) in metres, ego frame of ``cam2ego``.
        cam2img: Intrinsics, (4, 4) or (P, 4, 4).
        cam2ego: (4, 4) or (P, 4, 4), metres.
        img_aug_matrix: Original -> augmented pixel, (4, 4) or (P, 4, 4), or None.

    Returns:
        pixels (P, 2), nan where the depth is not positive, so that no test of a place in the
        image takes them; depths (P,) along the optical axis in metres.
    """
    points, cam2img, cam2ego, img_aug_matrix = _same_type(points, cam2img, cam2ego, img_aug_matrix)
    ones = torch.ones_like(points[:, :1])
    in_camera = _apply(torch.linalg.inv(cam2ego), torch.cat([points, ones], dim=-1))[:, :3]
    in_image = _apply(cam2img[..., :3, :3], in_camera)
    depths = in_camera[:, 2]
    front = (depths > 0)[:, None]
    pixels = in_image[:, :2] / torch.where(front, in_image[:, 2:], ones)
    if img_aug_matrix is not None:
        rows = torch.cat([pixels, depths[:, None], ones], dim=-1)
        pixels = _apply(img_aug_matrix, rows)[:, :2]
    return torch.where(front, pixels, torch.full_like(pixels, torch.nan)), depths


def _apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrix (K, K) or (R, K, K) times vectors (R, K)."""
    return (matrix @ vectors[..., None])[..., 0]


def _same_type(first: Tensor, *others: Optional[Tensor]) -> Tuple[Optional[Tensor], ...]:
    """All tensors in the widest floating type among them, on the first one's device."""
    dtype = full_precision(first).dtype
    for other in others:
        if other is not None:
            dtype = torch.promote_types(dtype, full_precision(other).dtype)
    return tuple(None if tensor is None else tensor.to(device=first.device, dtype=dtype)
                 for tensor in (first, *others))
