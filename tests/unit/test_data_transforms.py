"""Transforms: the image and its matrix agree, labels follow flips, bad files are named."""
import os

import numpy as np
import pytest
import torch
from mmdet3d.registry import TRANSFORMS
from nusc_factory import CAMERAS, GRID_SHAPE, IMAGE_SIZE, VERSION, NuScenesFactory
from PIL import Image

from langocc.datasets import NuScenesOccDataset
from langocc.datasets.geometry import lidar_to_camera, project
from langocc.datasets.nuscenes_prepare import prepare_infos
from langocc.datasets.transforms import (
    BEVAug, ImageAugmentation, LoadOccGTFromFile, PackOccInputs, PointToMultiViewDepth,
    PrepareImageInputs, sample_image_augmentation
)

CONFIG = dict(input_size=(16, 32), src_size=IMAGE_SIZE, resize=(-.06, .11), rot=(-5.4, 5.4),
              flip=True, crop_h=(0., 0.), resize_test=0.)
AUGMENTATIONS = dict(
    nothing=dict(resized_size=(240, 400), crop_offset=(0, 0), size=(240, 400)),
    resize=dict(resized_size=(107, 171), crop_offset=(0, 0), size=(107, 171)),
    enlarge=dict(resized_size=(351, 633), crop_offset=(0, 0), size=(351, 633)),
    crop=dict(resized_size=(240, 400), crop_offset=(37, 51), size=(128, 300)),
    pad=dict(resized_size=(240, 400), crop_offset=(0, -16), size=(256, 416)),
    flip=dict(resized_size=(240, 400), crop_offset=(0, 0), size=(240, 400), flip=True),
    rotate=dict(resized_size=(240, 400), crop_offset=(0, 0), size=(240, 400), rotation=5.4),
    all=dict(resized_size=(163, 281), crop_offset=(13, 22), size=(128, 256), flip=True,
             rotation=-5.4),
)


@pytest.fixture
def dataset(tmp_path):
    factory = NuScenesFactory(tmp_path / 'data').write()
    prepare_infos(factory.root, VERSION, factory.root, splits='all', prefix='tiny')
    return NuScenesOccDataset(data_root=str(factory.root), ann_file='tiny_infos_all.json',
                              camera_names=CAMERAS)


def blob_image(center, size=(240, 400), sigma=6.):
    """A smooth bright spot whose centre of mass is ``center`` (u, v)."""
    v, u = np.mgrid[:size[0], :size[1]]
    values = 255 * np.exp(-((u - center[0])**2 + (v - center[1])**2) / (2 * sigma**2))
    return Image.fromarray(np.repeat(np.round(values).astype(np.uint8)[..., None], 3, axis=2))


def centre_of_mass(image):
    values = np.asarray(image)[..., 0].astype(np.float64)
    v, u = np.mgrid[:values.shape[0], :values.shape[1]]
    return np.array([(values * u).sum(), (values * v).sum()]) / values.sum()


@pytest.mark.parametrize('name', AUGMENTATIONS)
@pytest.mark.parametrize('center', [(150.3, 130.6), (215., 161.25)])
def test_image_and_matrix_agree_to_a_fraction_of_a_pixel(name, center):
    augmentation = ImageAugmentation(source_size=(240, 400), **AUGMENTATIONS[name])
    found = centre_of_mass(augmentation.apply(blob_image(center)))
    expected = (augmentation.matrix() @ [*center, 1., 1.])
    # that the depth is kept and does not move the pixel
    np.testing.assert_array_equal(augmentation.matrix()[2:], np.eye(4)[2:])
    np.testing.assert_array_equal(augmentation.matrix()[:2, 2], 0)
    # 8-bit rounding of the spot's rim leaves a few hundredths of a pixel
    np.testing.assert_allclose(found, expected[:2], atol=0.05)


@pytest.mark.parametrize('name', ['resize', 'enlarge', 'all'])
def test_gradient_image_and_matrix_agree(name):
    augmentation = ImageAugmentation(source_size=(240, 400), **AUGMENTATIONS[name])

    def recover(ramp):
        columns = np.broadcast_to(ramp[:, None], (240, 400, 3)).round().astype(np.uint8)
        return np.asarray(augmentation.apply(Image.fromarray(columns)))[..., 0] / 0.6

    # a rising and a falling ramp: their mean is free of PIL's rounding down when it rotates
    ramp = np.arange(400) * 0.6
    found = (recover(ramp) + 399 - recover(ramp[::-1])) / 2
    height, width = augmentation.size
    v, u = np.mgrid[:height, :width]
    pixels = np.stack([u, v, np.ones_like(u), np.ones_like(u)], axis=-1)
    source = (pixels @ np.linalg.inv(augmentation.matrix()).T)[..., :2]
    white = np.asarray(augmentation.apply(Image.new('RGB', (400, 240), 'white')))[..., 0] == 255
    inner = ((source > 20) & (source < [380, 220])).all(axis=-1) & white  # not the black corners
    assert inner.mean() > 0.7
    # grey levels are 1.7 pixels apart: rounding noise is about 0.5 a pixel, and no bias is left
    difference = (found - source[..., 0])[inner]
    assert abs(difference.mean()) < 0.02 and difference.std() < 0.7


def test_exact_matrices():
    def matrix(**kwargs):
        return ImageAugmentation(source_size=(240, 400), **{**AUGMENTATIONS['nothing'], **kwargs})

    half = matrix(resized_size=(120, 200), size=(120, 200)).matrix()
    np.testing.assert_allclose(half @ [-0.5, 239.5, 7, 1], [-0.5, 119.5, 7, 1])  # edges to edges
    flip = matrix(flip=True).matrix()
    np.testing.assert_allclose(flip @ [0, 10, 7, 1], [399, 10, 7, 1])
    turn = matrix(rotation=90.).matrix()
    centre = [199.5, 119.5, 7, 1]
    np.testing.assert_allclose(turn @ centre, centre)
    np.testing.assert_allclose(turn @ [200.5, 119.5, 7, 1], [199.5, 118.5, 7, 1])  # right goes up


def test_published_rule_at_full_size():
    config = dict(input_size=(256, 704), resize=(-.06, .11), rot=(-5.4, 5.4), flip=True,
                  crop_h=(0., 0.), resize_test=0.)
    test = sample_image_augmentation(config, (900, 1600), is_train=False)
    assert test.resized_size == (396, 704) and test.crop_offset == (0, 140)
    assert not test.flip and test.rotation == 0
    np.random.seed(0)
    drawn = [sample_image_augmentation(config, (900, 1600), is_train=True) for _ in range(400)]
    widths = np.array([a.resized_size[1] for a in drawn])
    assert widths.min() < 0.39 * 1600 and widths.max() > 0.54 * 1600
    assert widths.min() >= 0.38 * 1600 and widths.max() <= 0.55 * 1600
    for augmentation in drawn:
        x, y = augmentation.crop_offset
        assert y + 256 == augmentation.resized_size[0]  # bottom-aligned
        assert 0 <= x <= max(0, augmentation.resized_size[1] - 704)
        assert abs(augmentation.rotation) <= 5.4
    assert 0.4 < np.mean([augmentation.flip for augmentation in drawn]) < 0.6
    assert len({augmentation.rotation for augmentation in drawn}) == 400
    wide = sample_image_augmentation(dict(config, resize_test=0.04), (900, 1600), is_train=False)
    assert wide.resized_size == (432, 768) and wide.crop_offset == (32, 176)  # centred
    raised = sample_image_augmentation(dict(config, crop_h=(0.1, 0.1)), (900, 1600), False)
    assert raised.crop_offset == (0, int(0.9 * 396) - 256)


def test_images_of_all_frames_and_cameras(dataset):
    np.random.seed(3)
    results = PrepareImageInputs(CONFIG, is_train=True)(dataset.get_data_info(2))
    imgs, rig = results['imgs'], results['rig']
    assert imgs.shape == (3, 2, 3, 16, 32) and imgs.dtype == torch.uint8 and imgs.is_contiguous()
    assert rig.cam2img.shape == (3, 2, 4, 4) and rig.cam2img.dtype == torch.float64
    augmentation = rig.img_aug_matrix
    assert torch.equal(augmentation[0], augmentation[1])  # shared by a camera's frames
    assert not torch.allclose(augmentation[0, 0], augmentation[0, 1])  # drawn per camera
    frames = results['frames']
    for f, c in ((0, 0), (2, 1)):
        image = frames[f]['images'][CAMERAS[c]]
        np.testing.assert_array_equal(rig.ego2global[f, c], image['ego2global'])
        np.testing.assert_array_equal(rig.cam2ego[f, c], image['cam2ego'])
        np.testing.assert_array_equal(rig.cam2img[f, c, :3, :3], image['cam2img'])
    np.testing.assert_array_equal(rig.key_ego2global, results['key_ego2global'])


def test_frames_of_a_camera_get_one_augmentation(dataset):
    """Frames with the same picture stay the same; the matrix fits every one of them."""
    np.random.seed(4)
    info = dataset.get_data_info(2)
    for frame in info['frames']:
        for camera in CAMERAS:
            blob_image((45., 28.), size=IMAGE_SIZE).save(frame['images'][camera]['img_path'])
    results = PrepareImageInputs(dict(CONFIG, input_size=(32, 64)), is_train=True)(info)
    assert torch.equal(results['imgs'][0], results['imgs'][1])
    assert torch.equal(results['imgs'][0], results['imgs'][2])
    assert not torch.equal(results['imgs'][0, 0], results['imgs'][0, 1])
    for f, c in ((0, 0), (2, 1)):
        image = results['imgs'][f, c].permute(1, 2, 0).numpy()
        expected = results['rig'].img_aug_matrix[f, c].numpy() @ [45, 28, 1, 1]
        v, u = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
        assert np.abs(expected[:2] - [u, v]).max() < 1.5


def test_rgb_order_and_test_mode(dataset):
    info = dataset.get_data_info(0)
    path = info['images']['CAM_FRONT']['img_path']
    Image.new('RGB', IMAGE_SIZE[::-1], (200, 100, 50)).save(path, quality=100)
    results = PrepareImageInputs(CONFIG)(info)
    colour = results['imgs'][0, 0, :, 8, 16].int()
    assert (colour - torch.tensor([200, 100, 50])).abs().max() <= 3
    again = PrepareImageInputs(CONFIG)(dataset.get_data_info(0))
    assert torch.equal(again['imgs'], results['imgs'])
    scale = torch.tensor([[0.4, 0], [0, 0.4]], dtype=torch.float64)
    assert torch.allclose(results['rig'].img_aug_matrix[..., :2, :2], scale)


def test_cams_and_ncams(dataset):
    one = PrepareImageInputs(dict(CONFIG, cams=['CAM_BACK'], Ncams=1))(dataset.get_data_info(0))
    assert one['imgs'].shape[1] == 1 and one['camera_names'] == ['CAM_BACK']
    both = PrepareImageInputs(dict(CONFIG, Ncams=1))(dataset.get_data_info(0))
    assert both['camera_names'] == list(CAMERAS)  # all at test
    np.random.seed(0)
    transform = PrepareImageInputs(dict(CONFIG, Ncams=1), is_train=True)
    drawn = {tuple(transform(dataset.get_data_info(0))['camera_names']) for _ in range(20)}
    assert drawn == {(name, ) for name in CAMERAS}
    with pytest.raises(ValueError, match="CAM_LEFT.* not among .*CAM_FRONT"):
        PrepareImageInputs(dict(CONFIG, cams=['CAM_LEFT']))(dataset.get_data_info(0))
    with pytest.raises(ValueError, match='Ncams is 3, there are 2'):
        PrepareImageInputs(dict(CONFIG, Ncams=3))(dataset.get_data_info(0))


def test_missing_image_is_named(dataset):
    info = dataset.get_data_info(1)
    path = info['frames'][1]['images']['CAM_BACK']['img_path']
    os.unlink(path)
    with pytest.raises(FileNotFoundError, match=f'image not found: {path}'):
        PrepareImageInputs(CONFIG)(info)


@pytest.mark.parametrize('share', [0.5, 0.95, 0.])
def test_truncated_jpeg_is_named(dataset, share):
    info = dataset.get_data_info(0)
    path = info['images']['CAM_FRONT']['img_path']
    with open(path, 'rb') as file:
        content = file.read()
    with open(path, 'wb') as file:
        file.write(content[:int(share * len(content))])
    with pytest.raises(OSError, match=f'cannot decode image {path}'):
        PrepareImageInputs(CONFIG)(info)


def test_wrong_image_size_names_both(dataset):
    path = dataset.get_data_info(0)['images']['CAM_FRONT']['img_path']
    with pytest.raises(ValueError, match=rf'{path} is 45 x 80 .*expected 900 x 1600'):
        PrepareImageInputs(dict(CONFIG, src_size=(900, 1600)))(dataset.get_data_info(0))
    free = {key: value for key, value in CONFIG.items() if key != 'src_size'}
    assert PrepareImageInputs(free)(dataset.get_data_info(0))['imgs'].shape[-2:] == (16, 32)
    old = dataset.get_data_info(2)['frames'][1]['images']['CAM_FRONT']['img_path']
    Image.new('RGB', (81, 45)).save(old)
    with pytest.raises(ValueError, match=f'{old} is 45 x 81 .*expected 45 x 80'):
        PrepareImageInputs(free)(dataset.get_data_info(2))


def test_bad_image_settings():
    with pytest.raises(ValueError, match='input_size'):
        PrepareImageInputs(dict(resize=(0, 0)))
    with pytest.raises(ValueError, match="color_type must be 'color'"):
        PrepareImageInputs(CONFIG, color_type='grayscale')


def test_bev_aug_draws_flips():
    np.random.seed(0)
    transform = BEVAug(dict(rot_lim=(0., 0.), scale_lim=(1., 1.), flip_dx_ratio=.5,
                            flip_dy_ratio=.5))
    drawn = [transform({})['bev_aug_matrix'] for _ in range(100)]
    signs = {tuple(np.diag(matrix)) for matrix in drawn}
    assert signs == {(x, y, 1., 1.) for x in (-1., 1.) for y in (-1., 1.)}
    assert drawn[0].dtype == np.float64
    np.testing.assert_array_equal(BEVAug(dict(flip_dx_ratio=1.), is_train=False)({})
                                  ['bev_aug_matrix'], np.eye(4))


def test_bev_aug_rotation_and_scale():
    matrix = BEVAug(dict(rot_lim=(90., 90.), scale_lim=(2., 2.), flip_dx_ratio=1.))({})
    expected = matrix['bev_aug_matrix'] @ [1, 0, 3, 1]
    np.testing.assert_allclose(expected, [0, 2, 6, 1], atol=1e-12)  # turn to +y, double, flip x
    with pytest.raises(ValueError, match=r"unknown \['flip'\]"):
        BEVAug(dict(flip=0.5))


@pytest.mark.parametrize('signs', [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_labels_follow_flips(dataset, signs):
    info = dict(dataset.get_data_info(0), bev_aug_matrix=np.diag([*signs, 1., 1.]))
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
def test_labels_refuse_rotation_and_scale(dataset, conf):
    with pytest.raises(ValueError, match='flips in x and y only'):
        LoadOccGTFromFile(GRID_SHAPE)(BEVAug(conf)(dataset.get_data_info(0)))


def test_bad_labels_are_named(dataset):
    info = dataset.get_data_info(0)
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
    with pytest.raises(FileNotFoundError, match=f'occupancy labels not found: {path}'):
        LoadOccGTFromFile(GRID_SHAPE)(info)
    info.pop('occ_path')
    with pytest.raises(KeyError, match='scene-a-0 has no occ_path'):
        LoadOccGTFromFile(GRID_SHAPE)(info)


def load(dataset, index, is_train, **kwargs):
    results = PrepareImageInputs(CONFIG, is_train=is_train)(dataset.get_data_info(index))
    results = TRANSFORMS.build(dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5,
                                    use_dim=5))(results)
    return PointToMultiViewDepth(dict(depth=[1., 15., .5]), **kwargs)(results)


@pytest.mark.parametrize('is_train', [False, True])
@pytest.mark.parametrize('downsample', [1, 4])
def test_depth_keeps_the_nearest_point_of_a_cell(dataset, is_train, downsample):
    np.random.seed(1)
    results = load(dataset, 1, is_train, downsample=downsample)
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


def test_projection_with_augmentation_is_the_augmented_pixel(dataset):
    np.random.seed(2)
    results = load(dataset, 2, is_train=True)
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


def test_packing(dataset):
    results = load(dataset, 0, is_train=False)
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
