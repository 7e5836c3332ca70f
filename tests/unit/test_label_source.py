"""LiDAR points with labels as rays: the class at each pixel, masking, files that are wrong."""
import numpy as np
import pytest
import torch
from mmdet3d.registry import TASK_UTILS
from test_rays_prepare import ColumnTeacher
from test_rays_sources import make_info, make_results

from langocc.datasets.geometry import lidar_to_camera, project
from langocc.datasets.label_source import LidarLabelSource
from langocc.datasets.transforms.rays import PrepareRays
from langocc.lidarseg import LIDARSEG_CATEGORIES
from langocc.occ3d import OCC3D_CLASSES

RNG = np.random.default_rng
NUMBER = {name: index for index, name in enumerate(LIDARSEG_CATEGORIES)}


def labelled(folder, token, names, seed=0):
    """A frame whose points lie around the car, one for each of ``names``."""
    points = RNG(seed).uniform([-20, -15, -2], [20, 15, 2], size=(len(names), 3))
    info = make_info(folder, token, points)
    path = folder / f'{token}_lidarseg.bin'
    np.array([NUMBER[name] for name in names], np.uint8).tofile(path)
    return dict(info, pts_semantic_mask_path=str(path)), points.astype(np.float32).astype(float)


@pytest.fixture
def names():
    return RNG(3).choice(LIDARSEG_CATEGORIES, 300).tolist()


def test_each_pixel_has_the_class_and_distance_of_its_point(tmp_path, names):
    info, points = labelled(tmp_path, 'k', names)
    draw = LidarLabelSource(point_cloud_range=None).draw(make_results([info]), 10**6, RNG(0))
    table = LidarLabelSource().table
    found = 0
    for camera, name in enumerate('AB'):
        lidar2cam = lidar_to_camera(info, name)
        pixels, depths = project(points, lidar2cam, info['images'][name]['cam2img'])
        for u, v, distance, label in zip(
                *draw.pixels[draw.cameras == camera].T, draw.distances[draw.cameras == camera],
                draw.classes[draw.cameras == camera]):
            point = np.nanargmin(np.abs(pixels - [u, v]).sum(axis=1))
            centre = np.linalg.inv(lidar2cam)[:3, 3]
            assert distance == pytest.approx(np.linalg.norm(points[point] - centre), rel=1e-5)
            assert label == table[NUMBER[names[point]]]
            found += 1
    assert found == len(draw) > 50 and len(set(draw.classes.tolist())) > 5


def test_box_and_copies_keep_classes_beside_their_pixels(tmp_path, names):
    info, _ = labelled(tmp_path, 'k', names)
    everything = LidarLabelSource(point_cloud_range=None).draw(make_results([info]), 999, RNG(0))
    boxed = LidarLabelSource(point_cloud_range=[-9, -9, -9, 9, 9, 9]).draw(
        make_results([info, info], [0, 1]), 999, RNG(0))
    by_pixel = {tuple(pixel): label for pixel, label in zip(everything.pixels.tolist(),
                                                            everything.classes)}
    assert 0 < len(boxed) / 2 < len(everything)
    assert [by_pixel[tuple(pixel)] for pixel in boxed.pixels.tolist()] == boxed.classes.tolist()


def test_categories_count_as_the_challenge_says():
    table = dict(zip(LIDARSEG_CATEGORIES, LidarLabelSource().table))
    assert table['noise'] == table['vehicle.ego'] == -1
    assert OCC3D_CLASSES[table['vehicle.bus.bendy']] == 'bus'
    assert OCC3D_CLASSES[table['human.pedestrian.police_officer']] == 'pedestrian'
    assert table['animal'] == table['static.other'] == 0
    assert set(table.values()) == {-1, *range(17)}


def prepare(results, **settings):
    settings = {**dict(source=dict(type='LidarLabelSource', point_cloud_range=None),
                       targets=('classes', 'distances'), num_rays=10**6), **settings}
    return PrepareRays(**settings)(dict(results))['rays'].validate()


def test_rays_carry_classes_and_what_moves_is_left_out_elsewhere(tmp_path, names):
    infos = [labelled(tmp_path, token, names, seed)[0] for seed, token in enumerate('kab')]
    results = make_results(infos, [0, -1, 1])
    rays = prepare(results)
    assert rays.targets['classes'].dtype == torch.long and len(rays) > 200
    assert torch.isfinite(rays.targets['distances']).all()
    masked = prepare(results, mask_dynamic=True)
    moving = torch.tensor([OCC3D_CLASSES.index(name) for name in
                           LidarLabelSource().labels.dynamic_classes])
    moves = torch.isin(rays.targets['classes'], moving)
    keep = ~moves | (rays.frame_ids == 0)
    assert 0 < int((~keep).sum()) and len(masked) == int(keep.sum())
    assert torch.equal(masked.targets['classes'], rays.targets['classes'][keep])
    torch.testing.assert_close(masked.targets['distances'], rays.targets['distances'][keep])


def test_a_teacher_beside_gives_features_and_no_classes(tmp_path, names):
    results = make_results([labelled(tmp_path, 'k', names)[0]])
    rays = prepare(results, teacher=ColumnTeacher(), targets=('lang_feats', 'classes'))
    assert rays.targets['lang_feats'].shape == (len(rays), 4)
    assert torch.equal(rays.targets['classes'], prepare(results).targets['classes'])
    empty = prepare(make_results([labelled(tmp_path, 'e', [])[0]]))
    assert len(empty) == 0 and empty.targets['classes'].shape == (0,)


def test_frames_without_right_labels_are_named(tmp_path, names):
    info, _ = labelled(tmp_path, 'k', names)
    source = LidarLabelSource()
    plain = {key: value for key, value in info.items() if key != 'pts_semantic_mask_path'}
    with pytest.raises(ValueError, match='sample k has no LiDAR labels'):
        source.draw(make_results([plain]), 9, RNG(0))
    missing = dict(info, pts_semantic_mask_path=str(tmp_path / 'none.bin'))
    with pytest.raises(FileNotFoundError, match='none.bin of sample k does not exist|none.bin'):
        source.draw(make_results([missing]), 9, RNG(0))
    (tmp_path / 'k_lidarseg.bin').write_bytes(b'12')
    with pytest.raises(ValueError, match='labels 2 points.*has 300'):
        source.draw(make_results([info]), 9, RNG(0))
    (tmp_path / 'k_lidarseg.bin').write_bytes(bytes([40] * 300))
    with pytest.raises(ValueError, match='has the category 40, expected 0 ... 31'):
        source.draw(make_results([info]), 9, RNG(0))


def test_settings_that_do_not_fit_are_named():
    source = dict(type='LidarLabelSource')
    with pytest.raises(ValueError, match="'sky' needs sky_classes in the teacher, a LidarLabel"):
        PrepareRays(source, targets=('classes', 'sky'))
    with pytest.raises(ValueError, match='needs dynamic_classes .* a LidarLabelSource'):
        PrepareRays(dict(source, dynamic_classes=()), targets=('classes',), mask_dynamic=True)
    with pytest.raises(ValueError, match=r"\['lang_feats'\] need a teacher"):
        PrepareRays(source, targets=('lang_feats',))
    with pytest.raises(ValueError, match="are the source's, a LidarLabelSource; teacher='online'"):
        PrepareRays(source, teacher='online', targets=('classes', 'lang_feats'))
    with pytest.raises(ValueError, match="'cars' is not one of its classes.*'car'"):
        TASK_UTILS.build(dict(source, dynamic_classes=['cars']))
