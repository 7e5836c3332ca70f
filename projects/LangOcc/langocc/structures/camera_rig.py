"""Calibration of a camera rig over several frames.

Legend: B batch, N cameras, F frames. Every matrix is 4x4 and named ``a2b`` with
``p_b = a2b @ p_a``, so chains read right to left. Integer pixel coordinates are pixel centres.
"""
from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Callable, List, Sequence, Union

import torch
from torch import Tensor

_PER_CAMERA = ('cam2img', 'cam2ego', 'ego2global', 'img_aug_matrix')


@dataclass
class CameraRig:
    """Where every camera of every frame is, and what it sees.

    Matrices are kept in float64: global coordinates lie kilometres from their origin, where
    float32 resolves a pose to a fraction of a millimetre only and products of three poses to worse.
    Chain them here (:meth:`cam2key`) and round the result to float32 after.

    Leading dimensions ``(...)`` are empty for one sample and ``(B,)`` for a batch; ``F`` is absent
    after :meth:`frame`.

    Attributes:
        cam2img: (..., F, N, 4, 4) intrinsics, pixels of the original image.
        cam2ego: (..., F, N, 4, 4) camera -> ego (metres), the sensor's mounting.
        ego2global: (..., F, N, 4, 4) ego -> global (metres), at that camera's own timestamp.
        img_aug_matrix: (..., F, N, 4, 4) original pixel -> augmented pixel. Acts on
            ``(u, v, depth, 1)``: a 2x2 block and the translation in column 3 (mmdet3d's BEVFusion
            convention).
        key_ego2global: (..., 4, 4) key ego frame -> global (metres).

    Raises:
        ValueError: shapes do not fit each other.
    """
    cam2img: Tensor
    cam2ego: Tensor
    ego2global: Tensor
    img_aug_matrix: Tensor
    key_ego2global: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            value = torch.as_tensor(getattr(self, field.name)).to(torch.float64)
            setattr(self, field.name, value)
        shape, key_shape = tuple(self.cam2img.shape), tuple(self.key_ego2global.shape)
        for name in _PER_CAMERA:
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f'CameraRig.{name} has shape {tuple(getattr(self, name).shape)}, '
                                 f'cam2img has {shape}')
        extra = len(shape) - len(key_shape)
        leading = shape[:len(key_shape) - 2]
        if shape[-2:] != (4, 4) or extra not in (1, 2) or leading + (4, 4) != key_shape:
            raise ValueError('CameraRig expects cam2img (..., [F,] N, 4, 4) and key_ego2global '
                             f'(..., 4, 4), got {shape} and {key_shape}')

    @property
    def has_frames(self) -> bool:
        """Whether the frame dimension is there."""
        return self.cam2img.ndim == self.key_ego2global.ndim + 2

    @property
    def num_frames(self) -> int:
        """F; 1 where the frame dimension was removed."""
        return self.cam2img.shape[-4] if self.has_frames else 1

    @property
    def num_cameras(self) -> int:
        """N."""
        return self.cam2img.shape[-3]

    @property
    def device(self) -> torch.device:
        """Device of the matrices."""
        return self.cam2img.device

    def cam2global(self) -> Tensor:
        """(..., [F,] N, 4, 4) float64, camera -> global at the camera's own time."""
        return self.ego2global @ self.cam2ego

    def cam2key(self) -> Tensor:
        """(..., [F,] N, 4, 4) float64, camera -> key ego frame, through global at its own time."""
        global2key = torch.linalg.inv(self.key_ego2global)
        for _ in range(self.cam2img.ndim - self.key_ego2global.ndim):
            global2key = global2key.unsqueeze(-3)
        return global2key @ self.cam2global()

    def key2img(self) -> Tensor:
        """(..., [F,] N, 4, 4) float64, key ego frame -> (u * d, v * d, d, 1).

        (u, v) is a pixel of the original image, d the z-depth in metres.
        """
        return self.cam2img @ torch.linalg.inv(self.cam2key())

    def frame(self, index: int) -> CameraRig:
        """The rig of one frame: (..., N, 4, 4).

        Args:
            index: frame, 0 = key; negative counts from the end.

        Raises:
            ValueError: the frame dimension is absent.
            IndexError: no such frame.
        """
        if not self.has_frames:
            raise ValueError('this CameraRig has no frame dimension: frame() was already applied')
        return self._map_cameras(lambda matrix: matrix.select(-4, index))

    def cameras(self, indices: Union[int, Sequence[int]]) -> CameraRig:
        """The rig of some cameras, in the order of ``indices``; the camera dimension stays."""
        indices = [indices] if isinstance(indices, int) else list(indices)
        indices = torch.as_tensor(indices, dtype=torch.long, device=self.device)
        return self._map_cameras(lambda matrix: matrix.index_select(-3, indices))

    def to(self, device: Union[str, torch.device], non_blocking: bool = False) -> CameraRig:
        """The same rig on another device; stays float64."""
        return self._map(lambda matrix: matrix.to(device=device, non_blocking=non_blocking))

    def validate(self) -> CameraRig:
        """Returns itself; raises ValueError naming the field that holds a non-finite number."""
        for field in fields(self):
            if not torch.isfinite(getattr(self, field.name)).all():
                raise ValueError(f'CameraRig.{field.name} has a non-finite value')
        return self

    @staticmethod
    def stack(rigs: List[CameraRig]) -> CameraRig:
        """Rigs of equal shape -> one rig with a new leading batch dimension.

        Raises:
            ValueError: no rigs, or their shapes differ.
        """
        shapes = sorted({tuple(rig.cam2img.shape) for rig in rigs})
        if len(shapes) != 1:
            raise ValueError(f'CameraRig.stack needs rigs of one shape, got {shapes}')
        names = [field.name for field in fields(CameraRig)]
        return CameraRig(**{n: torch.stack([getattr(rig, n) for rig in rigs]) for n in names})

    def _map(self, function: Callable[[Tensor], Tensor]) -> CameraRig:
        names = [field.name for field in fields(self)]
        return CameraRig(**{name: function(getattr(self, name)) for name in names})

    def _map_cameras(self, function: Callable[[Tensor], Tensor]) -> CameraRig:
        matrices = {name: function(getattr(self, name)) for name in _PER_CAMERA}
        return CameraRig(key_ego2global=self.key_ego2global, **matrices)
