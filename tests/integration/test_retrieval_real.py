"""Retrieval on real labels: a plain program, the tool against the metric, lidarseg, two processes.

The benchmark's labels were made from lidarseg, so the two say the same of 'car'.
"""
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmdet3d.registry import METRICS, MODELS
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import Evaluator

from langocc.apis import OccInferencer, score_retrieval, score_words
from langocc.datasets import NuScenesOccDataset
from langocc.datasets.nuscenes_prepare import prepare_infos
from langocc.datasets.retrieval_benchmark import Query, lidar_in_ego, load_queries
from langocc.datasets.transforms import LoadRetrievalQueries
from langocc.evaluation.lidarseg_queries import lidarseg_queries, parse_words
from langocc.evaluation.retrieval import score_query
from langocc.occ3d import OCC3D_RANGE
from langocc.structures import PointQueries
from langocc.teachers import Reducer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'reference'))
from naive_retrieval import average_precision, score  # noqa: E402

CONFIG = 'configs/langocc-tiny_r18_1xb2-120i_pandaset-depth.py'
SIZE = [4., 4., 1.6]


@pytest.fixture(scope='module')
def info_root(pandaset_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('infos')
    prepare_infos(pandaset_root, 'v1.0-mini', folder, splits='all', prefix='pandaset')
    torch.manual_seed(0)
    Reducer(0.1 * torch.randn(512, 128)).save(folder / 'reducer_128.safetensors')
    return folder


@pytest.fixture(scope='module')
def dataset(pandaset_root, info_root):
    return NuScenesOccDataset(data_root=str(pandaset_root),
                              ann_file=str(info_root / 'pandaset_infos_all.json'))


@pytest.fixture(scope='module')
def inferencer(repository, pandaset_root, info_root):
    """The tiny recipe with random weights, as the tool makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PANDASET_ROOT', str(pandaset_root))
        patch.setenv('LANGOCC_INFO_ROOT', str(info_root))
        cfg = Config.fromfile(repository / CONFIG)
        torch.manual_seed(0)
        return OccInferencer(cfg, device='cpu', optimize=False)


def info_of(dataset, token):
    places = {dataset.get_token(index): index for index in range(len(dataset))}
    return dataset.get_data_info(places[token])


def coarse_field():
    """Float64 head and field of 4 x 4 x 1.6 m voxels over Occ3D's range, 6 numbers a feature."""
    torch.manual_seed(0)
    head = MODELS.build(dict(
        type='LangOccHead', in_channels=4, feat_channels=8,
        grid=dict(point_cloud_range=OCC3D_RANGE, voxel_size=SIZE),
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=6, hidden_channels=8)),
        renderer=dict(type='VolumeRenderer'), losses=dict())).eval().double()
    return head, head(3 * torch.randn(1, 4, 4, 20, 20).double())


@pytest.mark.parametrize('variant', ['langocc', 'pop3d'])
def test_all_queries_against_a_plain_program(pandaset_root, dataset, variant):
    """Every 20th point: a plain program is slow; the order of all points is checked below."""
    head, field = coarse_field()
    volume = head.language(field, 0, torch.arange(1600)).detach().double()
    volume = volume.view(4, 20, 20, 6).tolist()
    queries, positives = load_queries(pandaset_root / 'retrieval_benchmark'), 0
    assert len(queries) == 16
    for index, query in enumerate(queries):
        points = lidar_in_ego(info_of(dataset, query.token))
        text = torch.nn.functional.normalize(torch.randn(1, 6))
        answer = head.answer(field, 0, PointQueries(torch.from_numpy(points), ('x', ), text))
        in_range, cosines = (answer[key].numpy() for key in ('point_in_range', 'point_similarity'))
        row = score_query(query, in_range, cosines[:, 0], variant=variant)
        every = in_range if variant == 'langocc' else np.ones_like(in_range)
        whole = average_precision(query.labels[every].tolist(),
                                  ((cosines[every, 0] + 1) / 2).tolist())
        assert row['all'] == pytest.approx(whole, abs=1e-9)
        kept = np.arange(index % 20, len(points), 20)
        part = Query('t', 'val', 'x', query.labels[kept], np.flatnonzero(query.visible[kept]))
        row = score_query(part, in_range[kept], cosines[kept, 0], variant=variant)
        expected = score(part.labels, part.matching.tolist(), points[kept].tolist(), OCC3D_RANGE,
                         SIZE, volume, text[0].double().tolist(), variant)
        for key, value in zip(('visible', 'all'), expected):
            assert (row[key] is None) == (value is None)
            if value is not None:
                assert row[key] == pytest.approx(value, abs=1e-9)
                positives += 1
    assert positives > 28


def test_the_tool_and_the_metric_give_the_same_numbers(inferencer, pandaset_root):
    benchmark, cfg = pandaset_root / 'retrieval_benchmark', inferencer.cfg
    of_tool = score_retrieval(inferencer, benchmark, ['val'])
    metric = METRICS.build(dict(type='RetrievalMetric', benchmark=str(benchmark), splits=['val'],
                                teacher=cfg.teacher))
    pipeline = list(cfg.test_dataloader.dataset.pipeline)
    pipeline.insert(-1, dict(type='LoadRetrievalQueries', benchmark=str(benchmark),
                             text_encoder=cfg.text_encoder, splits=['val']))
    settings = dict(cfg.test_dataloader.dataset, pipeline=pipeline)
    settings.pop('type')
    dataset, evaluator = NuScenesOccDataset(**settings), Evaluator(metric)
    wanted = [i for i in range(len(dataset)) if dataset.get_token(i) in metric.words]
    for index in [*wanted, 0]:
        batch = inferencer.model.data_preprocessor(pseudo_collate([dataset[index]]), False)
        with torch.no_grad():
            evaluator.process(inferencer.model(**batch, mode='predict'))
    rows = metric.summarize(metric.results)
    assert rows == of_tool and [row['query'] for row in rows['queries']] == ['road', 'pavement',
                                                                             'car']
    assert rows['queries'][0]['teacher'] > 85 > rows['queries'][0]['chance'] > 5
    scores = evaluator.evaluate(16)
    assert scores['retrieval/val_mAP_visible'] == of_tool['means']['val']['visible']
    assert scores['retrieval/val_teacher_mAP_visible'] == of_tool['means']['val']['teacher']


def test_words_against_lidarseg_are_the_benchmarks(inferencer, pandaset_root, dataset):
    categories = inferencer.dataset.metainfo['categories']
    classes = parse_words(['car=vehicle.car', 'road=driveable_surface', 'bus'], categories)
    queries = [query for query in load_queries(pandaset_root / 'retrieval_benchmark', ['val'])
               if query.words == 'car']
    token = queries[0].token
    car, *_ = lidarseg_queries(info_of(dataset, token), classes)
    np.testing.assert_array_equal(car.labels, queries[0].labels)
    assert (car.visible != queries[0].visible).mean() < 0.01
    result = score_words(inferencer, classes, [token])
    assert [row['query'] for row in result['queries']] == ['car', 'road', 'bus']
    of_benchmark = score_retrieval(inferencer, pandaset_root / 'retrieval_benchmark', ['val'])
    row = next(row for row in of_benchmark['queries'] if row['query'] == 'car')
    assert result['words']['car']['all'] == row['all']
    assert result['words']['car']['visible'] == pytest.approx(row['visible'], abs=0.5)
    assert result['words']['car']['teacher'] == pytest.approx(row['teacher'], abs=0.5)
    present = [word for word in classes if result['words'][word]['all'] is not None]
    assert result['means']['all']['queries_all'] == len(present) < 3  # no bus in this street
    assert result['means']['all']['all'] == pytest.approx(
        np.mean([result['words'][word]['all'] for word in present]))


def answers(root, info_root, tokens):
    """What a model answers at the frames, here cosines from a random field; info included."""
    dataset = NuScenesOccDataset(data_root=root, ann_file=f'{info_root}/pandaset_infos_all.json')
    text = dict(type='TextEmbeddings', files=f'{root}/text_embeds/clip_vit_b16.npz')
    load = LoadRetrievalQueries(f'{root}/retrieval_benchmark', text)
    head, field = coarse_field()
    for token in tokens:
        asked = load(info_of(dataset, token))['point_queries']
        small = PointQueries(asked.points, asked.words, asked.text_embeds[:, :6])
        yield dict(token=token, point_queries=asked, pred_occ=head.answer(field, 0, small))


def scores_of_share(root, info_root):
    """Scores of the frames that this process' sampler draws: five for two, one twice."""
    evaluator = Evaluator(METRICS.build(dict(
        type='RetrievalMetric', benchmark=f'{root}/retrieval_benchmark')))
    tokens = sorted(evaluator.metrics[0].words)[:5]
    share = [tokens[i] for i in DefaultSampler(tokens, shuffle=False)]
    for sample in answers(root, info_root, share):
        evaluator.process([sample])
    return evaluator.evaluate(len(tokens)), len(share)


def worker(rank, folder, root, info_root):
    os.chdir(folder)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(scores_of_share(root, info_root), f'{folder}/scores{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(pandaset_root, info_root, tmp_path):
    alone, _ = scores_of_share(str(pandaset_root), info_root)
    multiprocessing.spawn(worker, (str(tmp_path), str(pandaset_root), info_root), nprocs=2)
    shares = [torch.load(tmp_path / f'scores{rank}.pt') for rank in range(2)]
    assert [share for _, share in shares] == [3, 3]
    for scores, _ in shares:
        assert scores == pytest.approx(alone, nan_ok=True, rel=1e-12)
    assert 0 < alone['retrieval/all_mAP_visible'] < 100
