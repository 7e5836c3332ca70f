"""Boxes in the key ego frame, through the data set, flips and packing."""
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from nusc_factory import CAMERAS, DATA_CONFIG

from langocc.datasets import NuScenesOccDataset
from langocc.datasets.geometry import homogeneous, lidar_to_global
from langocc.datasets.transforms.boxes import LoadEgoBoxes, move_boxes

CLASSES = ('pedestrian', 'car')


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield


def make(root, pipeline=(), **kwargs):
    return NuScenesOccDataset(data_root=str(root), ann_file='tiny_infos_all.json',
                              camera_names=CAMERAS, pipeline=list(pipeline),
                              metainfo=dict(classes=CLASSES), **kwargs)


def test_boxes_are_where_the_tables_have_them(tiny_root):
    """By way of the corners of mmdet3d's boxes, moved as points."""
    dataset = make(tiny_root)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        before = info['ann_info']['gt_bboxes_3d']
        keep = info['ann_info']['gt_labels_3d'] >= 0
        matrix = np.linalg.inv(homogeneous(info['key_ego2global'])) @ lidar_to_global(info)
        assert not np.allclose(matrix, np.eye(4), atol=0.1)
        results = LoadEgoBoxes(valid_only=False)(dict(info))
        boxes = results['gt_bboxes_3d']
        assert len(boxes) == keep.sum() == len(results['gt_labels_3d']) > 0
        corners = before.corners[keep].double() @ torch.from_numpy(matrix[:3, :3].T) \
            + torch.from_numpy(matrix[:3, 3])
        # The tiny world's ego frame is not tilted against its LiDAR: boxes stay boxes.
        torch.testing.assert_close(boxes.corners.double(), corners, atol=2e-2, rtol=0)


def test_a_flip_turns_boxes_like_everything_else():
    boxes = torch.tensor([[4., 3, -1, 4, 2, 1.5, 0.3, 5, 1]])
    flip = torch.diag(torch.tensor([1., -1, 1, 1]))
    moved = move_boxes(boxes, flip).tensor
    expected = torch.tensor([[4., -3, -1, 4, 2, 1.5, -0.3, 5, -1]])
    torch.testing.assert_close(moved, expected)
    twice = move_boxes(move_boxes(boxes, flip).tensor, flip).tensor
    torch.testing.assert_close(twice, boxes)


def test_rotation_scale_and_shift():
    boxes = torch.tensor([[1., 0, -0.5, 4, 2, 1, 0., 1, 0]])
    matrix = torch.eye(4)
    matrix[:2, :2] = 2 * torch.tensor([[0., -1], [1, 0]])
    matrix[2, 2] = 2
    matrix[:3, 3] = torch.tensor([0., 0, 10])
    moved = move_boxes(boxes, matrix).tensor
    torch.testing.assert_close(
        moved, torch.tensor([[0., 2, 9, 8, 4, 2, torch.pi / 2, 0, 2]]), atol=1e-6, rtol=0)
    assert move_boxes(boxes[:0], matrix).tensor.shape == (0, 9)


def test_invalid_boxes_and_other_classes_are_dropped(tiny_root):
    info = make(tiny_root).get_data_info(0)
    info['ann_info']['bbox_3d_isvalid'][:] = False
    assert len(LoadEgoBoxes()(dict(info))['gt_bboxes_3d']) == 0
    info['ann_info']['bbox_3d_isvalid'][:] = True
    info['ann_info']['gt_labels_3d'][0] = -1
    count = len(info['ann_info']['gt_labels_3d'])
    left = LoadEgoBoxes()(dict(info))['gt_labels_3d']
    assert len(left) == (info['ann_info']['gt_labels_3d'] >= 0).sum() < count


def test_packed_for_a_detection_head(tiny_root):
    pipeline = [dict(type='PrepareImageInputs', data_config=DATA_CONFIG),
                dict(type='BEVAug', bda_aug_conf=dict(flip_dy_ratio=1.)),
                dict(type='LoadEgoBoxes', valid_only=False),
                dict(type='ObjectRangeFilter', point_cloud_range=[-60, -60, -5, 60, 60, 5]),
                dict(type='PackOccInputs')]
    sample = make(tiny_root, pipeline)[0]['data_samples']
    plain = LoadEgoBoxes(valid_only=False)(make(tiny_root).get_data_info(0))['gt_bboxes_3d']
    instances = sample.gt_instances_3d
    assert len(instances.bboxes_3d) == len(instances.labels_3d) == len(plain)
    assert instances.labels_3d.dtype == torch.long
    assert torch.allclose(instances.bboxes_3d.tensor[:, 1], -plain.tensor[:, 1])
    assert {CLASSES[label] for label in instances.labels_3d} <= {'car', 'pedestrian'}
    assert sample.metainfo['box_type_3d'] is type(instances.bboxes_3d)


def test_a_data_set_in_test_mode_has_no_boxes(tiny_root):
    info = make(tiny_root, test_mode=True).get_data_info(0)
    info.pop('ann_info', None)
    with pytest.raises(KeyError, match='scene-a-0 has no ann_info'):
        LoadEgoBoxes()(info)
