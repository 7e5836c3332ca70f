"""browse_dataset and plot_curves: the picture of a real sample, and what it is made of."""
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import Image

import langocc  # noqa: F401
from langocc.datasets.nuscenes_prepare import prepare_infos
from langocc.visualization import OCC3D_PALETTE, overlay_occupancy
from langocc.visualization.browse import (
    OCC3D_GRID, camera_views, draw_sample, lidar_points, original_semantics, undo_bev_augmentation,
    undo_image_augmentation
)
from voxelrender import VoxelGrid, project_points

CAMERAS = ['CAM_FRONT', 'CAM_BACK']
DATA_CONFIG = dict(input_size=(256, 704), src_size=(540, 960), resize=(-0.06, 0.11),
                   rot=(-5.4, 5.4), flip=True, crop_h=(0., 0.), resize_test=0.)
FLIPS = dict(flip_dx_ratio=1., flip_dy_ratio=1.)


@pytest.fixture(scope='module')
def infos(pandaset_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('infos')
    prepare_infos(root=str(pandaset_root), version='v1.0-mini', out_dir=str(folder), splits='all')
    return folder / 'nuscenes_infos_all.json'


def data_set(pandaset_root, infos, load=()):
    """Settings of a training data set; ``load``: transforms for what browsing else reads itself."""
    return dict(
        type='NuScenesOccDataset', data_root=str(pandaset_root), ann_file=str(infos),
        camera_names=CAMERAS, multi_adj_frame_id_cfg=(1, 1, 1), stereo=False,
        modality=dict(use_camera=True, use_lidar=True), pipeline=[
            dict(type='PrepareImageInputs', is_train=True, data_config=DATA_CONFIG),
            dict(type='BEVAug', bda_aug_conf=FLIPS, is_train=True), *load,
            dict(type='PackOccInputs')])


LOAD = (dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=3),
        dict(type='LoadOccGTFromFile'))


@pytest.fixture(scope='module')
def packed(pandaset_root, infos):
    init_default_scope('mmdet3d')
    np.random.seed(3)
    return DATASETS.build(data_set(pandaset_root, infos, LOAD))[12]


def test_network_image_lies_exactly_over_the_original(packed):
    for view in camera_views(packed):
        size = view.original.shape[1::-1]
        errors = []
        for shift in (0., 1.5):
            matrix = view.img_aug_matrix.clone()
            matrix[0, 3] += shift
            undone, covered = undo_image_augmentation(view.network_image, matrix, size)
            difference = np.abs(undone.astype(float) - view.original)[covered]
            errors.append(difference.mean())
        assert 0.3 < covered.mean() < 1.
        # Resizing twice blurs; black corners of the rotation take some per cent.
        assert errors[0] < 12 and errors[0] < 0.8 * errors[1]


def test_bev_augmentation_is_undone(packed, pandaset_root):
    matrix = packed['inputs']['bev_aug_matrix']
    assert torch.equal(matrix.diagonal(), torch.tensor([-1., -1., 1., 1.]))
    with np.load(packed['data_samples'].metainfo['occ_path']) as labels:
        semantics = labels['semantics']
    augmented = packed['data_samples'].gt_occ.semantics.numpy()
    assert not np.array_equal(augmented, semantics)
    assert np.array_equal(original_semantics(packed, OCC3D_GRID), semantics)
    with pytest.raises(ValueError, match=r'\(3, 3, 3\)'):
        undo_bev_augmentation(np.zeros((3, 3, 3)), matrix, OCC3D_GRID)


def test_turned_labels_are_looked_up_at_their_place():
    semantics = np.full(OCC3D_GRID.grid_shape, 17, dtype=np.uint8)
    semantics[110, 100, 5] = 4  # x 4.2, y 0.2
    quarter = torch.eye(4)
    quarter[:2, :2] = torch.tensor([[0., -1.], [1., 0.]])  # augmented = (-y, x)
    undone = undo_bev_augmentation(semantics, quarter, OCC3D_GRID)
    assert np.argwhere(undone == 4).tolist() == [[100, 89, 5]]  # x 0.2, y -4.2


def test_lidar_falls_into_the_occupied_voxels(packed):
    points, semantics = lidar_points(packed), original_semantics(packed, OCC3D_GRID)
    points = torch.from_numpy(points)
    points = points[OCC3D_GRID.contains(points)]
    hits = semantics[tuple(OCC3D_GRID.to_indices(points).T.numpy())] != 17
    moved = semantics[::-1][tuple(OCC3D_GRID.to_indices(points).T.numpy())] != 17
    assert hits.mean() > 0.9 > 1.5 * moved.mean()


def test_what_is_not_packed_is_read(packed, pandaset_root, infos):
    np.random.seed(3)
    bare = DATASETS.build(data_set(pandaset_root, infos))[12]
    assert 'points' not in bare['inputs'] and 'gt_occ' not in bare['data_samples']
    assert np.allclose(lidar_points(bare), lidar_points(packed))
    assert np.array_equal(original_semantics(bare, OCC3D_GRID),
                          original_semantics(packed, OCC3D_GRID))


def test_labels_and_lidar_are_optional(packed, pandaset_root, infos, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    np.random.seed(3)
    bare = DATASETS.build(data_set(pandaset_root, infos))[12]
    sample = bare['data_samples']
    whole = draw_sample(bare, width=300)
    sample.set_metainfo(dict(occ_path='/nowhere/labels.npz'))
    unlabelled = draw_sample(bare, width=300)
    sample.set_metainfo(dict(lidar_points=dict(sample.lidar_points, lidar_path='/nowhere/a.bin')))
    images = draw_sample(bare, width=300)
    assert [line.split(': ')[1] for line in said] == [
        'no occupancy labels /nowhere/labels.npz, drawn without',
        'no LiDAR points /nowhere/a.bin, drawn without',
        'no occupancy labels /nowhere/labels.npz, drawn without']
    assert len(whole) > len(unlabelled) > len(images) + 250 and whole.shape[1] == images.shape[1]
    car = OCC3D_PALETTE[4]
    assert (whole == car).all(2).any() and not (unlabelled == car).all(2).any()
    with pytest.raises(ValueError, match=r'labels have shape \(200, 200, 16\), the grid'):
        draw_sample(packed, VoxelGrid((0, 0, 0, 8, 8, 4), (1., 1., 1.)))


def lidar_segmentation(packed, infos):
    """(P,) nuScenes category names of the LiDAR points."""
    categories = json.loads(infos.read_text())['metainfo']['categories']
    ids = np.fromfile(packed['data_samples'].metainfo['pts_semantic_mask_path'], np.uint8)
    return np.array([categories[str(number)] for number in range(len(categories))])[ids]


def test_voxels_lie_on_the_image_content(packed, infos):
    """Where LiDAR points labelled as cars fall into an image, voxels of cars are drawn."""
    shares = []
    for view in camera_views(packed):
        black = np.zeros_like(view.original)
        drawn = overlay_occupancy(black, original_semantics(packed, OCC3D_GRID), OCC3D_GRID,
                                  view.cam2img.numpy(), view.cam2ego.numpy(), alpha=1.)
        colors = drawn / np.maximum(drawn.max(2, keepdims=True), 1)
        car = (np.abs(colors - OCC3D_PALETTE[4] / OCC3D_PALETTE[4].max()) < 0.03).all(2)
        points = torch.from_numpy(lidar_points(packed))
        pixels, depths = project_points(points, view.cam2img, view.cam2ego)
        shown = OCC3D_GRID.contains(points) & (depths > 1) & (depths < 39)
        shown &= ((pixels >= 0) & (pixels < torch.tensor(black.shape[1::-1]) - 1)).all(1)
        shown &= torch.from_numpy(lidar_segmentation(packed, infos) == 'vehicle.car')
        columns, rows = pixels[shown].round().long().numpy().T
        shares.append((car[rows, columns].mean(), car[rows, black.shape[1] - 1 - columns].mean(),
                       len(rows)))
    for lies_on_cars, mirrored, number in shares:
        assert number > 200 and lies_on_cars > 0.9, shares
        assert 1 - mirrored > 3 * (1 - lies_on_cars), shares


def test_every_sensor_goes_through_its_own_ego_pose(packed):
    rig = packed['inputs']['rig']
    view = camera_views(packed)[1]
    pose = np.array(packed['data_samples'].metainfo['ego2global'])
    expected = np.linalg.inv(pose) @ (rig.ego2global[0, 1] @ rig.cam2ego[0, 1]).numpy()
    assert np.allclose(view.cam2ego.numpy(), expected)
    # The car moves: the mounting alone is centimetres off.
    assert np.abs(expected - rig.cam2ego[0, 1].numpy())[:3, 3].max() > 0.02
    moved = dict(packed, data_samples=packed['data_samples'].clone())
    shift = np.eye(4)
    shift[:3, 3] = [1., 2., 0.5]
    moved['data_samples'].set_metainfo(dict(ego2global=pose @ shift))
    assert np.allclose(lidar_points(moved), lidar_points(packed) - shift[:3, 3])
    shifted = camera_views(moved)[1].cam2ego[:3, 3]
    assert np.allclose(shifted.numpy(), expected[:3, 3] - shift[:3, 3])


def test_missing_metainfo_is_named(packed):
    bare = dict(packed, data_samples=packed['data_samples'].clone())
    del bare['data_samples'].images
    with pytest.raises(KeyError, match='images'):
        draw_sample(bare)


def run_tool(monkeypatch, repository, name, *arguments):
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    runpy.run_path(str(repository / 'tools' / f'{name}.py'), run_name='__main__')


def test_browse_tool_writes_a_picture_a_sample(monkeypatch, repository, pandaset_root, infos,
                                               tmp_path, capsys):
    config = tmp_path / 'config.py'
    config.write_text(f"custom_imports = dict(imports=['langocc'])\ndefault_scope = 'mmdet3d'\n"
                      f'train_dataloader = dict(dataset={data_set(pandaset_root, infos)})\n')
    run_tool(monkeypatch, repository, 'browse_dataset', config, '--out-dir', tmp_path / 'out',
             '--index', 0, 15)
    written = sorted((tmp_path / 'out').iterdir())
    assert [path.name[:6] for path in written] == ['00000_', '00015_']
    assert all(str(path) in capsys.readouterr().out for path in written[:1])
    picture = np.array(Image.open(written[0]))
    assert picture.shape[1] == 3 * 606 + 6
    for label in (4, 11, 15):  # in the legend at least
        assert (picture == OCC3D_PALETTE[label]).all(2).any()
    with pytest.raises(SystemExit, match='16'):
        run_tool(monkeypatch, repository, 'browse_dataset', config, '--out-dir', tmp_path,
                 '--index', 16)


def test_plot_curves_tool(monkeypatch, repository, tmp_path):
    for name, loss in (('a', 1.), ('b', 2.)):
        file = tmp_path / name / '20260101_000000' / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text('\n'.join(json.dumps(dict(loss=loss / step, step=step))
                                  for step in range(1, 30)))
    run_tool(monkeypatch, repository, 'plot_curves', tmp_path / 'a', tmp_path / 'b', '--out',
             tmp_path / 'out.png', '--smooth', 3)
    assert Image.open(tmp_path / 'out.png').size[0] > 300
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, repository, 'plot_curves', tmp_path / 'a', tmp_path / 'a')
