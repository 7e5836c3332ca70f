"""PointToMultiViewDepth: LiDAR in the augmented cameras; PackOccInputs: what the model is given."""
import numpy as np
import pytest
import torch
from mmdet3d.registry import TRANSFORMS
from nusc_factory import CAMERAS, DATA_CONFIG, GRID_SHAPE

from langocc.datasets.geometry import lidar_to_camera, project
from langocc.datasets.transforms import (
    LoadOccGTFromFile, PackOccInputs, PointToMultiViewDepth, PrepareImageInputs
)


def load(tiny_dataset, index, is_train, **kwargs):
    results = PrepareImageInputs(DATA_CONFIG, is_train=is_train)(tiny_dataset.get_data_info(index))
    results = TRANSFORMS.build(dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5,
                                    use_dim=5))(results)
    return PointToMultiViewDepth(dict(depth=[1., 15., .5]), **kwargs)(results)


@pytest.mark.parametrize('is_train', [False, True])
@pytest.mark.parametrize('downsample', [1, 4])
def test_depth_keeps_the_nearest_point_of_a_cell(tiny_dataset, is_train, downsample):
    np.random.seed(1)
    results = load(tiny_dataset, 1, is_train, downsample=downsample)
    points, depth_maps = results['points'].tensor[:, :3].numpy(), results['gt_depth']
    assert depth_maps.shape == (2, 16 // downsample, 32 // downsample)
    for c, camera in enumerate(CAMERAS):
        expected = np.zeros(depth_maps.shape[1:])
        rig = results['rig'].frame(0)
        for point in points.astype(np.float64):  # the chain, step by step
            in_global = (np.array(results['lidar_points']['ego2global'])
                         @ np.array(results['lidar_points']['lidar2ego']) @ [*point, 1])
            in_ego = np.linalg.solve(rig.ego2global[c].numpy(), in_global)
            x, y, z = np.linalg.solve(rig.cam2ego[c].numpy(), in_ego)[:3]
            if not 1. <= z < 15.:
                continue
            u, v, _ = rig.cam2img[c, :3, :3].numpy() @ [x / z, y / z, 1]
            u, v = (rig.img_aug_matrix[c].numpy() @ [u, v, z, 1])[:2]
            column, row = (int(np.floor((value + 0.5) / downsample)) for value in (u, v))
            if 0 <= column < expected.shape[1] and 0 <= row < expected.shape[0]:
                old = expected[row, column]
                expected[row, column] = min(old, z) if old else z
        assert (expected > 0).sum() > 5
        np.testing.assert_allclose(depth_maps[c].numpy(), expected, rtol=1e-6)


def test_projection_with_augmentation_is_the_augmented_pixel(tiny_dataset):
    np.random.seed(2)
    results = load(tiny_dataset, 2, is_train=True)
    points, rig = results['points'].tensor[:, :3].numpy(), results['rig'].frame(0)
    for c, camera in enumerate(CAMERAS):
        chain = lidar_to_camera(results, camera)
        matrix = rig.img_aug_matrix[c].numpy()
        original, depths = project(points, chain, rig.cam2img[c].numpy())
        augmented, again = project(points, chain, rig.cam2img[c].numpy(), matrix)
        seen = depths > 0
        assert np.isnan(original[~seen]).all() and seen.any()
        columns = np.column_stack([original[seen], depths[seen], np.ones(seen.sum())])
        np.testing.assert_allclose((columns @ matrix.T)[:, :2], augmented[seen], atol=1e-9)
        np.testing.assert_array_equal(depths, again)


def test_packing(tiny_dataset):
    results = load(tiny_dataset, 0, is_train=False)
    results = LoadOccGTFromFile(GRID_SHAPE)(results)
    rays = object()
    packed = PackOccInputs()(dict(results, rays=rays))
    inputs, sample = packed['inputs'], packed['data_samples']
    assert set(inputs) == {'imgs', 'rig', 'bev_aug_matrix', 'points'}
    assert torch.equal(inputs['bev_aug_matrix'], torch.eye(4)) and inputs['imgs'].is_contiguous()
    assert sample.gt_rays is rays and sample.gt_occ is results['gt_occ']
    assert sample.gt_depth.dtype == torch.float32
    assert (sample.token, sample.scene_name, sample.sample_idx) == ('scene-a-0', 'scene-a', 0)
    few = PackOccInputs(meta_keys=('token', ))(results)['data_samples']
    assert few.metainfo_keys() == ['token'] and 'gt_rays' not in few
    with pytest.raises(KeyError, match="needs 'imgs'"):
        PackOccInputs()({})
