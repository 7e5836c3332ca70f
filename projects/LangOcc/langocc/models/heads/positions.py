"""Places of voxels as network input."""
from typing import Sequence

import torch
from torch import Tensor


def encode_positions(volume_shape: Sequence[int], frequencies: int, like: Tensor) -> Tensor:
    """Places of voxels as network input.

    Args:
        volume_shape: (Z, Y, X).
        frequencies: octaves L.
        like: tensor whose device and type are taken.

    Returns:
        (1, 3 * (1 + 2 L), Z, Y, X): x, y, z of the voxel's centre in [-1, 1] over the grid, then
        sin(2^k pi p) and cos(2^k pi p) for k = 0 ... L - 1.
    """
    axes = [(torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n * 2 - 1
            for n in volume_shape]
    places = torch.stack(torch.meshgrid(*axes, indexing='ij')[::-1])
    waves = [places] + [wave(2**k * torch.pi * places) for k in range(frequencies)
                        for wave in (torch.sin, torch.cos)]
    return torch.cat(waves)[None].to(like.dtype)


def encode_heights(num_layers: int, frequencies: int, like: Tensor) -> Tensor:
    """Heights of a grid's layers as network input: (Z, 1 + 2 L), as :func:`encode_positions`."""
    place = (torch.arange(num_layers, device=like.device) + 0.5) / num_layers * 2 - 1
    waves = [wave(2**k * torch.pi * place) for k in range(frequencies)
             for wave in (torch.sin, torch.cos)]
    return torch.stack([place, *waves], dim=1)
