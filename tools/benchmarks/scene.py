"""The scene that is timed: a street of surfaces, rays, features and decoder weights.

Legend: R rays, V voxels, U chosen voxels, C channels, E embedding.
"""
from dataclasses import dataclass
from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelrender import RayBundle, VoxelField, VoxelGrid, pixels_to_rays

RANGE = (-40., -40., -1., 40., 40., 5.4)
# Voxels along x and y over the paper's range, and rays.
PRESETS = dict(full=(200, 8192), quarter=(100, 2048), tiny=(20, 64))
IN_CHANNELS, HIDDEN, EMBED_DIMS = 256, 256, 512
# Density logits of surfaces and of free space, about.
SURFACE, FREE = 5., -8.


@dataclass(frozen=True)
class Size:
    """What the cost depends on.

    Args:
        cells: Voxels along x and along y.
        cells_z: Voxels along z.
        rays: R.
        embed_dims: E.
    """

    cells: int
    rays: int
    cells_z: int = 16
    embed_dims: int = EMBED_DIMS

    @classmethod
    def preset(cls, name: str) -> 'Size':
        """The size of a preset."""
        cells, rays = PRESETS[name]
        return cls(cells, rays)

    @classmethod
    def of(cls, arguments) -> 'Size':
        """The size of a command line: a preset, times the factors of ``--scale``.

        Raises:
            ValueError: A factor leaves nothing.
        """
        size, factors = cls.preset(arguments.preset), arguments.scale
        numbers = dict(cells=size.cells * factors.get('grid', 1.),
                       cells_z=size.cells_z * factors.get('grid', 1.),
                       rays=size.rays * factors.get('rays', 1.),
                       embed_dims=size.embed_dims * factors.get('features', 1.))
        rounded = {name: round(number) for name, number in numbers.items()}
        if min(rounded.values()) < 1:
            raise ValueError(f'--scale {factors} of preset {arguments.preset} gives {rounded}')
        return cls(**rounded)


@dataclass
class Scene:
    """Inputs and weights of one step.

    Args:
        grid: The voxel grid.
        voxel_feats: (1, C, Z, Y, X), requires grad, as the final convolution gives them.
        density_decoder: (U, C) -> (U, 1) in 1/m.
        language_layers: (U, C) -> (U, E), not normalised.
        rays: R rays with target ``lang_feats`` (R, E).
    """

    grid: VoxelGrid
    voxel_feats: Tensor
    density_decoder: nn.Module
    language_layers: nn.Sequential
    rays: RayBundle

    def leaves(self) -> List[Tensor]:
        """Everything that gets a gradient."""
        return [self.voxel_feats, *self.density_decoder.parameters(),
                *self.language_layers.parameters()]

    def field(self) -> VoxelField:
        """The field, whose densities are decoded where they are needed."""
        return VoxelField(self.voxel_feats, None, self.grid, self.density_decoder)


class Density(nn.Module):
    """The paper's density decoder, (U, C) -> (U, 1) in 1/m."""

    def __init__(self):
        super().__init__()
        self.layers = make_layers(1)

    def forward(self, feats: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(feats))

    @torch.no_grad()
    def tell_surfaces(self) -> None:
        """Sets weights by which channel 0, 1 at surfaces and 0 elsewhere, decides the density.

        As in a trained decoder; what the random weights of all other channels add is small.
        """
        for layer in self.layers[:-1:2]:
            layer.weight[0] = 0
            layer.weight[0, 0] = 1
        self.layers[-1].weight[0, 0] = SURFACE - FREE
        self.layers[-1].bias.fill_(FREE)


def make_layers(out_channels: int) -> nn.Sequential:
    """The paper's decoder: three hidden layers, Xavier-uniform, zero bias."""
    widths = [IN_CHANNELS, HIDDEN, HIDDEN, HIDDEN, out_channels]
    layers = []
    for fan_in, fan_out in zip(widths, widths[1:]):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def find_surfaces(grid: VoxelGrid) -> Tensor:
    """Which voxels (Z, Y, X) a street fills: ground, facades on both sides, boxes like cars."""
    x, y, z = grid.voxel_centers().unbind(-1)
    occupied = (z < 0) | ((y.abs() > 12) & (y.abs() < 20) & (torch.sin(x / 4) > -0.6))
    for _ in range(40):
        middle = (torch.rand(2) * 2 - 1) * torch.tensor([38., 11.])
        if middle.norm() > 4:
            occupied |= ((x - middle[0]).abs() < 2.2) & ((y - middle[1]).abs() < 1) & (z < 1.6)
    return occupied


def made_up_rays(count: int) -> Tuple[Tensor, Tensor]:
    """Rays of six cameras like nuScenes', at random pixels where a LiDAR sees something."""
    cam2img = torch.eye(4)
    cam2img[0, 0] = cam2img[1, 1] = 1260.
    cam2img[:2, 2] = torch.tensor([800., 450.])
    parts = []
    for camera in range(6):
        yaw = torch.tensor(camera * torch.pi / 3)
        forward = torch.stack([yaw.cos(), yaw.sin(), torch.zeros(())])
        down = torch.tensor([0., 0., -1.])
        cam2ego = torch.eye(4)
        cam2ego[:3, :3] = torch.stack([torch.linalg.cross(down, forward), down, forward], dim=-1)
        cam2ego[:3, 3] = forward + torch.tensor([0., 0., 1.5])
        share = count // 6 + (camera < count % 6)
        pixels = torch.rand(share, 2) * torch.tensor([1599., 520.]) + torch.tensor([0., 379.])
        parts.append(pixels_to_rays(pixels, cam2img, cam2ego))
    origins, directions = (torch.cat(tensors) for tensors in zip(*parts))
    return origins, directions


def make_scene(size: Size, device: str = 'cpu', rays: str = 'made') -> Scene:
    """The same scene for the same size, in every process.

    Args:
        size: Of grid, rays and features.
        device: Of everything.
        rays: 'made', or 'real' for LiDAR-pixel rays of the real sequence.
    """
    torch.manual_seed(0)
    steps = (80 / size.cells, 80 / size.cells, 6.4 / size.cells_z)
    grid = VoxelGrid(RANGE, steps)
    surfaces = find_surfaces(grid)
    if rays == 'real':
        from .real_rays import real_rays
        origins, directions = real_rays(size.rays)
    else:
        origins, directions = made_up_rays(size.rays)
    density_decoder, language_layers = Density(), make_layers(size.embed_dims)
    density_decoder.tell_surfaces()
    voxel_feats = torch.empty(1, IN_CHANNELS, *grid.volume_shape).normal_().clamp_(min=0)
    voxel_feats[0, 0] = surfaces
    scene = Scene(grid, voxel_feats.to(device).requires_grad_(), density_decoder.to(device),
                  language_layers.to(device), RayBundle(origins, directions).to(device))
    scene.rays.targets['lang_feats'] = make_targets(scene)
    scene.rays.validate()
    return scene


@torch.no_grad()
def make_targets(scene: Scene) -> Tensor:
    """Target features (R, E) as of a network that has learned: those of the first surface, noisy.

    Against targets that have nothing to do with the rendered features, hardly any error of the
    features would show in the loss.
    """
    rays, grid = scene.rays, scene.grid
    distances = torch.linspace(0.1, 40, 400, device=rays.device).expand(len(rays), -1)
    hits = grid.sample(scene.voxel_feats[:, :1], rays.points(distances)[None])[0, ..., 0] > 0.5
    places = rays.points(distances.gather(1, hits.byte().argmax(1, keepdim=True)))[:, 0]
    limits = torch.tensor(grid.grid_shape, device=rays.device) - 1
    voxels = grid.flat_indices(torch.minimum(grid.to_indices(places).clamp_min(0), limits))
    feats = scene.voxel_feats[0].flatten(1)[:, voxels].t()
    noise = torch.randn(len(rays), scene.language_layers[-1].out_features).to(feats)
    return F.normalize(F.normalize(scene.language_layers(feats), dim=-1)
                       + 0.5 * F.normalize(noise, dim=-1), dim=-1)
