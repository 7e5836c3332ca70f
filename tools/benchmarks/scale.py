"""How forward rendering grows with the grid, the rays and the feature width."""
from contextlib import ExitStack
from dataclasses import replace
from typing import Dict
from unittest.mock import patch

import torch

from voxelrender import FieldRenderer, MarchConfig, UnitFeatures, rendering

from .measure import median
from .progress import turns
from .scene import Scene, Size, make_scene
from .stages import StageClock
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
def seconds(name: str, scene: Scene, threshold: float, repeats: int) -> Dict[str, float]:
    """Median seconds of a rendering's two branches, without gradient, after one warm-up.

    Language: the pairs of rays and voxels, the voxels' features, decoding them and the product.
    Geometry: the rest, which is densities and samples.
    """
    renderer = FieldRenderer(MarchConfig(), threshold)
    decoder = UnitFeatures(scene.language_layers)
    clocks = []
    for _ in turns([name], repeats):
        clock, field = StageClock(scene.voxel_feats.device), scene.field()
        with ExitStack() as stack:
            for owner, name in ((renderer, '_layout'), (field, 'rows'), (decoder, 'encode'),
                                (rendering, '_accumulate')):
                wrapped = clock.wrap('language', getattr(owner, name))
                stack.enter_context(patch.object(owner, name, wrapped))
            with clock.stage('geometry'):
                renderer(field, [scene.rays], dict(lang=decoder), True, generator())
        clocks.append(clock.seconds)
    return {name: median([found[name] for found in clocks[1:]]) for name in clocks[0]}


def benchmark_scale(arguments) -> Dict:
    """The scaling table; the ratios are to its first row, the base."""
    rows = []
    for name, size in sizes(BASES[arguments.preset]).items():
        scene = make_scene(size, arguments.device)
        found = seconds(name, scene, arguments.threshold, arguments.repeats)
        rows.append(dict(
            name=name, voxels=scene.grid.num_voxels, rays=size.rays, embed_dims=size.embed_dims,
            geometry_s=found['geometry'], language_s=found['language']))
        rows[-1]['language_ratio'] = rows[-1]['language_s'] / rows[0]['language_s']
        rows[-1]['geometry_ratio'] = rows[-1]['geometry_s'] / rows[0]['geometry_s']
    return dict(scale=rows, threshold=arguments.threshold)
