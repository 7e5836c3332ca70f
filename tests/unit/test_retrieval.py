"""Retrieval: arithmetic, the benchmark's files, what the metric and the tool make of them."""
import copy
import runpy

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from retrieval_folder import write_benchmark
from test_detector import build, make_batch, run

from langocc.datasets.retrieval_benchmark import Query, load_queries
from langocc.evaluation import RetrievalMetric
from langocc.evaluation.retrieval import average_precision, mean_of, means_by_group, score_query
from langocc.structures import PointQueries
from langocc.teachers import Teacher, TextEncoder


class Words(TextEncoder):
    """A random direction for each word."""
    embed_dims = 6

    def encode(self, prompts):
        rows = [torch.randn(6, generator=torch.Generator().manual_seed(sum(map(ord, prompt))))
                for prompt in prompts]
        return torch.nn.functional.normalize(torch.stack(rows))


def naive_average_precision(labels, scores):
    """Sum over ranks of (recall step) x precision, ties ranked together."""
    total, previous = 0., 0.
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        recall = labels[chosen].sum() / labels.sum()
        total += (recall - previous) * labels[chosen].sum() / chosen.sum()
        previous = recall
    return 100 * total


def test_average_precision_against_the_definition():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(200) < 0.2, rng.integers(0, 30, 200) / 30
    expected = naive_average_precision(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected)
    assert average_precision(np.zeros(5, dtype=bool), scores[:5]) is None


def test_a_query_counts_points_inside_and_visible():
    labels = np.array([True, False, True, True, False])
    query = Query('t', 'val', 'car', labels, np.array([0, 1, 3, 3, 4]))
    in_range = np.array([True, True, True, False, False])
    cosines, of_teacher = np.array([1., 0, 0.6, 1, 1]), np.array([0., 1., 0., 0., 0.])
    row = score_query(query, in_range, cosines, of_teacher)
    assert row['visible'] == 100 and row['all'] == 100 and row['teacher'] == 50
    assert row['chance'] == 50 and row['positives'] == 1
    assert row['positives_all'] == 2 and row['chance_all'] == pytest.approx(200 / 3)
    published = score_query(query, in_range, cosines, of_teacher, 'pop3d')
    # Visible entries 0, 1, 3, 3, 4: the three at cosine 1 that are right, of four there.
    assert published['visible'] == 75 and published['positives'] == 3 and published['chance'] == 60
    assert published['all'] == pytest.approx(2 / 3 * 200 / 3 + 1 / 3 * 75)
    with pytest.raises(ValueError, match="'car' labels 5 points.*has 4 and 4"):
        score_query(query, in_range[:4], cosines[:4])


def test_means_leave_out_queries_without_positives():
    assert mean_of([dict(a=1.), dict(a=None), dict(a=3.)], 'a') == 2 and mean_of([], 'a') is None
    nothing = np.zeros(4, dtype=bool)
    some, every = np.array([True, False, False, False]), np.ones(4, dtype=bool)
    seen = np.arange(1, 4)  # the one right point is in range and not visible
    rows = [score_query(Query('t', split, 'car', labels, matching), every, np.arange(4) / 4)
            for split, labels, matching in (
                ('val', every, seen), ('val', nothing, seen), ('test', some, seen),
                ('test', every, np.arange(4)))]
    means = means_by_group(rows)
    assert list(means) == ['val', 'test', 'val+test', 'all']
    assert means['val'] == dict(visible=100, teacher=None, chance=100, all=100, chance_all=100,
                                queries=1, queries_all=1)
    assert means['test']['queries'] == 1 and means['test']['queries_all'] == 2
    assert means['test']['all'] == (25 + 100) / 2 and means['all']['queries_all'] == 3
    assert means['val+test']['all'] == pytest.approx((100 + 25 + 100) / 3)  # not of 100 and 62.5
    assert list(means_by_group(rows[:2])) == ['val', 'all']


def test_broken_benchmarks_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='retrieval_anns_all.csv'):
        load_queries(tmp_path)
    table = tmp_path / 'retrieval_anns_all.csv'
    table.write_text('t;nowhere;a.npy;b.npy;car\n')
    with pytest.raises(ValueError, match='line 1.*nowhere'):
        load_queries(tmp_path)
    np.save(tmp_path / 'a.npy', np.zeros(3, dtype=np.uint8))
    np.save(tmp_path / 'b.npy', np.array([0, 7]))
    table.write_text('t;val;a.npy;b.npy;car\n')
    with pytest.raises(ValueError, match='point 7 of 3'):
        load_queries(tmp_path)
    np.save(tmp_path / 'b.npy', np.array([-1, 2]))
    with pytest.raises(ValueError, match='point -1 of 3'):
        load_queries(tmp_path)
    np.save(tmp_path / 'b.npy', np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r'line 1: .*b.npy has shape \(2, 2\) and type float64'):
        load_queries(tmp_path)
    (tmp_path / 'b.npy').write_bytes(b'no array')
    with pytest.raises(ValueError, match='line 1: cannot read .*b.npy'):
        load_queries(tmp_path)
    (tmp_path / 'b.npy').unlink()
    with pytest.raises(FileNotFoundError, match='line 1: .*b.npy does not exist'):
        load_queries(tmp_path)
    assert load_queries(tmp_path, ['train']) == []
    with pytest.raises(ValueError, match=r"splits \['trian'\] are unknown"):
        load_queries(tmp_path, ['trian'])


# ------------------------------------------------------- in the evaluation loop

POINTS = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)).double() * 20 - 10
POINTS[:, 2] = POINTS[:, 2] / 5


@pytest.fixture
def benchmark(tmp_path):
    """Frames sample0 (two words) and sample1 of the tiny detector's batch; sample9 is nowhere."""
    rng = np.random.default_rng(0)

    def labels():
        return rng.random(40) < 0.3

    return write_benchmark(tmp_path / 'benchmark', [
        ('sample1', 'val', 'car', labels(), range(0, 40, 2)),
        ('sample0', 'test', 'tree', labels(), range(30)),
        ('sample9', 'val', 'wall', labels(), range(30)),
        ('sample0', 'train', 'road', np.zeros(40), range(30))])


class SameWay(Teacher):
    """One feature everywhere."""
    embed_dims = 6
    asked = 0

    def features(self, info, camera, pixels):
        self.asked += 1
        return torch.eye(6)[:1].expand(len(pixels), 6)


@pytest.fixture
def lidar(tmp_path):
    """What an info tells of LiDAR and one camera that looks along x."""
    path = tmp_path / 'points.bin'
    torch.cat([POINTS, POINTS[:, :2]], 1).float().numpy().tofile(path)
    camera = np.eye(4)
    camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    eye = np.eye(4).tolist()
    image = dict(cam2img=[[30., 0, 31.5], [0, 30., 15.5], [0, 0, 1]], cam2ego=camera.tolist(),
                 ego2global=eye, height=32, width=64)
    return dict(images=dict(C=image), camera_names=['C'], lidar_points=dict(
        lidar_path=str(path), num_pts_feats=5, lidar2ego=eye, ego2global=eye))


def asked(tokens, benchmark, lidar):
    """The tiny detector's batch as the test pipeline asks it."""
    batch = make_batch(len(tokens))
    load = TRANSFORMS.build(dict(type='LoadRetrievalQueries', benchmark=str(benchmark),
                                 text_encoder=Words()))
    for token, sample in zip(tokens, batch['data_samples']):
        sample.set_metainfo(dict(lidar, token=token))
        results = load(dict(lidar, token=token))
        if 'point_queries' in results:
            sample.point_queries = results['point_queries']
    return batch


def evaluate(metric, *batches):
    model = build().eval()
    evaluator = Evaluator(metric)
    for batch in batches:
        with torch.no_grad():
            evaluator.process(run(model, batch, 'predict'))
    return evaluator.evaluate(99)


def test_the_metric_scores_what_the_head_answers(benchmark, lidar, tmp_path):
    teacher = SameWay()
    metric = METRICS.build(dict(type='RetrievalMetric', benchmark=str(benchmark), teacher=teacher,
                                out_file=str(tmp_path / 'rows.json')))
    batch = asked(['sample0', 'other', 'sample1'], benchmark, lidar)
    scores = evaluate(metric, batch)
    model = build().eval()
    with torch.no_grad():
        data = model.data_preprocessor(batch, False)
        field = model.extract_field(data['inputs'])
    inside = ((POINTS > torch.tensor([-8., -8, -1])) & (POINTS < torch.tensor([8., 8, 3]))).all(1)
    assert 5 < inside.sum() < 35
    for index, query, group in ((2, metric.queries[0], 'val'), (0, metric.queries[1], 'test')):
        feats = model.occ_head.sample_language(field, index, POINTS[inside].float())
        cosines = (feats @ Words().embed(query.words)[0]).detach().numpy()
        labels, visible = query.labels[inside.numpy()], query.visible[inside.numpy()]
        expected = naive_average_precision(labels, cosines)
        assert scores[f'retrieval/{group}_mAP'] == pytest.approx(expected)
        expected = naive_average_precision(labels[visible], cosines[visible])
        assert scores[f'retrieval/{group}_mAP_visible'] == pytest.approx(expected)
        assert scores[f'retrieval/{group}_chance_visible'] == pytest.approx(
            100 * labels[visible].mean())
    assert scores['retrieval/val+test_mAP'] == pytest.approx(
        (scores['retrieval/val_mAP'] + scores['retrieval/test_mAP']) / 2)
    assert np.isnan(scores['retrieval/train_mAP']) and 'retrieval/all_teacher_mAP_visible' in scores
    assert teacher.asked == 2  # once a frame
    evaluate(metric, batch)
    assert teacher.asked == 2  # and never again


def test_what_is_left_out_is_said(benchmark, lidar, tmp_path, caplog):
    metric = RetrievalMetric(benchmark, out_file=str(tmp_path / 'rows.json'))
    with torch.no_grad():
        samples = run(build().eval(), asked(['sample0', 'sample1'], benchmark, lidar), 'predict')
    metric.process(None, [sample.to_dict() for sample in samples])
    summary = metric.summarize(metric.results)
    assert [row['query'] for row in summary['queries']] == ['car', 'tree', 'road']
    assert summary['left_out'] == [dict(query='road', token='sample0', points=points)
                                   for points in ('visible', 'all')]
    assert summary['missing'] == [dict(query='wall', token='sample9', split='val')]
    assert summary['means']['all']['queries'] == 2 and 'teacher' not in summary['queries'][0]
    scores = metric.evaluate(2)
    assert not any('teacher' in name for name in scores)
    assert '"query": "tree"' in (tmp_path / 'rows.json').read_text()


def test_samples_that_processes_share_or_repeat_count_once(benchmark, lidar):
    with torch.no_grad():
        samples = [sample.to_dict() for sample in run(
            build().eval(), asked(['sample0', 'sample1'], benchmark, lidar), 'predict')]
    whole, first, second = (RetrievalMetric(benchmark) for _ in range(3))
    whole.process(None, samples)
    first.process(None, samples[:1])
    second.process(None, [samples[1], samples[0]])  # padded by the sampler
    one = whole.compute_metrics(whole.results)
    both = first.compute_metrics(first.results + second.results)
    assert one == pytest.approx(both, nan_ok=True) and len(first.results) == 2
    assert one == pytest.approx(whole.compute_metrics(whole.results), nan_ok=True)


def test_answers_cost_nothing_where_nothing_is_asked(benchmark, lidar, monkeypatch):
    calls = []
    from langocc.models.heads import LangOccHead
    sample = LangOccHead.sample_language
    monkeypatch.setattr(LangOccHead, 'sample_language',
                        lambda *args, **kwargs: calls.append(1) or sample(*args, **kwargs))
    model = build().eval()
    with torch.no_grad():
        plain = run(model, make_batch(2), 'predict')
        assert not calls and 'point_similarity' not in plain[0].pred_occ
        batch = asked(['sample0', 'other'], benchmark, lidar)
        some = run(model, batch, 'predict')
    assert len(calls) == 1 and some[0].pred_occ.point_similarity.shape == (40, 2)
    assert 'point_similarity' not in some[1].pred_occ
    assert some[0].pred_occ.point_in_range.dtype == torch.bool
    assert torch.equal(some[0].pred_occ.semantics, plain[0].pred_occ.semantics)


def test_points_outside_answer_for_the_nearest_place():
    model = build().eval()
    field = model.occ_head(torch.randn(1, 4, 4, 16, 16))
    points = torch.tensor([[-50., 0.2, 0.1], [8., 8., 3.], [-7.9, 0.2, 0.1], [0., 0, 0]]).double()
    text = Words().encode(['car', 'tree'])
    answer = model.occ_head.answer(field, 0, PointQueries(points, ('car', 'tree'), text))
    assert answer['point_in_range'].tolist() == [False, False, True, True]
    similarity = answer['point_similarity']
    torch.testing.assert_close(similarity[0], similarity[2])
    corner = model.occ_head.language(field, 0, torch.tensor([4 * 16 * 16 - 1]))[0]
    torch.testing.assert_close(similarity[1], text @ corner.detach())


def test_queries_move_with_bev_augmentation(benchmark, lidar):
    load = TRANSFORMS.build(dict(type='LoadRetrievalQueries', benchmark=str(benchmark),
                                 text_encoder=Words()))
    flip = np.diag([-1., 1, 1, 1])
    queries = load(dict(lidar, token='sample0', bev_aug_matrix=flip))['point_queries']
    torch.testing.assert_close(queries.points, POINTS.float().double() * torch.tensor([-1., 1, 1]))
    assert queries.words == ('tree', 'road') and '4 words' in repr(load)
    assert 'point_queries' not in load(dict(token='other'))  # and no file is opened
    with pytest.raises(ValueError, match='1 text embeddings for the words'):
        PointQueries(POINTS, ('a', 'a'), torch.zeros(1, 6))
    with pytest.raises(ValueError, match=r'expected \(P, 3\)'):
        PointQueries(POINTS[:, :2], (), torch.zeros(0, 6))


def test_what_the_metric_lacks_is_named(benchmark, lidar):
    metric = RetrievalMetric(benchmark)
    batch = asked(['sample0'], benchmark, lidar)
    with torch.no_grad():
        sample, = run(build().eval(), batch, 'predict')
    good = sample.to_dict()
    with pytest.raises(KeyError, match='was not asked: add LoadRetrievalQueries'):
        metric.process(None, [{k: v for k, v in good.items() if k != 'point_queries'}])
    with pytest.raises(KeyError, match="no 'point_similarity': only a head"):
        metric.process(None, [dict(good, pred_occ=dict(semantics=None))])
    other = copy.copy(good['point_queries'])
    other = PointQueries(other.points, ('road', ), other.text_embeds[:1])
    with pytest.raises(KeyError, match=r"'tree'.*asked \['road'\].*one benchmark"):
        metric.process(None, [dict(good, point_queries=other)])
    with pytest.raises(ValueError, match="variant='POP'"):
        RetrievalMetric(benchmark, variant='POP')


def test_a_batch_is_collated_with_and_without_queries(benchmark, lidar):
    batch = asked(['sample0', 'other'], benchmark, lidar)
    samples = pseudo_collate([dict(data_samples=sample) for sample in batch['data_samples']])
    assert ['point_queries' in sample for sample in samples['data_samples']] == [True, False]
    moved = samples['data_samples'][0].to('meta').point_queries
    assert moved.points.device.type == moved.text_embeds.device.type == 'meta'


def test_format_only_leaves_the_metric_of_occupancy(repository):
    tool = runpy.run_path(str(repository / 'tools' / 'test.py'))
    both = [dict(type='RetrievalMetric', benchmark='x'), dict(type='OccMetric', masks=['none'])]
    for metrics in (both, both[1]):
        cfg = Config(dict(test_evaluator=metrics))
        tool['write_predictions_only'](cfg, 'out')
        assert cfg.test_evaluator == dict(type='OccMetric', masks=['none'], format_only=True,
                                          out_dir='out')
    with pytest.raises(ValueError, match=r"needs OccMetric.*\['RetrievalMetric'\]"):
        tool['write_predictions_only'](Config(dict(test_evaluator=both[:1])), 'out')
