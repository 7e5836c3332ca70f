"""Image and BEV augmentation: what is drawn, what is done, and the matrix that says so.

Pixel rule: integer coordinates are pixel centres, so an image spans [-0.5, W - 0.5]. Then a resize
by s maps u to s * u + (s - 1) / 2, a flip maps u to W - 1 - u, and the centre of an image is
((W - 1) / 2, (H - 1) / 2). Random numbers come from numpy's global generator (mmengine seeds it in
every worker).
"""
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from PIL import Image


@dataclass(frozen=True)
class ImageAugmentation:
    """Resize, crop, flip, rotate, in this order.

    Attributes:
        source_size: (H, W) of the original image, pixels.
        resized_size: (H, W) after the resize; the exact scales are the ratios of the two.
        crop_offset: (x, y) of the crop's first pixel in the resized image; what lies outside is
            black.
        size: (H, W) of the result.
        flip: mirror left-right.
        rotation: degrees, counter-clockwise as seen, about the crop's centre; corners are black.
    """
    source_size: Tuple[int, int]
    resized_size: Tuple[int, int]
    crop_offset: Tuple[int, int]
    size: Tuple[int, int]
    flip: bool = False
    rotation: float = 0.

    def apply(self, image: Image.Image) -> Image.Image:
        """The augmented image; the input is not changed.

        Raises:
            ValueError: the image is not of ``source_size``.
        """
        if image.size != self.source_size[::-1]:
            raise ValueError(f'the image is {image.size[::-1]} (H, W), the augmentation is for '
                             f'{self.source_size}')
        (height, width), (x, y) = self.size, self.crop_offset
        if self.resized_size != self.source_size:
            image = image.resize(self.resized_size[::-1], resample=Image.BICUBIC)
        image = image.crop((x, y, x + width, y + height))
        if self.flip:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
        if self.rotation:
            image = image.rotate(self.rotation, resample=Image.BILINEAR)
        return image

    def matrix(self) -> np.ndarray:
        """(4, 4) float64, original pixel -> augmented pixel; acts on (u, v, depth, 1)."""
        scale_y, scale_x = np.array(self.resized_size) / np.array(self.source_size)
        height, width = self.size
        resize = _affine(np.diag([scale_x, scale_y]), [(scale_x - 1) / 2, (scale_y - 1) / 2])
        matrix = _affine(np.eye(2), [-self.crop_offset[0], -self.crop_offset[1]]) @ resize
        if self.flip:
            matrix = _affine(np.diag([-1., 1.]), [width - 1, 0]) @ matrix
        if self.rotation:
            angle = np.deg2rad(self.rotation)
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            centre = np.array([(width - 1) / 2, (height - 1) / 2])
            matrix = _affine(turn, centre - turn @ centre) @ matrix
        return matrix


def _affine(block: np.ndarray, translation: Sequence[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:2, :2] = block
    matrix[:2, 3] = translation
    return matrix


def sample_image_augmentation(data_config: dict, source_size: Tuple[int, int],
                              is_train: bool) -> ImageAugmentation:
    """Draws an augmentation by the published rule (BEVDet's keys).

    Train: scale = input_w / source_w + U(resize), crop x uniform, y = (1 - U(crop_h)) * h - input_h
    (0 = bottom-aligned), flip with p 0.5, rotation U(rot) degrees. Test: scale = input_w / source_w
    + resize_test, crop x centred, the mean of crop_h, no flip, no rotation.

    Args:
        data_config: ``input_size`` (H, W); ``resize``, ``rot``, ``crop_h`` (low, high); ``flip``
            bool; ``resize_test``.
        source_size: (H, W), pixels.
        is_train: draw, or take the test values.
    """
    height, width = (int(number) for number in data_config['input_size'])
    source_height, source_width = source_size
    crop_h = data_config.get('crop_h', (0., 0.))
    scale = width / source_width
    if is_train:
        scale += np.random.uniform(*data_config.get('resize', (0., 0.)))
    else:
        scale += data_config.get('resize_test', 0.)
    if scale <= 0:
        raise ValueError(f'data_config gives an image scale of {scale}')
    resized = (max(1, round(source_height * scale)), max(1, round(source_width * scale)))
    spare = max(0, resized[1] - width)
    lift = np.random.uniform(*crop_h) if is_train else np.mean(crop_h)
    offset_y = int((1 - lift) * resized[0]) - height
    offset_x = int(np.random.uniform(0, spare)) if is_train else spare // 2
    flip = bool(is_train and data_config.get('flip', False) and np.random.choice([0, 1]))
    rotation = np.random.uniform(*data_config.get('rot', (0., 0.))) if is_train else 0.
    return ImageAugmentation(
        source_size=tuple(source_size), resized_size=resized, crop_offset=(offset_x, offset_y),
        size=(height, width), flip=flip, rotation=float(rotation))


@TRANSFORMS.register_module()
class BEVAug(BaseTransform):
    """Draws ``bev_aug_matrix`` (4, 4) float64, ego -> augmented ego.

    The matrix is flip @ scale @ rotation. The published recipe flips only; occupancy labels refuse
    the rest (:class:`LoadOccGTFromFile`), so this transform comes before them.

    Args:
        bda_aug_conf: BEVDet's keys: ``rot_lim`` (low, high) degrees about z, ``scale_lim``,
            ``flip_dx_ratio``, ``flip_dy_ratio`` (probability to negate x, y). None = identity.
        is_train: draw; otherwise the identity.

    Raises:
        ValueError: an unknown key.
    """
    _KEYS = ('rot_lim', 'scale_lim', 'tran_lim', 'flip_dx_ratio', 'flip_dy_ratio')

    def __init__(self, bda_aug_conf: Optional[dict] = None, is_train: bool = True) -> None:
        self.bda_aug_conf = dict(bda_aug_conf or {})
        self.is_train = is_train
        unknown = set(self.bda_aug_conf) - set(self._KEYS)
        if unknown:
            raise ValueError(f'bda_aug_conf: unknown {sorted(unknown)}; known: {self._KEYS}')
        if np.any(self.bda_aug_conf.get('tran_lim', 0.)):
            raise ValueError('bda_aug_conf: tran_lim is not supported, got '
                             f'{self.bda_aug_conf["tran_lim"]}')

    def transform(self, results: dict) -> dict:
        """Adds ``bev_aug_matrix``."""
        results['bev_aug_matrix'] = self._draw() if self.is_train else np.eye(4)
        return results

    def _draw(self) -> np.ndarray:
        conf = self.bda_aug_conf
        angle = np.deg2rad(np.random.uniform(*conf.get('rot_lim', (0., 0.))))
        scale = np.random.uniform(*conf.get('scale_lim', (1., 1.)))
        flip_x = np.random.uniform() < conf.get('flip_dx_ratio', 0.)
        flip_y = np.random.uniform() < conf.get('flip_dy_ratio', 0.)
        matrix = np.eye(4)
        matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[:3, :3] *= scale
        return np.diag([-1. if flip_x else 1., -1. if flip_y else 1., 1., 1.]) @ matrix

    def __repr__(self) -> str:
        return f'{type(self).__name__}(bda_aug_conf={self.bda_aug_conf}, is_train={self.is_train})'
