"""Codecs of feature stores: error bounds, exact cases, zeros, files, and errors."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langocc.feature_store import (
    Fp16Codec, Int8Codec, LinearCodec, ProductCodec, build_codec, load_codec, save_codec
)
from langocc.feature_store.product_codec import balanced_order, k_means, nearest
from langocc.teachers import Reducer

E = 24


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


@pytest.fixture(scope='module')
def codecs():
    rows = unit(600, E) + 0.5 * unit(E)
    return dict(fp16=Fp16Codec(E), int8=Int8Codec(E), linear=LinearCodec.fit(rows, dims=10),
                product=ProductCodec.fit(rows, num_parts=6, iterations=4))


NAMES = ('fp16', 'int8', 'linear', 'product')
numbers = st.floats(-2.**100, 2.**100, width=32) | st.sampled_from([0., 1., -1., 2.**-120, -2.**99])
some_rows = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(E)), elements=numbers)


def error_bounds(name, codec, x):
    """(P,) bounds of |y - x| for unit rows x and decoded rows y before they are normalised.

    In float64, from the rule of each codec.
    """
    largest = x.abs().amax(dim=1)
    if name == 'fp16':
        return 2**-11 + math.sqrt(E) * 2**-25 + 0 * largest
    if name == 'int8':
        return math.sqrt(E) * largest / 254
    basis, mean = codec.basis.double(), codec.mean.double()
    c = (x - mean) @ basis
    lost = (x - mean - c @ basis.T).norm(dim=1)
    if name == 'product':
        parts = c.unflatten(1, (codec.row_bytes, -1))
        apart = (parts[:, :, None] - codec.centroids[:, 1:].double()).norm(dim=-1)
        return lost + apart.amin(dim=2).norm(dim=1)
    # half an int8 step; fp16's rounding of the scale, which is subnormal below 6e-5
    return lost + math.sqrt(10) * (c.abs().amax(dim=1) * (1 / 254 + 2**-11) + 127 * 2**-25)


@pytest.mark.parametrize('name', NAMES)
@settings(max_examples=60, deadline=None)
@given(values=some_rows)
def test_round_trip_stays_within_the_bound(codecs, name, values):
    codec, values = codecs[name], torch.from_numpy(values)
    coded = codec.encode(values)
    assert coded.shape == (len(values), codec.row_bytes) and coded.dtype == torch.uint8
    decoded = codec.decode(coded)
    assert decoded.shape == values.shape and decoded.dtype == torch.float32
    scaled = values.double() / values.double().abs().amax(dim=1, keepdim=True).clamp(min=1e-50)
    x = F.normalize(scaled, dim=1)
    zero = (values == 0).all(dim=1)
    assert not decoded[zero].any()
    torch.testing.assert_close(decoded[~zero].norm(dim=1), torch.ones(int((~zero).sum())))
    error = (decoded.double() - x).norm(dim=1)
    bound = error_bounds(name, codec, x)
    # Normalised, a row within d < 1 of x is at most the angle arcsin d away.
    bound = torch.where(bound < 1, 2 * (bound.clamp(max=1).asin() / 2).sin(), 2)
    assert (error <= bound + 1e-5)[~zero].all()


@pytest.mark.parametrize('name', NAMES)
def test_length_is_not_kept_and_rows_are_independent(codecs, name):
    codec, x = codecs[name], unit(40, E, seed=3)
    coded = codec.encode(x)
    assert torch.equal(codec.encode(x * 7.5e4), coded)
    assert torch.equal(codec.encode(x.double()), coded)
    assert torch.equal(torch.cat([codec.encode(row[None]) for row in x]), coded)


@pytest.mark.parametrize('name', NAMES)
def test_blend_is_the_weighted_sum_of_decoded_rows(codecs, name):
    codec, x = codecs[name], unit(30, 4, E, seed=5)
    x[0, 1], x[1] = 0, 0
    weights = torch.rand(30, 4)
    coded = codec.encode(x.flatten(0, 1)).view(30, 4, -1)
    expected = (codec.decode(coded.flatten(0, 1)).view_as(x).double() * weights[:, :, None]).sum(1)
    torch.testing.assert_close(codec.blend(coded, weights).double(), expected, atol=1e-6, rtol=0)
    assert codec.blend(coded[:0], weights[:0]).shape == (0, E)


def test_row_bytes():
    rows = unit(70, 512)  # fewer than centroids
    sizes = [codec.row_bytes for codec in (
        Fp16Codec(512), Int8Codec(512), LinearCodec.fit(rows), LinearCodec.fit(rows, dims=66),
        ProductCodec.fit(rows, iterations=1))]
    assert sizes == [1024, 512, 66, 68, 64]


def test_pca_of_few_dimensions_is_exact_but_for_int8():
    rows = torch.randn(500, 6) @ torch.randn(6, E) + torch.randn(E)
    # Directions of a six-dimensional flat lie in seven dimensions, mean included.
    codec = LinearCodec.fit(rows, dims=7)
    assert codec.fitted['kept_variance'] == 1 and codec.fitted['num_rows'] == 500
    cosine = (codec.decode(codec.encode(rows)) * F.normalize(rows, dim=1)).sum(dim=1)
    assert cosine.min() > 0.9999
    worse = LinearCodec.fit(rows, dims=3)
    assert (worse.decode(worse.encode(rows)) * F.normalize(rows, dim=1)).sum(1).mean() < 0.999
    assert torch.equal(LinearCodec.fit(rows, dims=7).basis, codec.basis)


def test_mean_matters_and_is_kept():
    rows = unit(500, E) * 0.2 + torch.eye(E)[0]
    codec = LinearCodec.fit(rows, dims=2)
    torch.testing.assert_close(codec.mean, F.normalize(rows, dim=1).mean(dim=0))
    plain = LinearCodec(codec.basis)
    quality = [(c.decode(c.encode(rows)) * F.normalize(rows, dim=1)).sum(1).mean()
               for c in (codec, plain)]
    assert quality[0] > 0.97 and quality[1] < 0.5


def test_reducer_basis_keeps_what_a_reduced_model_is_trained_on():
    reducer = Reducer(0.1 * torch.randn(E, 8) + 0.3, dict(words='some'))
    codec = LinearCodec.from_reducer(reducer)
    rows = unit(200, E)
    target, kept = reducer.reduce(rows), reducer.reduce(codec.decode(codec.encode(rows)))
    assert (target * kept).sum(dim=1).min() > 0.999
    assert codec.fitted == dict(words='some', method='reducer')


def test_tiny_coefficients_do_not_overflow():
    codec = LinearCodec(torch.eye(E)[:, 1:3])
    row = torch.zeros(1, E)
    row[0, 0], row[0, 1] = 1, 2.**-125  # the basis sees the second value only
    assert codec.encode(row)[0, 2:].view(torch.int8).tolist() == [127, 0]
    assert not codec.decode(codec.encode(row)).any()  # fp16 has no such scale


def test_product_takes_the_nearest_centroids_and_is_seeded():
    rows = unit(800, E)
    codec = ProductCodec.fit(rows, num_parts=4, iterations=6, seed=1)
    assert codec.basis.shape == (E, 12) and codec.fitted['dims'] == 12
    same, other = (ProductCodec.fit(rows, num_parts=4, iterations=6, seed=s) for s in (1, 2))
    assert torch.equal(codec.centroids, same.centroids)
    assert not torch.equal(codec.centroids, other.centroids)
    parts = ((rows - codec.mean).double() @ codec.basis.double()).unflatten(1, (4, -1))
    expected = torch.stack([
        (part[:, None] - centroids.double()).square().sum(-1)[:, 1:].argmin(dim=1) + 1
        for part, centroids in zip(parts.unbind(1), codec.centroids)], dim=1)
    assert (codec.encode(rows) == expected).float().mean() > 0.999  # ties within rounding


def test_parts_have_alike_to_say_and_zeros_are_left_out_of_fits():
    variances = 2. ** -torch.arange(12, dtype=torch.float64)
    groups = balanced_order(variances, 4).view(4, 3)
    assert sorted(groups.flatten().tolist()) == list(range(12))
    products = variances[groups].log2().sum(dim=1)
    assert products.max() - products.min() <= 3  # of 24 bits if they came in order
    rows = unit(300, E)
    with_zeros = torch.cat([rows, torch.zeros(50, E)])
    for fit in (lambda rows: LinearCodec.fit(rows, dims=5),
                lambda rows: ProductCodec.fit(rows, num_parts=4, iterations=1)):
        first, second = fit(rows).state(), fit(with_zeros).state()
        assert all(torch.equal(second[key], value) for key, value in first.items())


def test_a_rotation_is_worth_more_than_precision():
    """Spectra as of trained networks: as many bytes say more by products than by int8."""
    spectrum = 1 / torch.arange(1, 97)
    rows = F.normalize(torch.randn(4000, 96) * spectrum.sqrt() @ torch.linalg.qr(
        torch.randn(96, 96))[0] + 0.5, dim=1)
    linear = LinearCodec.fit(rows[:3000], dims=14)
    product = ProductCodec.fit(rows[:3000], num_parts=16, part_dims=3, iterations=6)
    assert linear.row_bytes == product.row_bytes == 16
    linear, product = ((c.decode(c.encode(rows[3000:])) * rows[3000:]).sum(dim=1).mean()
                       for c in (linear, product))
    assert product > linear + 0.01


def test_k_means_finds_clusters_and_moves_idle_centroids():
    centres = 10 * torch.randn(8, 3)
    points = centres.repeat(50, 1) + 0.01 * torch.randn(400, 3)
    generator = torch.Generator().manual_seed(0)
    found = k_means(points, 8, 20, generator)
    assert (centres[:, None] - found).norm(dim=-1).amin(dim=1).max() < 0.1
    few = k_means(torch.eye(3), 255, 3, generator)
    assert few.shape == (255, 3) and torch.isfinite(few).all()
    assert nearest(torch.eye(3), few).shape == (3,)


@pytest.mark.parametrize('name', NAMES)
def test_files_and_configs(codecs, name, tmp_path):
    codec, path = codecs[name], tmp_path / 'codec.safetensors'
    save_codec(codec, path)
    kind = type(codec).__name__
    for loaded in (load_codec(path), build_codec(path), build_codec(dict(type=kind, file=path))):
        assert type(loaded) is type(codec) and loaded.fitted == codec.fitted
        rows = unit(20, E)
        assert torch.equal(loaded.encode(rows), codec.encode(rows))
    assert build_codec(codec) is codec
    first = path.read_bytes()
    save_codec(load_codec(path), path)
    assert path.read_bytes() == first
    with pytest.raises(ValueError, match=f'holds a {kind}, expected OtherCodec'):
        build_codec(dict(type='OtherCodec', file=path))
    for size in (0, 5, len(first) // 2):
        path.write_bytes(first[:size])
        with pytest.raises(ValueError, match='cannot read codec .*codec.safetensors'):
            load_codec(path)


def test_configs_without_files(tmp_path):
    assert build_codec(dict(type='Fp16Codec', embed_dims=8)).row_bytes == 16
    Reducer(torch.randn(16, 4)).save(tmp_path / 'reducer.safetensors')
    codec = build_codec(dict(type='LinearCodec', reducer=tmp_path / 'reducer.safetensors'))
    assert (codec.embed_dims, codec.row_bytes) == (16, 6)
    with pytest.raises(FileNotFoundError, match='codec .*none.safetensors does not exist'):
        build_codec(tmp_path / 'none.safetensors')
    with pytest.raises(ValueError, match='cannot read codec .*reducer.safetensors'):
        load_codec(tmp_path / 'reducer.safetensors')


@pytest.mark.parametrize('name', NAMES)
def test_bad_rows_are_named(codecs, name):
    codec = codecs[name]
    bad = unit(5, E)
    bad[3, 2] = math.nan
    with pytest.raises(ValueError, match=f'{type(codec).__name__}: row 3 of 5 .*not finite'):
        codec.encode(bad)
    with pytest.raises(ValueError, match=r'shape \(5, 23\), expected \(P, 24\)'):
        codec.encode(bad[:, 1:])
    with pytest.raises(ValueError, match=rf'uint8 \(2, 3\), expected uint8 \(P, {codec.row_bytes}'):
        codec.decode(torch.zeros(2, 3, dtype=torch.uint8))


@pytest.mark.parametrize('make, message', [
    (lambda: Fp16Codec(0), 'embed_dims is 0'),
    (lambda: LinearCodec(torch.ones(4, 5)), r'basis has shape \(4, 5\)'),
    (lambda: LinearCodec(torch.ones(4, 2)), 'not orthonormal'),
    (lambda: LinearCodec(torch.full((4, 2), math.nan)), 'not orthonormal'),
    (lambda: LinearCodec(torch.eye(4), torch.zeros(3)), r'mean has shape \(3,\)'),
    (lambda: LinearCodec.fit(torch.randn(9, 4), dims=5), r'dims is 5, expected 1 \.\.\. 4'),
    (lambda: LinearCodec.fit(torch.randn(0, 4), dims=2), 'no rows'),
    (lambda: ProductCodec.fit(torch.randn(9, 6), num_parts=7), r'num_parts is 7 .*1 \.\.\. 6'),
    (lambda: ProductCodec.fit(torch.randn(9, 6), part_dims=0, num_parts=2), 'part_dims 0'),
    (lambda: ProductCodec.fit(torch.randn(0, 6), num_parts=3), 'no rows'),
    (lambda: ProductCodec(torch.zeros(3, 16, 2), torch.eye(6)), r'centroids have shape \(3, 16, 2'),
    (lambda: ProductCodec(torch.zeros(3, 256, 2), torch.eye(7)), r'the basis \(7, 7\)'),
    (lambda: ProductCodec(torch.ones(3, 256, 2), torch.eye(6)), 'the first of each part zero'),
])
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
