"""ImageAugmentation and BEVAug: the image and its matrix agree, what is drawn follows BEVDet."""
import numpy as np
import pytest
from nusc_factory import blob_image
from PIL import Image

from langocc.datasets.transforms import BEVAug, ImageAugmentation, sample_image_augmentation

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
