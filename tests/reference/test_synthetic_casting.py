"""Compiled ray casting and voxel overlap against plain float64 loops over solids."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from langocc.synthetic.acceleration import picture_tiles, solid_grid
from langocc.synthetic.casting import (
    GROUND, NOTHING, GroundArrays, SolidArrays, cast_pixels, cast_rays
)
from langocc.synthetic.overlap import solids_in_voxels
from langocc.synthetic.snapshot import pixel_directions
from langocc.synthetic.solids import BOX, CYLINDER, SolidBuilder, turn_about

SAMPLES = np.arange(0.0, 40.0, 0.004)
NO_GROUND = GroundArrays(np.full((2, 2), -1e4, np.float32), 0., 0., 1., -1e4)


def random_solids(rng, count):
    """Solids of all kinds, turned at will, within 12 m of the origin."""
    builder = SolidBuilder(4, 0)
    for _ in range(count):
        turn = turn_about(0, rng.uniform(0, 6)) @ turn_about(2, rng.uniform(0, 6))
        place, size = rng.uniform(-12, 12, 3), rng.uniform(0.2, 6., 3)
        kind = rng.integers(3)
        if kind == BOX:
            builder.box(place, size, (1, 1, 1), taper=tuple(rng.uniform(0, 1, 2)), turn=turn)
        elif kind == CYLINDER:
            builder.cylinder(place, size, (1, 1, 1), taper=rng.uniform(0, 1), turn=turn)
        else:
            builder.ellipsoid(place, size, (1, 1, 1), turn=turn)
    return builder.build()


def depth_inside(solids, k, points):
    """How far inside solid k points lie in unit space; negative outside."""
    x, y, z = (points @ solids.to_unit[k, :, :3].T + solids.to_unit[k, :, 3]).T
    a, b = (1 - taper * (z + 1) / 2 for taper in solids.tapers[k])
    if solids.kinds[k] == BOX:
        return np.minimum.reduce([1 - np.abs(z), a - np.abs(x), b - np.abs(y)])
    if solids.kinds[k] == CYLINDER:
        return np.minimum(1 - np.abs(z), a - np.hypot(x, y))
    return 1 - np.sqrt(x * x + y * y + z * z)


def first_entry(solids, k, origin, direction):
    """Distance of the first of closely spaced samples inside solid k, refined by halving."""
    inside = depth_inside(solids, k, origin + SAMPLES[:, None] * direction) > 0
    if inside[0]:
        return None
    if not inside.any():
        return np.inf
    high = SAMPLES[np.argmax(inside)]
    low = high - 0.004
    for _ in range(40):
        middle = (low + high) / 2
        if depth_inside(solids, k, (origin + middle * direction)[None])[0] > 0:
            high = middle
        else:
            low = middle
    return high


def arrays_of(solids):
    lower, upper = solids.bounds()
    return (SolidArrays(solids.kinds, solids.to_unit, solids.tapers, lower, upper),
            solid_grid(lower, upper))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2 ** 32))
def test_cast_meets_what_a_walk_along_the_ray_enters_first(seed):
    rng = np.random.default_rng(seed)
    solids = random_solids(rng, 8)
    arrays, grid = arrays_of(solids)
    origins = rng.uniform(-15, 15, (12, 3))
    directions = rng.uniform(-6, 6, (12, 3)) - origins
    directions[0] = (0., 0., 1.)
    directions[1, :2] = (0., 1.)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances, indices = cast_rays(arrays, grid, NO_GROUND, origins, directions)
    for ray in range(12):
        entries = [first_entry(solids, k, origins[ray], directions[ray]) for k in range(8)]
        expected = min([entry for entry in entries if entry is not None] + [np.inf])
        assert distances[ray] <= expected + 1e-6
        if indices[ray] == NOTHING:
            assert expected == np.inf and distances[ray] == np.inf
            continue
        k, point = indices[ray], origins[ray] + distances[ray] * directions[ray]
        assert entries[k] is not None  # the ray did not start in it
        assert abs(depth_inside(solids, k, point[None])[0]) < 1e-6
        if distances[ray] < expected - 1e-6:
            # A graze that the samples step over: no longer than their spacing.
            beyond = origins[ray] + (distances[ray] + 0.0041) * directions[ray]
            assert depth_inside(solids, k, beyond[None])[0] < 1e-6


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2 ** 32))
def test_tiles_of_a_picture_lose_no_hit(seed):
    rng = np.random.default_rng(seed)
    solids = random_solids(rng, 30)
    arrays, grid = arrays_of(solids)
    cam2global = np.eye(4)
    cam2global[:3, :3] = turn_about(1, rng.uniform(0, 6)) @ turn_about(0, rng.uniform(0, 6))
    cam2global[:3, 3] = rng.uniform(-14, 14, 3)
    cam2img = np.array([[30., 0., 31.5], [0., 30., 19.5], [0., 0., 1.]])
    tiles = picture_tiles(solids, cam2img, cam2global, (64, 40))
    v, u = np.divmod(np.arange(64 * 40), 64)
    directions = pixel_directions(cam2img, cam2global, np.stack([u, v], 1))
    origin = cam2global[:3, 3].copy()
    distances, indices = cast_pixels(arrays, NO_GROUND, *tiles[:3], origin, directions,
                                     v // 8 * tiles.columns + u // 8)
    wanted = cast_rays(arrays, grid, NO_GROUND, np.tile(origin, (len(u), 1)), directions)
    np.testing.assert_array_equal(distances, wanted[0])
    np.testing.assert_array_equal(indices, wanted[1])


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2 ** 32))
def test_ground_is_met_where_the_ray_first_comes_below(seed):
    rng = np.random.default_rng(seed)
    heights = rng.uniform(0., 0.3, (13, 13)).astype(np.float32)
    ground = GroundArrays(heights, -6., -6., 1., float(heights.max()))
    arrays, grid = arrays_of(random_solids(rng, 0))
    origins = np.concatenate([rng.uniform(-5, 5, (10, 2)), rng.uniform(0.5, 3., (10, 1))], 1)
    directions = np.concatenate([rng.uniform(-1, 1, (10, 2)), rng.uniform(-1., 0.1, (10, 1))], 1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances, indices = cast_rays(arrays, grid, ground, origins, directions)
    samples = SAMPLES[::5]
    for ray in range(10):
        points = origins[ray] + samples[:, None] * directions[ray]
        below = points[:, 2] < [height_at(heights, *point[:2]) for point in points]
        if indices[ray] == GROUND and distances[ray] < samples[-1]:
            first = samples[np.argmax(below)]
            assert below.any() and first - 0.021 < distances[ray] + 1e-6
            x, y, z = origins[ray] + distances[ray] * directions[ray]
            assert abs(z - height_at(heights, x, y)) < 1e-5
            # Steps along the ground of at most 0.12 m + 0.8 % may pass through a crest.
            assert below[samples < distances[ray] - 0.01].sum() * 0.02 < 0.5
        elif indices[ray] == NOTHING:
            assert directions[ray, 2] > -3 / 400  # it ends before it comes down 3 m


def height_at(heights, x, y):
    """Bilinear height of the raster from (-6, -6) on, constant beyond."""
    u, v = np.clip(x + 6., 0, 12), np.clip(y + 6., 0, 12)
    i, j = min(int(u), 11), min(int(v), 11)
    u, v = u - i, v - j
    return ((heights[j, i] * (1 - u) + heights[j, i + 1] * u) * (1 - v)
            + (heights[j + 1, i] * (1 - u) + heights[j + 1, i + 1] * u) * v)


def missed_voxels(seed):
    """How many of 300 voxels with a sample inside a solid are not found as that solid's, or as one
    of a higher index; what is found is inside the voxel or within a centimetre of it."""
    rng = np.random.default_rng(seed)
    solids = random_solids(rng, 8)
    arrays, grid = arrays_of(solids)
    centers, half = rng.uniform(-13, 13, (300, 3)), 0.4
    found = solids_in_voxels(arrays, solids.from_unit, solids.half_sizes, grid, centers, half)
    offsets = np.stack(np.meshgrid(*[np.linspace(-half, half, 7)] * 3), -1).reshape(-1, 3)
    missed = 0
    for center, k in zip(centers, found):
        depths = [depth_inside(solids, n, center + offsets).max() for n in range(8)]
        inside = [n for n, depth in enumerate(depths) if depth >= 0]
        missed += bool(inside) and k < max(inside)
        if k >= 0:  # not deeper than the voxel's unit-space size
            wide = center + offsets * 1.35
            assert depth_inside(solids, k, wide).max() > -0.05
    return missed


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2 ** 32))
def test_overlap_agrees_with_points_inside_the_voxel(seed):
    # Corners that the alternating projections do not reach: 0.8 on average, at most 4 in 151 seeds.
    assert missed_voxels(seed) <= 9


def test_overlap_misses_few_voxels():
    assert sum(missed_voxels(seed) for seed in range(12)) <= 10  # 8 are now
