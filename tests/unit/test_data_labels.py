"""LoadOccGTFromFile: labels follow flips, bad files are named."""
import os

import numpy as np
import pytest
import torch
from nusc_factory import GRID_SHAPE

from langocc.datasets.transforms import BEVAug, LoadOccGTFromFile


@pytest.mark.parametrize('signs', [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_labels_follow_flips(tiny_dataset, signs):
    info = dict(tiny_dataset.get_data_info(0), bev_aug_matrix=np.diag([*signs, 1., 1.]))
    occ = LoadOccGTFromFile(GRID_SHAPE)(info)['gt_occ']
    with np.load(info['occ_path']) as file:
        arrays = {name: file[name] for name in file.files}
    size = 2.
    cells = np.stack(np.meshgrid(*[np.arange(n) for n in GRID_SHAPE], indexing='ij'), axis=-1)
    centres = (cells + 0.5) * size - np.array([20., 20., 1.])  # symmetric in x and y
    moved = centres @ info['bev_aug_matrix'][:3, :3].T
    x, y, z = np.round((moved + [20., 20., 1.]) / size - 0.5).astype(int).reshape(-1, 3).T
    for name, array in arrays.items():
        tensor = getattr(occ, name)
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy()[x, y, z].reshape(GRID_SHAPE), array)
    assert occ.semantics.dtype == torch.uint8 and occ.mask_camera.dtype == torch.bool


@pytest.mark.parametrize('conf', [dict(rot_lim=(5., 5.)), dict(scale_lim=(.9, .9))])
def test_labels_refuse_rotation_and_scale(tiny_dataset, conf):
    with pytest.raises(ValueError, match='flips in x and y only'):
        LoadOccGTFromFile(GRID_SHAPE)(BEVAug(conf)(tiny_dataset.get_data_info(0)))


def test_labels_say_where_they_lie(tiny_dataset):
    info = tiny_dataset.get_data_info(0)
    place = (-20, -20, -2, 20, 20, 6)
    occ = LoadOccGTFromFile(GRID_SHAPE, place)(dict(info))['gt_occ']
    assert occ.point_cloud_range == place
    assert 'point_cloud_range' not in LoadOccGTFromFile(GRID_SHAPE)(info)['gt_occ']
    assert LoadOccGTFromFile().point_cloud_range == (-40, -40, -1, 40, 40, 5.4)  # Occ3D's shape


def test_bad_labels_are_named(tiny_dataset):
    info = tiny_dataset.get_data_info(0)
    path = info['occ_path']
    with pytest.raises(ValueError, match=rf'{path}: semantics has shape \(20, 20, 4\), expected '
                                         r'\(200, 200, 16\)'):
        LoadOccGTFromFile()(info)
    labels = np.zeros(GRID_SHAPE, np.uint8)
    np.savez(path, semantics=labels, mask_lidar=labels, mask_camera=labels[1:])
    with pytest.raises(ValueError, match=r'mask_camera has shape \(19, 20, 4\)'):
        LoadOccGTFromFile(GRID_SHAPE)(info)
    np.savez(path, semantics=labels, mask_lidar=labels)
    with pytest.raises(KeyError, match=r"no array \['mask_camera'\]"):
        LoadOccGTFromFile(GRID_SHAPE)(info)
    with open(path, 'rb+') as file:
        file.truncate(100)
    with pytest.raises(OSError, match=f'cannot read occupancy labels {path}'):
        LoadOccGTFromFile(GRID_SHAPE)(info)
    os.unlink(path)
    with pytest.raises(FileNotFoundError, match=f'not found: {path}; without labels'):
        LoadOccGTFromFile(GRID_SHAPE)(info)
    for bare in (dict(info, occ_path=None), {k: info[k] for k in info if k != 'occ_path'}):
        with pytest.raises(KeyError, match='scene-a-0 has no occ_path: without labels leave'):
            LoadOccGTFromFile(GRID_SHAPE)(bare)
