"""RayIoU against a plain Amanatides-Woo loop, on random grids and on the real labels."""
import numpy as np
import pytest
from naive_ray_iou import chosen_origins, counts_of, directions, scores_of, walk

from langocc.datasets.key_frames import KeyFrames
from langocc.datasets.nuscenes_prepare import prepare_infos
from langocc.evaluation import RayIoUMetric
from langocc.evaluation.occ_files import load_occupancy
from langocc.evaluation.ray_iou import (
    UNKNOWN, cast_rays, count_rays, ray_directions, select_origins
)


def test_directions_and_origins():
    np.testing.assert_allclose(ray_directions(), directions(), rtol=0, atol=1e-13)
    rng = np.random.default_rng(0)
    for count in (1, 3, 7, 8, 9, 10, 22, 39, 41):
        origins = rng.uniform(-60, 60, (count, 3)) * [1, 1, 0.05]
        origins[0, :2] = 0
        assert select_origins(origins).tolist() == chosen_origins(origins.tolist())


def random_rays(rng, kind):
    """Origins in and around a small grid, and directions; many ties where they are whole."""
    if kind == 'any':
        origins, directions = rng.uniform(-4, 10, (4, 3)), rng.standard_normal((25, 3))
    else:
        origins = rng.integers(-8, 20, (4, 3)) / 2
        directions = rng.integers(-2, 3, (25, 3)).astype(float)
        directions = directions[np.abs(directions).sum(1) > 0]
    return origins, directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize('kind', ['any', 'whole'])
def test_rays_through_random_grids_bit_by_bit(kind):
    rng = np.random.default_rng(1)
    outside = 0
    for _ in range(60):
        shape = tuple(rng.integers(1, 7, 3).tolist())
        semantics = np.where(rng.random(shape) < 0.8, 17, rng.integers(0, 20, shape))
        origins, directions = random_rays(rng, kind)
        hits = cast_rays(semantics, origins, directions, (0, 0, 0), 1.)
        for i, origin in enumerate(origins.tolist()):
            for j, direction in enumerate(directions.tolist()):
                label, distance = walk(semantics.tolist(), shape, origin, direction)
                assert hits.labels[i, j] == (label if label < 18 else UNKNOWN)
                assert hits.distances[i, j] == distance
                outside += distance == -1
    assert outside > 500  # rays that never enter


def test_counts_of_random_grids():
    """Other cells than one metre, an offset, true labels of no class."""
    rng = np.random.default_rng(2)
    shape, low, size = (20, 16, 8), (-4., -3., -1.), 0.4
    truth = np.where(rng.random(shape) < 0.97, 17, rng.integers(0, 20, shape))
    prediction = np.where(rng.random(shape) < 0.02, rng.integers(0, 18, shape),
                          np.roll(truth, 1, axis=0))
    prediction[prediction > 17] = 3
    origins = rng.uniform(-2, 2, (11, 3)) * [1, 1, 0.4]
    rays = ray_directions()[::211]
    chosen = select_origins(origins)
    counts = count_rays(*(cast_rays(labels, chosen, rays, low, size)
                          for labels in (truth, prediction)), thresholds=(0.2, 0.35, 0.5))
    expected = counts_of(truth.tolist(), prediction.tolist(), shape, low, size, origins.tolist(),
                         rays.tolist(), thresholds=(0.2, 0.35, 0.5))
    hits, true, predicted = expected
    assert counts.tolist() == [*hits, true, predicted]
    assert counts[0].sum() < counts[1].sum() < counts[2].sum() < counts[3].sum()
    assert counts[4].sum() < counts[3].sum(), 'some predicted rays meet nothing'


def test_the_metric_on_real_labels(pandaset_root, tmp_path, monkeypatch):
    """Every 53rd ray of three frames: a plain program is slow. Predictions: labels moved by one."""
    prepare_infos(pandaset_root, 'v1.0-mini', tmp_path, splits='all', prefix='pandaset')
    frames = KeyFrames(tmp_path / 'pandaset_infos_all.json', pandaset_root)
    every, rays = ray_directions()[::53], directions()[::53]
    metric, counted = RayIoUMetric(), []
    monkeypatch.setattr(metric, '_directions', every)
    for token in frames.tokens[::7]:
        sample = frames.metainfo(token)
        truth = load_occupancy(sample['occ_path'])['semantics']
        prediction = np.roll(truth, 1, axis=1)
        metric.process(None, [dict(sample, pred_occ=dict(semantics=prediction))])
        counted.append(counts_of(truth.tolist(), prediction.tolist(), truth.shape, (-40, -40, -1),
                                 0.4, sample['lidar_origins'].tolist(), rays))
    found = metric.evaluate(len(counted))
    for name, left_out in (('RayIoU', ()), ('rayiou15', (0, 12))):
        of_threshold, mean = scores_of(counted, left_out)
        for threshold, value in zip((1, 2, 4), of_threshold):
            assert f'{found[f"{name}@{threshold}"]:.6f}' == f'{value:.6f}'
        assert found[name] == pytest.approx(mean, rel=1e-12)
    assert 10 < found['RayIoU@1'] < found['RayIoU@4'] < 90
