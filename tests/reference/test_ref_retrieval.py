"""Retrieval against a plain program, on random fields: interpolation, ranges, both variants."""
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from naive_retrieval import average_precision, score
from sklearn.metrics import average_precision_score

from langocc.datasets.retrieval_benchmark import Query
from langocc.evaluation.retrieval import score_query
from langocc.structures import PointQueries

RANGE, SIZE = [-3., -2., -1., 3., 2., 1.], [1., 1., 0.5]


@pytest.mark.parametrize('variant', ['langocc', 'pop3d'])
def test_a_random_field(variant):
    rng = np.random.default_rng(3)
    head = MODELS.build(dict(
        type='LangOccHead', in_channels=4, feat_channels=8,
        grid=dict(point_cloud_range=RANGE, voxel_size=SIZE),
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=5, hidden_channels=8)),
        renderer=dict(type='VolumeRenderer'), losses=dict()))
    head.eval().double()  # in float32 neighbours change places by rounding
    field = head(3 * torch.randn(1, 4, 4, 4, 6).double())
    volume = head.language(field, 0, torch.arange(96)).detach().double().view(4, 4, 6, 5).tolist()
    points = rng.uniform([-4, -3, -1.5], [4, 3, 1.5], (300, 3))
    text = torch.nn.functional.normalize(torch.randn(2, 5))
    answer = head.answer(field, 0, PointQueries(torch.from_numpy(points), ('a', 'b'), text))
    for column in range(2):
        labels = rng.random(300) < 0.3
        matching = rng.integers(0, 300, 250)  # some twice
        row = score_query(Query('t', 'val', 'a', labels, matching),
                          answer['point_in_range'].numpy(),
                          answer['point_similarity'][:, column].numpy(), variant=variant)
        visible, every = score(labels, matching, points, RANGE, SIZE, volume,
                               text[column].double().tolist(), variant)
        assert row['visible'] == pytest.approx(visible, abs=1e-9)
        assert row['all'] == pytest.approx(every, abs=1e-9)
        assert [f'{row[key]:.2f}' for key in ('visible', 'all')] == [
            f'{value:.2f}' for value in (visible, every)]
    assert 50 < answer['point_in_range'].sum() < 250


def test_the_plain_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, scores = rng.random(60) < 0.3, rng.integers(0, 25, 60) / 25
        expected = 100 * average_precision_score(labels, scores)
        assert average_precision(labels, scores.tolist()) == pytest.approx(expected)
