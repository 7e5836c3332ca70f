"""How forward rendering grows with the grid, the rays and the feature width."""
from dataclasses import replace
from typing import Dict

import torch

from voxelrender import FieldRenderer, MarchConfig, UnitFeatures

from .measure import median, seconds_of
from .scene import Scene, Size, make_scene
from .step import generator

BASES = dict(full=Size(cells=100, cells_z=8, rays=8192), quarter=Size(50, 2048, 8),
             tiny=Size(10, 64, 8))


def sizes(base: Size) -> Dict[str, Size]:
    """Name -> size."""
    return {
        'base': base,
        'voxels x 8': replace(base, cells=2 * base.cells, cells_z=2 * base.cells_z),
        'rays x 2': replace(base, rays=2 * base.rays),
        'rays x 4': replace(base, rays=4 * base.rays),
        'features / 2': replace(base, embed_dims=base.embed_dims // 2),
        'features x 2': replace(base, embed_dims=base.embed_dims * 2),
    }


@torch.no_grad()
def seconds(scene: Scene, threshold: float, repeats: int) -> Dict[str, float]:
    """Seconds of one rendering without gradient, with and without language."""
    renderer = FieldRenderer(MarchConfig(), threshold)
    language = dict(lang=UnitFeatures(scene.language_layers))
    device = scene.voxel_feats.device
    found = {}
    for name, decoders in (('geometry', {}), ('all', language)):
        found[name] = median(seconds_of(lambda: renderer(
            scene.field(), [scene.rays], decoders, True, generator()), device, repeats))
    return found


def benchmark_scale(arguments) -> Dict:
    """The scaling table; the language branch is what language adds to rendering geometry."""
    rows = []
    for name, size in sizes(BASES[arguments.preset]).items():
        scene = make_scene(size, arguments.device)
        found = seconds(scene, arguments.threshold, arguments.repeats)
        rows.append(dict(
            name=name, voxels=scene.grid.num_voxels, rays=size.rays, embed_dims=size.embed_dims,
            geometry_s=found['geometry'], language_s=found['all'] - found['geometry']))
        rows[-1]['language_ratio'] = rows[-1]['language_s'] / rows[0]['language_s']
        rows[-1]['geometry_ratio'] = rows[-1]['geometry_s'] / rows[0]['geometry_s']
    return dict(scale=rows, threshold=arguments.threshold)
