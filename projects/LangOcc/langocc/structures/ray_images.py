"""Images that rays were drawn from, for a teacher that looks at them on the model's device.

Legend: R rays, M images, (H, W) size of an image.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Tuple, Union

import torch
from torch import Tensor


@dataclass(frozen=True)
class RayImages:
    """What an online teacher needs to make the targets of one sample's rays.

    Attributes:
        images: M images (3, H, W), uint8 RGB of original size; sizes may differ.
        tokens: their M ``sample_data`` tokens, for what is the same image in two samples.
        image_ids: (R,) long, index in ``images`` of each ray.
        pixels: (R, 2) float64 (u, v) in the original image; integer = pixel centre.
        targets: names of the ray targets that the teacher makes, out of 'lang_feats', 'classes',
            'sky', 'ground'.
        mask_dynamic: drop rays of other frames at which the teacher sees something that moves.

    Raises:
        ValueError: shapes, types or lengths do not fit each other.
    """
    images: Tuple[Tensor, ...]
    tokens: Tuple[str, ...]
    image_ids: Tensor
    pixels: Tensor
    targets: Tuple[str, ...] = ('lang_feats', )
    mask_dynamic: bool = False

    def __post_init__(self) -> None:
        for token, image in zip(self.tokens, self.images):
            if image.dim() != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
                raise ValueError(f'RayImages: image {token} has shape {tuple(image.shape)} and '
                                 f'type {image.dtype}, expected (3, H, W) uint8')
        if len(self.tokens) != len(self.images):
            raise ValueError(f'RayImages: {len(self.tokens)} tokens for {len(self.images)} images')
        if self.pixels.shape != (len(self), 2) or self.image_ids.dim() != 1:
            raise ValueError(f'RayImages: pixels of shape {tuple(self.pixels.shape)} and image_ids '
                             f'of shape {tuple(self.image_ids.shape)}, expected (R, 2) and (R,)')

    def __len__(self) -> int:
        return len(self.image_ids)

    def validate(self) -> RayImages:
        """Returns itself; reads values, so it is meant for the CPU.

        Raises:
            ValueError: a ray's image is not there, or its pixel lies outside of it.
        """
        if not len(self):
            return self
        if not 0 <= self.image_ids.min() <= self.image_ids.max() < len(self.images):
            raise ValueError(f'RayImages: image_ids from {int(self.image_ids.min())} to '
                             f'{int(self.image_ids.max())} for {len(self.images)} images')
        sizes = torch.tensor([image.shape[:0:-1] for image in self.images])[self.image_ids]
        inside = ((self.pixels >= -0.5) & (self.pixels <= sizes - 0.5)).all(dim=1)
        if not inside.all():
            bad = int(inside.int().argmin())
            raise ValueError(f'RayImages: pixel {tuple(self.pixels[bad].tolist())} lies outside '
                             f'the image of {sizes[bad, 0]} x {sizes[bad, 1]} pixels')
        return self

    def to(self, device: Union[str, torch.device], non_blocking: bool = False) -> RayImages:
        """The same on another device."""
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)
        return replace(self, images=tuple(map(move, self.images)), image_ids=move(self.image_ids),
                       pixels=move(self.pixels))
