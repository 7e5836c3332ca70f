"""Switches of the published behaviour that no other test turns on (docs/checkpoints.md has all)."""
import numpy as np
import pytest
import torch
from PIL import Image
from test_rays_sources import make_info, make_results
from test_voxelrender_marching import GRID, field, random_rays

from langocc.datasets.transforms.rays import PrepareRays
from langocc.models import VolumeRenderer
from langocc.teachers.sampling import sample_map
from voxelrender import march_rays


@pytest.mark.parametrize('jitter', [False, True])
def test_proposals_jittered_at_test(jitter):
    rays, densities = random_rays(4), field()
    config = VolumeRenderer(far=20., jitter_at_test=jitter).march_config
    draws = [march_rays(GRID, densities, rays, config, training=False,
                        generator=torch.Generator().manual_seed(seed)).t_mids for seed in (1, 2)]
    assert torch.equal(*draws) != jitter


def test_colours_half_a_pixel_off(tmp_path):
    results = make_results([make_info(tmp_path, 'k')])
    for record in results['ray_frames'][0]['info']['images'].values():
        noise = np.random.default_rng(0).integers(0, 256, (10, 20, 3)).astype(np.uint8)
        Image.fromarray(noise).save(record['img_path'])
    chw = noise.transpose(2, 0, 1).astype(np.float32) / 255
    found = {}
    for parity in (False, True):
        np.random.seed(0)
        prepare = PrepareRays(source=dict(type='CameraPixelSource'), num_rays=2 * 10 * 20,
                              targets=('rgb',), parity_half_pixel=parity)
        colours = prepare(dict(results))['rays'].targets['rgb']
        v, u = np.divmod(np.arange(200), 20)  # all pixels of both cameras, in order
        expected = sample_map(chw, np.stack([u, v], 1).astype(float), (20, 10), parity)
        np.testing.assert_allclose(colours[:200], expected, atol=1e-6)
        found[parity] = colours
    assert (found[True] - found[False]).abs().max() > 0.1
