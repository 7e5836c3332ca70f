"""Extraction: what is written, resuming after kills, several ranks, broken images, projections."""
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import torch
from nusc_factory import CAMERAS, IMAGE_SIZE
from tiny_teachers import TinyDenseTeacher

from langocc.apis.extraction import ExtractionOptions, extract_features, rank_of
from langocc.apis.extraction_codecs import CodecRequest, prepare_codec, sample_rows
from langocc.apis.extraction_images import (
    DenseMaps, ImageItem, SampledMaps, build_map_source, cell_centres, make_batches, read_images
)
from langocc.apis.extraction_pipeline import BackgroundWriter, compute_batches
from langocc.apis.extraction_progress import Projection, duration
from langocc.feature_store import FeatureStore, FeatureWriter, Fp16Codec
from langocc.teachers import Teacher
from langocc.teachers.dense_teacher import read_image

FP16 = CodecRequest('fp16')
OPTIONS = ExtractionOptions(batch_size=4, workers=2, measured_batches=1)
KILLS = 20


@pytest.fixture
def images(tiny_root):
    return read_images([tiny_root / 'tiny_infos_all.json'], tiny_root)


@pytest.fixture
def source():
    return DenseMaps(TinyDenseTeacher())


def files_of(root):
    """Every file of a store and its bytes."""
    return {str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob('*')) if path.is_file()}


def in_child(function):
    """Starts ``function`` in a forked process, which has imported everything already."""
    def run():
        torch.set_num_threads(1)
        function()
    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    return process


class SlowMaps(DenseMaps):
    """Gives a kill time to hit, and counts its calls in a semaphore."""

    def __init__(self, teacher, calls=None):
        super().__init__(teacher)
        self.calls = calls

    def maps(self, batch, contents):
        if self.calls is not None:
            self.calls.release()
        time.sleep(0.01)
        return super().maps(batch, contents)


@pytest.mark.parametrize('codec, error', [('fp16', 1e-3), ('int8', 1e-2), ('pca6-int8', 1e-2)])
def test_every_image_is_written_as_the_teacher_sees_it(codec, error, images, source, tmp_path):
    report = extract_features(source, images, tmp_path / 'store', CodecRequest(codec),
                              options=OPTIONS)
    assert (report.images, report.present, report.broken) == (len(images), 0, [])
    assert 0 < report.teacher_share < 1 and report.images_per_second > 0
    store = FeatureStore(tmp_path / 'store', verify='items')
    assert store.tokens == sorted(item.token for item in images)
    for item in images[::7]:
        expected = source.teacher.maps(read_image(item.path)[None])[0]
        assert torch.allclose(store.map(item.token), expected, atol=error)
    size = sum(path.stat().st_size for path in (tmp_path / 'store' / 'parts').iterdir())
    assert size == pytest.approx(report.projected_bytes, rel=0.2)


def test_a_second_run_finds_nothing_to_do(images, source, tmp_path):
    extract_features(source, images, tmp_path / 'store', FP16, options=OPTIONS)
    before = files_of(tmp_path / 'store')
    lines, source.maps = [], None  # a call would fail
    report = extract_features(source, images, tmp_path / 'store', FP16, options=OPTIONS,
                              say=lines.append)
    assert (report.images, report.present) == (0, len(images))
    assert files_of(tmp_path / 'store') == before
    assert f'{len(images)} of them are there' in lines[0]


@pytest.mark.parametrize('codec', ['int8', 'pca3-int8'])
def test_killed_at_random_and_resumed_gives_the_same_bytes(codec, images, tmp_path):
    """SIGKILL at 20 random moments, the first ones while the codec is fitted."""
    request = CodecRequest(codec, num_images=3)
    options = ExtractionOptions(batch_size=1, workers=2, measured_batches=1)
    calls = multiprocessing.get_context('fork').Semaphore(0)
    images = [ImageItem(f'{item.token}-{turn}', item.camera, item.record)
              for turn in range(1 + 200 // len(images)) for item in images]

    def extract(root):
        extract_features(SlowMaps(TinyDenseTeacher(), calls), images, root, request,
                         options=options)

    def extract_whole(root):
        child = in_child(lambda: extract(root))
        child.join()
        assert child.exitcode == 0

    extract_whole(tmp_path / 'clean')
    rng, counts = np.random.default_rng(0), set()
    for _ in range(KILLS):
        while calls.acquire(block=False):
            pass
        child = in_child(lambda: extract(tmp_path / 'killed'))
        for _ in range(rng.integers(1, 10)):
            assert calls.acquire(timeout=60)  # a kill shall hit a run at work
        time.sleep(rng.uniform(0, 0.012))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        with_store = (tmp_path / 'killed' / 'manifest.json').exists()
        counts.add(len(FeatureStore(tmp_path / 'killed')) if with_store else 0)
    assert len(counts) > KILLS // 4 and max(counts) < len(images)  # at various places
    extract_whole(tmp_path / 'killed')
    assert files_of(tmp_path / 'killed') == files_of(tmp_path / 'clean')
    FeatureStore(tmp_path / 'killed', verify='items')


class CompanyMaps(DenseMaps):
    """What an image gets depends on its batch, as the last bits of real networks' sums do."""

    def maps(self, batch, contents):
        maps = super().maps(batch, contents)
        return maps + maps.mean(dim=0)


def test_a_resumed_batch_is_computed_with_all_its_images(images, tmp_path):
    source = CompanyMaps(TinyDenseTeacher())
    extract_features(source, images, tmp_path / 'clean', FP16, options=OPTIONS)
    clean = FeatureStore(tmp_path / 'clean')
    there = [images[0], images[5]]
    for item in there:
        with FeatureWriter(tmp_path / 'begun', clean.codec, source.describe()) as writer:
            writer.write(item.token, clean.map(item.token))
    report = extract_features(source, images, tmp_path / 'begun', FP16, options=OPTIONS)
    assert (report.images, report.present) == (len(images) - 2, 2)
    begun = FeatureStore(tmp_path / 'begun')
    for item in images:
        if item not in there:
            assert torch.equal(begun.map(item.token), clean.map(item.token))


def test_two_ranks_at_once_lose_nothing(images, tmp_path):
    request = CodecRequest('pca3-int8', num_images=3)

    def extract(rank, world, root):
        return in_child(lambda: extract_features(
            SlowMaps(TinyDenseTeacher()), images, root, request, rank, world, OPTIONS))

    ranks = [extract(rank, 2, tmp_path / 'two') for rank in (1, 0)]
    ranks.append(extract(0, 1, tmp_path / 'one'))
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    two, one = (FeatureStore(tmp_path / name, verify='items') for name in ('two', 'one'))
    assert len(two) == len(images) and two.digest() == one.digest()


def test_another_number_of_ranks_goes_on(images, source, tmp_path):
    extract_features(source, images, tmp_path / 'store', FP16, 2, 3, OPTIONS)
    assert 0 < len(FeatureStore(tmp_path / 'store')) < len(images)
    for rank in range(2):
        extract_features(source, images, tmp_path / 'store', FP16, rank, 2, OPTIONS)
    extract_features(source, images, tmp_path / 'clean', FP16, options=OPTIONS)
    stores = [FeatureStore(tmp_path / name) for name in ('store', 'clean')]
    assert stores[0].digest() == stores[1].digest()


def test_what_a_dead_rank_left_becomes_part_of_a_whole_store(images, source, tmp_path):
    beyond = [ImageItem('beyond', item.camera, item.record) for item in images[:1]]
    extract_features(source, images[:4] + beyond, tmp_path, FP16, options=OPTIONS)
    writer = FeatureWriter(tmp_path, Fp16Codec(embed_dims=6), source.describe(), rank=7)
    with pytest.raises(KeyboardInterrupt), writer:
        writer.write(images[5].token, source.maps([images[5]], [source.read(images[5])])[0])
        raise KeyboardInterrupt
    assert (tmp_path / 'pending').exists()
    extract_features(source, images, tmp_path, FP16, options=OPTIONS)
    assert not (tmp_path / 'pending').exists()
    assert len(FeatureStore(tmp_path, verify='items')) == len(images) + 1


def test_broken_images_are_named_and_the_others_written(images, source, tmp_path):
    with open(images[3].path, 'r+b') as file:
        file.truncate(200)
    os.remove(images[9].path)
    report = extract_features(source, images, tmp_path / 'store', FP16, options=OPTIONS)
    assert len(report.broken) == 2 and report.images == len(images) - 2
    for item in (images[3], images[9]):
        assert any(item.token in line and item.path in line for line in report.broken)
    store = FeatureStore(tmp_path / 'store')
    assert set(store.tokens) == {item.token for item in images} - {images[3].token, images[9].token}
    few = ExtractionOptions(batch_size=4, max_broken=1)
    with pytest.raises(ValueError, match='2 images cannot be read, given up.*' + images[9].token):
        extract_features(source, images, tmp_path / 'other', FP16, options=few)


def test_an_image_of_another_size_than_its_info_is_broken(images, source, tmp_path):
    images[0].record['width'] += 5
    report = extract_features(source, images[:2], tmp_path / 'store', FP16, options=OPTIONS)
    assert 'its info says' in report.broken[0] and report.images == 1


def test_dry_run_projects_and_writes_nothing(images, source, tmp_path):
    lines = []
    report = extract_features(source, images, tmp_path / 'store', CodecRequest('pca3-int8'),
                              options=OPTIONS, dry_run=True, say=lines.append)
    assert not (tmp_path / 'store').exists()
    height, width = source.map_size(images[0])
    cells = len(images) * height * width * 5  # three dimensions and a scale
    assert cells < report.projected_bytes < 1.5 * cells + 2000 * len(images)
    assert f'{len(images)} images x' in lines[-1] and '5 bytes a vector' in lines[-1]


def test_a_full_disk_is_told_before_it_is_full(tmp_path):
    projection = Projection(10**9, 10**9, 10**18, 64, (28, 50), 0.1, 0.9, 8)
    with pytest.raises(OSError, match='1e.06 TB are still to be written'):
        projection.check_space(tmp_path, 10**9)
    projection.check_space(tmp_path, 0)


def test_nothing_is_computed_for_a_full_disk(images, source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(OSError, match='0 bytes are free'):
        extract_features(source, images, tmp_path / 'store', FP16, options=OPTIONS)
    assert len(FeatureStore(tmp_path / 'store')) == 0


def test_the_codec_of_a_store_stays(images, source, tmp_path):
    request = CodecRequest('pca3-int8', num_images=3)
    extract_features(source, images[:4], tmp_path, request, options=OPTIONS)
    with pytest.raises(ValueError, match='pca3-int8, not by pca2-int8'):
        extract_features(source, images, tmp_path, CodecRequest('pca2-int8'), options=OPTIONS)
    with pytest.raises(ValueError, match='made otherwise'):
        extract_features(source, images, tmp_path, FP16, options=OPTIONS)
    with pytest.raises(ValueError, match='made otherwise.*weights_sha256'):
        extract_features(DenseMaps(TinyDenseTeacher(seed=1)), images, tmp_path, request,
                         options=OPTIONS)


def test_ranks_wait_for_the_codec(images, source, tmp_path):
    request = CodecRequest('pca3-int8', num_images=3)
    with pytest.raises(TimeoutError, match='rank 0 began no feature store'):
        prepare_codec(request, source, images, tmp_path, rank=1, wait_seconds=0)
    later = threading.Timer(0.3, extract_features,
                            (source, images[:1], tmp_path, request, 0, 1, OPTIONS))
    later.start()
    codec = prepare_codec(request, source, images, tmp_path, rank=1, wait_seconds=30)
    later.join()
    assert codec.row_bytes == 5 and codec.fitted['num_images'] == 3


def test_codec_samples_are_drawn_by_the_seed(images, source):
    request = CodecRequest('pca3-int8', num_images=4, rows_per_image=5)
    rows = sample_rows(source, images, request, 2, 1)
    assert rows.shape == (20, 6)
    assert torch.equal(rows, sample_rows(source, images, request, 2, 1))
    for count in (4, len(images)):  # other images; and of all images, other cells
        rows, other = (sample_rows(source, images, CodecRequest('pca3-int8', None, count, 5, seed),
                                   2, 1) for seed in (0, 1))
        assert not torch.equal(rows, other)


@pytest.mark.parametrize('settings, message', [
    (dict(name='pca0-int8'), 'is not known'), (dict(name='fp8'), 'is not known'),
    (dict(name='reducer'), 'only go together'), (dict(name='pq', reducer='x'), 'only go together'),
    (dict(num_images=0), 'num_images is 0')])
def test_bad_requests(settings, message):
    with pytest.raises(ValueError, match=message):
        CodecRequest(**settings)


def test_ranks_of_launchers():
    assert rank_of({}) == (0, 1)
    assert rank_of(dict(RANK='1', WORLD_SIZE='4', SLURM_PROCID='0', SLURM_NTASKS='2')) == (1, 4)
    assert rank_of(dict(SLURM_PROCID='2', SLURM_NTASKS='8')) == (2, 8)
    assert rank_of(dict(SLURM_PROCID='0', SLURM_NTASKS='8', SLURM_STEP_NUM_TASKS='1')) == (0, 1)
    for wrong in (dict(RANK='1'), dict(RANK='4', WORLD_SIZE='4'), dict(RANK='x', WORLD_SIZE='4')):
        with pytest.raises(ValueError, match='RANK'):
            rank_of(wrong)


def test_images_of_infos(tiny_root, images):
    path = tiny_root / 'tiny_infos_all.json'
    infos = json.loads(path.read_text())['data_list']
    assert len(images) == len(infos) * len(CAMERAS)
    assert read_images([path, path], tiny_root) == images  # each once
    front = read_images([path], tiny_root, ['CAM_FRONT'])
    assert {item.camera for item in front} == {'CAM_FRONT'} and len(front) == len(infos)
    assert images[0].size == tuple(IMAGE_SIZE) and os.path.isfile(images[0].path)


def test_bad_infos(tiny_root, tmp_path):
    path = tiny_root / 'tiny_infos_all.json'
    with pytest.raises(FileNotFoundError, match='infos .*none.json does not exist'):
        read_images([tmp_path / 'none.json'], tiny_root)
    with pytest.raises(ValueError, match='has no camera CAM_TOP; it has'):
        read_images([path], tiny_root, ['CAM_TOP'])
    content = json.loads(path.read_text())
    camera, record = next(iter(content['data_list'][0]['images'].items()))
    del record['height']
    broken = tmp_path / 'broken.json'
    broken.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{camera} lacks \['height'\]"):
        read_images([broken], tiny_root)
    record['height'] = 45
    other = content['data_list'][1]['images'][camera]
    other['sample_data_token'] = record['sample_data_token']
    broken.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'{other["sample_data_token"]} of {camera} stands for'):
        read_images([broken], tiny_root)
    broken.write_text('[]')
    with pytest.raises(ValueError, match="no list 'data_list'"):
        read_images([broken], tiny_root)
    broken.write_text('{')
    with pytest.raises(ValueError, match='is not valid JSON'):
        read_images([broken], tiny_root)


def test_batches_hold_one_size(images):
    for item in images[::5]:
        item.record['height'] = 7
    batches = make_batches(images, 4)
    assert all(len({item.size for item in batch}) == 1 and len(batch) <= 4 for batch in batches)
    assert sorted(item.token for batch in batches for item in batch) == sorted(
        item.token for item in images)
    with pytest.raises(ValueError, match='batch_size is 0'):
        make_batches(images, 0)


def test_batches_come_in_order_and_are_timed(images, source):
    batches = make_batches(images[:10], 3)
    computed = list(compute_batches(SlowMaps(source.teacher), batches, workers=3))
    assert [batch.images for batch in computed] == batches
    assert all(0.01 <= batch.teacher_seconds <= batch.seconds for batch in computed)


class PixelTeacher(Teacher):
    """Features tell the pixel they were asked at."""
    embed_dims = 2

    def features(self, info, camera, pixels):
        assert info['images'][camera]['sample_data_token']
        return pixels.float()


def test_teachers_that_answer_at_pixels_are_read_at_cell_centres(images):
    source = SampledMaps(PixelTeacher(), (2, 4), dict(teacher='PixelTeacher'))
    height, width = images[0].size
    maps = source.maps(images[:1], [None])
    assert maps.shape == (1, 2, 2, 4)
    assert torch.equal(maps[0, 0, 1], (torch.arange(4) + 0.5) * width / 4 - 0.5)
    assert torch.equal(maps[0, 1, :, 3], (torch.arange(2) + 0.5) * height / 2 - 0.5)
    assert cell_centres((1, 1), (3, 5)).tolist() == [[2., 1.]]


def test_sources_by_config(stand_in_root):
    teacher = dict(type='ProbabilityTeacher', root=stand_in_root / 'teacher_probs',
                   text_encoder=dict(type='TextEmbeddings',
                                     files=str(stand_in_root / 'text_embeds/clip_vit_b16.npz')))
    source = build_map_source(teacher, (28, 50))
    assert source.describe()['map_size'] == [28, 50] and source.embed_dims == 512
    json.dumps(source.describe())
    with pytest.raises(ValueError, match='ProbabilityTeacher answers at pixels'):
        build_map_source(teacher)
    with pytest.raises(ValueError, match='makes maps of its own size'):
        build_map_source(dict(type='TinyDenseTeacher'), (28, 50))


def test_errors_of_the_background_come_to_the_front():
    def fail(value):
        raise OSError(f'no space for {value}')
    with pytest.raises(OSError, match='no space for 1'):
        with BackgroundWriter(fail) as writer:
            for value in range(1, 100):
                writer.put(value)
    done = []
    with pytest.raises(KeyError):
        with BackgroundWriter(lambda value: done.append(value) or time.sleep(0.05)) as writer:
            writer.put(1)
            writer.put(2)
            writer.put(3)
            raise KeyError
    assert len(done) < 3


def test_fp16_needs_no_images(source, tmp_path):
    assert isinstance(prepare_codec(FP16, source, [], tmp_path, rank=1), Fp16Codec)


@pytest.mark.parametrize('seconds, words', [
    (12.4, '12 s'), (245, '4 min 05 s'), (11220, '3 h 07 min'), (183600, '2 d 3 h')])
def test_durations(seconds, words):
    assert duration(seconds) == words
