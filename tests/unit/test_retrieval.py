"""The retrieval benchmark's arithmetic and its errors."""
import numpy as np
import pytest
import torch

from langocc.evaluation.retrieval import (
    Query, average_precision, inside, load_queries, mean_of, score_query
)
from voxelrender import VoxelGrid

GRID = VoxelGrid((-4., -4., -1., 4., 4., 1.), (0.5, 0.5, 0.5))


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
    points = np.array([[0., 0, 0], [1, 1, 0], [2, 2, 0], [9, 0, 0], [4, 0, 0]])
    assert inside(GRID, points).tolist() == [True, True, True, False, False]
    labels = np.array([True, False, True, True, False])
    visible = np.array([True, True, False, True, True])
    feats = torch.tensor([[1., 0], [0, 1], [0.6, 0.8], [1, 0], [1, 0]])
    query = Query('t', 'val', 'car', labels, visible)
    row = score_query(query, points, GRID, torch.tensor([1., 0]), feats,
                      torch.tensor([0., 1., 0., 0., 0.]))
    assert row['visible'] == 100 and row['all'] == 100 and row['teacher'] == 50
    assert row['chance'] == 50 and row['positives'] == 1
    with pytest.raises(ValueError, match="'car' labels 5 points.*has 4"):
        score_query(query, points[:4], GRID, torch.tensor([1., 0]), feats[:4])


def test_means_leave_out_queries_without_positives():
    assert mean_of([dict(a=1.), dict(a=None), dict(a=3.)], 'a') == 2 and mean_of([], 'a') is None


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
    assert load_queries(tmp_path, ['train']) == []
