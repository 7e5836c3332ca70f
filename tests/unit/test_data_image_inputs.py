"""PrepareImageInputs: every frame and camera with its matrices; bad files are named."""
import os

import numpy as np
import pytest
import torch
from nusc_factory import CAMERAS, DATA_CONFIG, IMAGE_SIZE, blob_image
from PIL import Image

from langocc.datasets.transforms import PrepareImageInputs


def test_images_of_all_frames_and_cameras(tiny_dataset):
    np.random.seed(3)
    results = PrepareImageInputs(DATA_CONFIG, is_train=True)(tiny_dataset.get_data_info(2))
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


def test_frames_of_a_camera_get_one_augmentation(tiny_dataset):
    """Frames with the same picture stay the same; the matrix fits every one of them."""
    np.random.seed(4)
    info = tiny_dataset.get_data_info(2)
    for frame in info['frames']:
        for camera in CAMERAS:
            blob_image((45., 28.), size=IMAGE_SIZE).save(frame['images'][camera]['img_path'])
    results = PrepareImageInputs(dict(DATA_CONFIG, input_size=(32, 64)), is_train=True)(info)
    assert torch.equal(results['imgs'][0], results['imgs'][1])
    assert torch.equal(results['imgs'][0], results['imgs'][2])
    assert not torch.equal(results['imgs'][0, 0], results['imgs'][0, 1])
    for f, c in ((0, 0), (2, 1)):
        image = results['imgs'][f, c].permute(1, 2, 0).numpy()
        expected = results['rig'].img_aug_matrix[f, c].numpy() @ [45, 28, 1, 1]
        v, u = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
        assert np.abs(expected[:2] - [u, v]).max() < 1.5


def test_rgb_order_and_test_mode(tiny_dataset):
    info = tiny_dataset.get_data_info(0)
    path = info['images']['CAM_FRONT']['img_path']
    Image.new('RGB', IMAGE_SIZE[::-1], (200, 100, 50)).save(path, quality=100)
    results = PrepareImageInputs(DATA_CONFIG)(info)
    colour = results['imgs'][0, 0, :, 8, 16].int()
    assert (colour - torch.tensor([200, 100, 50])).abs().max() <= 3
    again = PrepareImageInputs(DATA_CONFIG)(tiny_dataset.get_data_info(0))
    assert torch.equal(again['imgs'], results['imgs'])
    scale = torch.tensor([[0.4, 0], [0, 0.4]], dtype=torch.float64)
    assert torch.allclose(results['rig'].img_aug_matrix[..., :2, :2], scale)


def test_cams_and_ncams(tiny_dataset):
    alone = PrepareImageInputs(dict(DATA_CONFIG, cams=['CAM_BACK'], Ncams=1))
    one = alone(tiny_dataset.get_data_info(0))
    assert one['imgs'].shape[1] == 1 and one['camera_names'] == ['CAM_BACK']
    both = PrepareImageInputs(dict(DATA_CONFIG, Ncams=1))(tiny_dataset.get_data_info(0))
    assert both['camera_names'] == list(CAMERAS)  # all at test
    np.random.seed(0)
    transform = PrepareImageInputs(dict(DATA_CONFIG, Ncams=1), is_train=True)
    drawn = {tuple(transform(tiny_dataset.get_data_info(0))['camera_names']) for _ in range(20)}
    assert drawn == {(name, ) for name in CAMERAS}
    with pytest.raises(ValueError, match="CAM_LEFT.* not among .*CAM_FRONT"):
        PrepareImageInputs(dict(DATA_CONFIG, cams=['CAM_LEFT']))(tiny_dataset.get_data_info(0))
    with pytest.raises(ValueError, match='Ncams is 3, there are 2'):
        PrepareImageInputs(dict(DATA_CONFIG, Ncams=3))(tiny_dataset.get_data_info(0))


def test_missing_image_is_named(tiny_dataset):
    info = tiny_dataset.get_data_info(1)
    path = info['frames'][1]['images']['CAM_BACK']['img_path']
    os.unlink(path)
    with pytest.raises(FileNotFoundError, match=f'image not found: {path}'):
        PrepareImageInputs(DATA_CONFIG)(info)


@pytest.mark.parametrize('share', [0.5, 0.95, 0.])
def test_truncated_jpeg_is_named(tiny_dataset, share):
    info = tiny_dataset.get_data_info(0)
    path = info['images']['CAM_FRONT']['img_path']
    with open(path, 'rb') as file:
        content = file.read()
    with open(path, 'wb') as file:
        file.write(content[:int(share * len(content))])
    with pytest.raises(OSError, match=f'cannot decode image {path}'):
        PrepareImageInputs(DATA_CONFIG)(info)


def test_wrong_image_size_names_both(tiny_dataset):
    path = tiny_dataset.get_data_info(0)['images']['CAM_FRONT']['img_path']
    with pytest.raises(ValueError, match=rf'{path} is 45 x 80 .*expected 900 x 1600'):
        PrepareImageInputs(dict(DATA_CONFIG, src_size=(900, 1600)))(tiny_dataset.get_data_info(0))
    free = {key: value for key, value in DATA_CONFIG.items() if key != 'src_size'}
    assert PrepareImageInputs(free)(tiny_dataset.get_data_info(0))['imgs'].shape[-2:] == (16, 32)
    old = tiny_dataset.get_data_info(2)['frames'][1]['images']['CAM_FRONT']['img_path']
    Image.new('RGB', (81, 45)).save(old)
    with pytest.raises(ValueError, match=f'{old} is 45 x 81 .*expected 45 x 80'):
        PrepareImageInputs(free)(tiny_dataset.get_data_info(2))


def test_bad_image_settings():
    with pytest.raises(ValueError, match='input_size'):
        PrepareImageInputs(dict(resize=(0, 0)))
    with pytest.raises(ValueError, match="color_type must be 'color'"):
        PrepareImageInputs(DATA_CONFIG, color_type='grayscale')
