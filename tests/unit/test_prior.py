"""The constant prior: counting, its file, its tool, its prediction."""
import runpy
import sys

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import init_default_scope
from nusc_factory import CAMERAS, GRID_SHAPE

import langocc  # noqa: F401
from langocc.evaluation import OccupancyPrior, fit_prior, load_occupancy

init_default_scope('mmdet3d')


def make_truths(labels, seen):
    """Samples of a 2 x 1 x 1 grid from rows of labels and of what the camera sees."""
    return [dict(semantics=np.array(row, dtype=np.uint8).reshape(2, 1, 1),
                 mask_camera=np.array(mask, dtype=bool).reshape(2, 1, 1))
            for row, mask in zip(labels, seen)]


def test_majority_of_the_samples_that_saw_a_voxel():
    truths = make_truths([[4, 11], [4, 11], [17, 11], [17, 11], [17, 11]],
                         [[1, 0], [1, 0], [1, 0], [0, 0], [0, 0]])
    prior = fit_prior(iter(truths))
    assert prior.semantics.ravel().tolist() == [4, 17]  # never seen: free
    assert prior.observed.ravel().tolist() == [3, 0]
    assert prior.class_counts[[4, 17]].tolist() == [2, 1] and prior.class_counts.sum() == 3
    assert prior.num_samples == 5
    everywhere = fit_prior(truths, mask='none')
    assert everywhere.semantics.ravel().tolist() == [17, 11]


def test_free_loses_a_tie_and_unknown_labels_do_not_count():
    truths = make_truths([[4, 255], [17, 255], [16, 3]], [[1, 1], [1, 1], [0, 1]])
    prior = fit_prior(truths)
    assert prior.semantics.ravel().tolist() == [4, 3] and prior.observed.ravel().tolist() == [2, 1]


def test_against_a_loop_over_voxels():
    rng = np.random.default_rng(0)
    shape = (3, 4, 2)
    truths = [dict(semantics=rng.integers(14, 18, shape, dtype=np.uint8),
                   mask_camera=rng.random(shape) < 0.5) for _ in range(9)]
    prior = fit_prior(truths)
    for voxel in np.ndindex(*shape):
        labels = [int(t['semantics'][voxel]) for t in truths if t['mask_camera'][voxel]]
        best = max(sorted(set(labels)), key=labels.count) if labels else 17
        assert prior.semantics[voxel] == best and prior.observed[voxel] == len(labels)


def test_bad_samples_are_named():
    truths = make_truths([[4, 11]], [[1, 1]])
    with pytest.raises(ValueError, match='at least one sample'):
        fit_prior([])
    with pytest.raises(ValueError, match=r'sample 1 has labels of shape \(1, 1, 1\).*\(2, 1, 1\)'):
        fit_prior([*truths, dict(semantics=np.zeros((1, 1, 1), dtype=np.uint8))])
    with pytest.raises(KeyError, match="'mask_lidar'"):
        fit_prior(truths, mask='lidar')


def test_prediction_is_the_file_for_every_sample(tmp_path):
    prior = fit_prior(make_truths([[4, 11]], [[1, 0]]))
    prior.save(tmp_path / 'prior.npz')
    model = MODELS.build(dict(type='PriorOccupancy', prior=str(tmp_path / 'prior.npz')))
    samples = [Det3DDataSample(metainfo=dict(token=token)) for token in 'ab']
    predicted = model(None, samples, mode='predict')
    for sample in predicted:
        assert torch.equal(sample.pred_occ.semantics, torch.from_numpy(prior.semantics))
    predicted[0].pred_occ.semantics[:] = 0  # of its own
    assert model(None, mode='tensor').ravel().tolist() == [4, 17]
    with pytest.raises(ValueError, match="PriorOccupancy: mode='loss'"):
        model(None, samples, mode='loss')


def test_bad_files_are_named(tmp_path):
    path = tmp_path / 'prior.npz'
    with pytest.raises(FileNotFoundError, match=f'fit_prior.py {path} does not exist'):
        OccupancyPrior.load(path)
    path.write_bytes(b'no archive')
    with pytest.raises(ValueError, match=f'{path} cannot be read as a prior'):
        OccupancyPrior.load(path)
    np.savez(path, semantics=np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(ValueError, match=f'{path}.*observed'):
        OccupancyPrior.load(path)
    bad = fit_prior(make_truths([[4, 11]], [[1, 0]]))
    bad.semantics[0] = 18
    bad.save(path)
    with pytest.raises(ValueError, match=r'classes in \[0, 18\).*up to 18'):
        OccupancyPrior.load(path)


@pytest.fixture
def run_tool(monkeypatch, repository, tmp_path):
    """Runs tools/fit_prior.py on a config with the given lines."""

    def run(text, *arguments):
        config = tmp_path / 'config.py'
        config.write_text(text)
        monkeypatch.chdir(repository)
        monkeypatch.setattr(sys, 'argv', ['fit_prior', str(config), *map(str, arguments)])
        runpy.run_path('tools/fit_prior.py', run_name='__main__')

    return run


def test_the_tool_counts_every_training_sample(run_tool, tiny_root, tiny_dataset, tmp_path, capsys):
    """Flips and teachers of the pipeline have no part in it."""
    data = dict(type='NuScenesOccDataset', data_root=str(tiny_root), camera_names=list(CAMERAS),
                ann_file='tiny_infos_all.json', ray_frame_ids=[-1, 0],
                pipeline=[dict(type='BEVAug', bda_aug_conf=dict(flip_dx_ratio=1.))])
    text = f'train_dataloader = dict(dataset={data})\n'
    run_tool(text, '--out', tmp_path / 'prior.npz')
    truths = [load_occupancy(tiny_dataset.get_data_info(i)['occ_path'])
              for i in range(len(tiny_dataset))]
    expected, prior = fit_prior(truths), OccupancyPrior.load(tmp_path / 'prior.npz')
    assert prior.semantics.shape == GRID_SHAPE and prior.num_samples == len(tiny_dataset)
    assert np.array_equal(prior.semantics, expected.semantics)
    assert np.array_equal(prior.observed, expected.observed)
    assert f'class_counts={expected.class_counts.tolist()}' in capsys.readouterr().out


@pytest.mark.parametrize('text, complaint', [
    ('train_dataloader = None\n', 'has no train_dataloader'),
    ("train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=None))\n",
     'is a RepeatDataset, expected the data set itself')])
def test_the_tool_names_what_is_wrong(run_tool, text, complaint, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        run_tool(text, '--out', tmp_path / 'prior.npz')
    assert exit_info.value.code == 2 and complaint in capsys.readouterr().err
