"""Feature stores: what is written is read, at pixels too; damage and mix-ups are named."""
import ctypes
import json
import mmap
import os
import pickle
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from safetensors import safe_open
from safetensors.numpy import load_file
from test_teach_vocabulary import RandomText

from langocc.feature_store import (
    DamagedStoreError, FeatureStore, FeatureWriter, Fp16Codec, Int8Codec, LinearCodec, ProductCodec,
    StoreTeacher, finish_store, projected_bytes
)
from langocc.teachers import sample_map

E, SIZE, IMAGE = 16, (5, 9), (90, 50)
DESCRIPTION = dict(teacher='SomeTeacher', weights_sha256='ab12', input_size=(80, 144),
                   options=dict(smoothing=True))


def unit_map(seed, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(E, *size, generator=generator), dim=0)


def write(root, tokens, codec=None, description=DESCRIPTION, size=SIZE, **kwargs):
    with FeatureWriter(root, codec or Int8Codec(E), description, **kwargs) as writer:
        for token in tokens:
            writer.write(token, unit_map(int(token[1:]), size))
    return root


@pytest.fixture
def root(tmp_path):
    """Ten items in parts of four, four and two."""
    return write(tmp_path / 'store', [f't{i}' for i in range(10)], part_bytes=4 * 45 * E)


def parts(root):
    return sorted((root / 'parts').iterdir())


CODECS = dict(
    fp16=lambda rows: Fp16Codec(E), int8=lambda rows: Int8Codec(E),
    linear=lambda rows: LinearCodec.fit(rows, dims=7),
    product=lambda rows: ProductCodec.fit(rows, num_parts=4, iterations=2))


@pytest.mark.parametrize('name', CODECS)
@pytest.mark.parametrize('parity', [False, True])
def test_pixels_are_those_of_the_decoded_map(name, parity, tmp_path):
    maps = {f't{i}': unit_map(i) for i in range(3)}
    maps['t1'][:, 2:4, 3:6] = 0
    codec = CODECS[name](torch.cat([value.flatten(1).T for value in maps.values()]))
    with FeatureWriter(tmp_path, codec, DESCRIPTION) as writer:
        for token, value in maps.items():
            writer.write(token, value)
    store = FeatureStore(tmp_path, verify='items')
    pixels = torch.rand(300, 2, dtype=torch.float64) * torch.tensor(IMAGE) - 0.5
    pixels[:2] = torch.tensor([[-0.5, -0.5], [89.5, 49.5]])
    for token, value in maps.items():
        decoded = store.map(token)
        assert decoded.shape == value.shape and decoded.dtype == torch.float32
        rows = value.flatten(1).T
        assert torch.equal(decoded.flatten(1).T, codec.decode(codec.encode(rows)))
        sampled = sample_map(decoded.numpy(), pixels.numpy(), IMAGE, parity)
        out = store.sample(token, pixels, IMAGE, parity)
        # Float32 sums in another order.
        torch.testing.assert_close(out, F.normalize(torch.from_numpy(sampled), dim=1), atol=2e-6,
                                   rtol=0)
        assert out.dtype == torch.float32
    assert store.sample('t1', pixels[:0], IMAGE).shape == (0, E)
    assert not store.sample('t1', torch.tensor([[45., 25.]]), IMAGE).any()


def test_what_a_store_says(root):
    store = FeatureStore(root)
    assert len(store) == 10 and 't3' in store and 't33' not in store and '' not in store
    assert store.tokens == sorted(f't{i}' for i in range(10))
    assert store.map_size('t3') == SIZE and store.embed_dims == E
    assert store.manifest.description == json.loads(json.dumps(DESCRIPTION))
    assert store.manifest.codec['type'] == 'Int8Codec' and store.manifest.code_version
    with pytest.raises(KeyError, match=r"no item 't33' among its 10"):
        store.sample('t33', torch.zeros(1, 2), IMAGE)
    with pytest.raises(ValueError, match='outside the image of 90 x 50'):
        store.sample('t3', torch.tensor([[90., 0.]]), IMAGE)


def test_a_part_is_plain_safetensors(root):
    tensors = load_file(parts(root)[0])
    assert set(tensors) == {'t0', 't1', 't2', 't3'}
    assert np.array_equal(tensors['t2'], FeatureStore(root).rows('t2'))
    with safe_open(parts(root)[0], framework='np') as file:
        assert list(file.metadata()) == ['langocc_feature_part']
    assert sorted(path.name for path in root.iterdir() if 'codec' not in path.name) == [
        'manifest.json', 'parts']


def test_only_the_cells_around_the_pixels_are_decoded(root, monkeypatch):
    store, decoded = FeatureStore(root), []
    decode = Int8Codec._decode
    monkeypatch.setattr(Int8Codec, '_decode',
                        lambda self, rows: decoded.append(len(rows)) or decode(self, rows))
    store.sample('t2', torch.tensor([[10., 10.], [80., 40.], [33., 7.]]), IMAGE)
    assert decoded == [12]


def resident_pages(path):
    """Pages of a file that lie in memory."""
    with open(path, 'rb') as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    count = -(-len(mapped) // mmap.PAGESIZE)
    flags = (ctypes.c_ubyte * count)()
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), flags) == 0
    return sum(flag & 1 for flag in flags)


@pytest.mark.skipif(not hasattr(mmap, 'MADV_WILLNEED'), reason='the system takes no advice')
def test_the_rest_of_a_frame_stays_on_disk(tmp_path):
    write(tmp_path, ['t1', 't2'], size=(200, 300))  # 0.96 MB each
    path, = parts(tmp_path)
    with open(path, 'rb') as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident_pages(path) > 8:
        pytest.skip('this file system does not let go of its pages')
    store = FeatureStore(tmp_path)
    store.sample('t2', torch.tensor([[10., 10.], [80., 40.]]), IMAGE)
    # The header, and around each pixel two rows of cells 4,800 bytes apart.
    assert 3 <= resident_pages(path) <= 24
    store.map('t2')
    assert resident_pages(path) > 200


def test_maps_of_any_size_type_and_token(tmp_path):
    with FeatureWriter(tmp_path, Int8Codec(E), DESCRIPTION) as writer:
        writer.write('a/b ä "c"', unit_map(1, (1, 1)).numpy())
        writer.write('x' * 100, unit_map(2, (3, 20)).double())
        writer.write('half', unit_map(3).half() * 100)
        assert len(writer) == 3 and 'half' in writer and 'other' not in writer
    store = FeatureStore(tmp_path, verify='items')
    assert store.map_size('a/b ä "c"') == (1, 1) and store.map_size('x' * 100) == (3, 20)
    for token, seed, size in (('a/b ä "c"', 1, (1, 1)), ('x' * 100, 2, (3, 20)), ('half', 3, SIZE)):
        assert (store.map(token) * unit_map(seed, size)).sum(dim=0).min() > 0.999
    assert 'x' * 99 not in store and 'x' * 101 not in store


def test_an_empty_store(tmp_path):
    with pytest.raises(FileNotFoundError, match='no feature store at .*none'):
        FeatureStore(tmp_path / 'none')
    store = FeatureStore(write(tmp_path, []), verify='items')
    assert len(store) == 0 and store.tokens == [] and 't1' not in store and store.file_bytes == 0


def test_size_is_as_projected(tmp_path):
    tokens = [f't{i:031d}' for i in range(40)]
    codec = LinearCodec.fit(unit_map(0).flatten(1).T, dims=8)
    store = FeatureStore(write(tmp_path, tokens, codec, size=(28, 50)))
    projected = store.projected_bytes(40, (28, 50))
    assert projected == projected_bytes(codec, 40, (28, 50))
    assert abs(store.file_bytes - projected) < 0.005 * projected


@pytest.mark.parametrize('settings, message', [
    (dict(codec=Fp16Codec(E)), "codec.type is 'Int8Codec', here 'Fp16Codec'"),
    (dict(codec=Int8Codec(E + 1)), 'codec.embed_dims is 16, here 17'),
    (dict(description=dict(DESCRIPTION, weights_sha256='cd34')),
     "otherwise: description.weights_sha256 is 'ab12', here 'cd34'$"),
    (dict(description=dict(DESCRIPTION, options=dict(smoothing=False))),
     'description.options.smoothing is True, here False'),
    (dict(description=dict(DESCRIPTION, more=1)), 'description.more is None, here 1'),
])
def test_another_teacher_or_codec_is_refused(root, settings, message):
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    with pytest.raises(ValueError, match=message):
        write(root, ['t77'], **settings)
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_another_fit_of_the_codec_is_refused(tmp_path):
    first, second = (LinearCodec.fit(unit_map(seed).flatten(1).T, dims=3) for seed in (0, 1))
    write(tmp_path, ['t1'], first)
    write(tmp_path, ['t2'], LinearCodec(first.basis, first.mean, dict(fitted_on='elsewhere')))
    with pytest.raises(ValueError, match='codec.state_sha256 is'):
        write(tmp_path, ['t3'], second)
    with pytest.raises(ValueError, match="codec.type is 'LinearCodec', here 'Int8Codec'"):
        FeatureStore(tmp_path, expected=dict(codec=dict(type='Int8Codec')))


def test_another_code_version_is_refused(root, monkeypatch):
    monkeypatch.setattr('langocc.__version__', '9.9')
    assert len(FeatureStore(root)) == 10
    with pytest.raises(ValueError, match="code_version is '.*', here '9.9'"):
        write(root, ['t77'])


@pytest.mark.parametrize('description, message', [
    (dict(teacher='x', input_size=None), r"lacks \['weights_sha256'\]"),
    (dict(DESCRIPTION, weights_sha256=b'ab'), 'not JSON serializable'),
    (dict(DESCRIPTION, input_size=float('nan')), 'JSON'),
])
def test_bad_descriptions_are_named(tmp_path, description, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, [], description=description)
    assert not list(tmp_path.iterdir())


def test_bad_items_are_named(tmp_path):
    with FeatureWriter(tmp_path, Int8Codec(E), DESCRIPTION) as writer:
        writer.write('t1', unit_map(1))
        bad = unit_map(2)
        bad[3, 4, 5] = float('inf')
        for token, value, message in [
                ('t1', bad, "has item 't1' already"),
                ('t2', bad, 'item t2: Int8Codec: row 41 of 45 has values that are not finite'),
                ('t2', bad[:5], r'item t2: map has shape \(5, 5, 9\), expected \(16, h, w\)'),
                ('t2', bad[:, :0], r'item t2: map has shape \(16, 0, 9\)'),
                ('', bad, "token ''"), ('__metadata__', bad, 'token'), ('a\0', bad, 'token')]:
            with pytest.raises(ValueError, match=message):
                writer.write(token, value)
        writer.write('t2', unit_map(2))
    assert FeatureStore(tmp_path).tokens == ['t1', 't2']
    with pytest.raises(ValueError, match='closed'):
        writer.write('t3', unit_map(3))
    for settings in (dict(rank=-1), dict(rank=100_000), dict(part_bytes=0)):
        with pytest.raises(ValueError, match=f'{next(iter(settings))} is'):
            FeatureWriter(tmp_path, Int8Codec(E), DESCRIPTION, **settings)
    for settings in (dict(verify='all'), dict(open_parts=0)):
        with pytest.raises(ValueError, match=f'{next(iter(settings))} is'):
            FeatureStore(tmp_path, **settings)


def test_every_truncation_is_found_and_the_item_named(root):
    path = parts(root)[1]
    content = path.read_bytes()
    tensors = {token: value.nbytes for token, value in load_file(path).items()}
    start = len(content) - sum(tensors.values())
    for size in [0, 1, 7, 8, 9, start // 2, start - 1, *range(start, len(content), 97),
                 len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(DamagedStoreError, match=re.escape(str(path))) as caught:
            FeatureStore(root)
        if size >= start:
            first = sorted(tensors)[(size - start) // (45 * E)]
            assert f'cut short: item {first} ends' in str(caught.value)
        else:
            assert 'cut short' in str(caught.value)
    path.write_bytes(content + b'x')
    with pytest.raises(DamagedStoreError, match=f'has {len(content) + 1} bytes, expected'):
        FeatureStore(root)
    path.write_bytes(content)
    FeatureStore(root, verify='items')


def test_every_flipped_byte_is_found(root):
    path = parts(root)[1]
    content = path.read_bytes()
    start = len(content) - sum(value.nbytes for value in load_file(path).values())
    rng = np.random.default_rng(0)
    places = [*range(start), *rng.integers(start, len(content), 40)]
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        with pytest.raises(DamagedStoreError) as caught:
            FeatureStore(root, verify='items')
            pytest.fail(f'byte {place}: {content[place - 9:place + 9]}, {altered[place]:x}')
        assert str(path) in str(caught.value)
        if place >= start:
            token = sorted(load_file(path))[(place - start) // (45 * E)]
            assert f'1 of 10 items are altered: item {token} in {path}' in str(caught.value)
            assert list(FeatureStore(root).damaged_items()) == [token]
    path.write_bytes(content)
    FeatureStore(root, verify='items')


def test_a_damaged_part_is_deleted_and_only_its_items_are_made_anew(root):
    digest = FeatureStore(root).digest()
    parts(root)[1].unlink()
    store = FeatureStore(root)
    assert len(store) == 6 and store.digest() != digest
    with FeatureWriter(root, Int8Codec(E), DESCRIPTION) as writer:
        missing = [f't{i}' for i in range(10) if f't{i}' not in writer]
        assert missing == ['t4', 't5', 't6', 't7']
        for token in missing:
            writer.write(token, unit_map(int(token[1:])))
    assert FeatureStore(root, verify='items').digest() == digest


def test_altered_manifests_and_codecs_are_found(root, tmp_path):
    manifest = root / 'manifest.json'
    text = manifest.read_text()
    for wrong, message in [
            (text.replace('ab12', 'ab13'), 'was altered'), (text[:50], 'is no JSON'),
            (text.replace('"version": 1', '"version": 2'), "expected .*'langocc-feature-store', 1"),
            ('[]', 'format and version'), (text.replace('"codec":', '"codex":'), 'lacks the key')]:
        manifest.write_text(wrong)
        with pytest.raises(DamagedStoreError, match=f'manifest.json.*{message}'):
            FeatureStore(root)
    manifest.write_text(text)
    codec, = root.glob('codec-*')
    content = codec.read_bytes()
    codec.write_bytes(content.replace(b'Int8Codec', b'Fp16Codec'))
    with pytest.raises(DamagedStoreError, match='codec-.* was altered'):
        FeatureStore(root)
    codec.unlink()
    with pytest.raises(DamagedStoreError, match='codec-.* does not exist'):
        FeatureStore(root)
    with pytest.raises(DamagedStoreError, match='codec-.* does not exist'):
        write(root, ['t77'])


def test_parts_of_another_store_are_refused(root, tmp_path):
    other = write(tmp_path / 'other', ['t50'], description=dict(DESCRIPTION, teacher='Other'))
    foreign, = parts(other)
    foreign.rename(root / 'parts' / 'rank-00009-000000.safetensors')
    with pytest.raises(DamagedStoreError, match='rank-00009-000000.safetensors belongs to store'):
        FeatureStore(root)


def test_the_same_item_twice_is_fine_and_two_values_are_not(root):
    digest, size = FeatureStore(root).digest(), len(FeatureStore(root))
    with FeatureWriter(root, Int8Codec(E), DESCRIPTION, rank=3) as writer:
        writer._known.clear()
        writer.write('t5', unit_map(5))
    store = FeatureStore(root, verify='items')
    assert (store.digest(), len(store)) == (digest, size)
    with FeatureWriter(root, Int8Codec(E), DESCRIPTION, rank=4) as writer:
        writer._known.clear()
        writer.write('t5', unit_map(6))
    with pytest.raises(DamagedStoreError, match='item t5 lies with different values in .*rank'):
        FeatureStore(root)


def test_a_store_goes_to_other_processes(root):
    store = FeatureStore(root, open_parts=1)
    pixels = torch.rand(9, 2) * 40
    expected = {token: store.sample(token, pixels, IMAGE) for token in store.tokens}
    copy = pickle.loads(pickle.dumps(store))
    assert copy.digest() == store.digest()
    for token, value in expected.items():  # one file open at a time
        assert torch.equal(copy.sample(token, pixels, IMAGE), value)


def test_digest_does_not_depend_on_parts_and_ranks(root, tmp_path):
    other = tmp_path / 'other'
    for rank in (2, 0, 1):
        write(other, [f't{i}' for i in reversed(range(rank, 10, 3))], rank=rank)
    assert FeatureStore(other).digest() == FeatureStore(root).digest()
    write(other, ['t10'])
    assert FeatureStore(other).digest() != FeatureStore(root).digest()


def test_items_of_failed_writers_are_there_and_can_be_finished(tmp_path):
    with pytest.raises(RuntimeError):
        with FeatureWriter(tmp_path, Int8Codec(E), DESCRIPTION, rank=5) as writer:
            for i in range(3):
                writer.write(f't{i}', unit_map(i))
            raise RuntimeError
    store = FeatureStore(tmp_path, verify='items')
    assert len(store) == 3 and (store.map('t1') * unit_map(1)).sum(dim=0).min() > 0.999
    finish_store(tmp_path)
    assert [path.name for path in parts(tmp_path)] == ['rank-00005-000000.safetensors']
    assert not (tmp_path / 'pending').exists()
    assert FeatureStore(tmp_path, verify='items').digest() == store.digest()
    store = pickle.loads(pickle.dumps(store))
    with pytest.raises(FileNotFoundError, match='must be opened anew'):
        store.map('t1')


INFO = dict(token='frame', images=dict(CAM=dict(
    sample_data_token='t4', width=IMAGE[0], height=IMAGE[1], img_path='x.jpg')))


def test_teacher(root):
    plain = TASK_UTILS.build(dict(type='StoreTeacher', root=str(root)))
    pixels = torch.rand(20, 2) * 40
    feats = plain.features(INFO, 'CAM', pixels)
    assert torch.equal(feats, FeatureStore(root).sample('t4', pixels, IMAGE))
    assert plain.embed_dims == E and plain.classes(INFO, 'CAM', pixels) is None
    names = ('road', 'car', 'sky')
    teacher = StoreTeacher(root, RandomText(), names, dynamic_classes=['car'], sky_classes=['sky'],
                           parity_half_pixel=True, verify='items',
                           expected=dict(description=dict(teacher='SomeTeacher')))
    expected = (teacher.features(INFO, 'CAM', pixels) @ RandomText().encode(names).T).argmax(dim=1)
    assert torch.equal(teacher.classes(INFO, 'CAM', pixels), expected)
    assert not torch.equal(teacher.features(INFO, 'CAM', pixels), feats)
    assert teacher.is_dynamic(torch.tensor([0, 1, 2])).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="description.teacher is 'SomeTeacher', here 'Other'"):
        StoreTeacher(root, expected=dict(description=dict(teacher='Other')))
    with pytest.raises(KeyError, match='no camera'):
        plain.features(INFO, 'BACK', pixels)
