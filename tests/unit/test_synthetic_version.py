"""The bytes of the synthetic world have not changed unnoticed since GENERATOR_VERSION was raised.

Pinned are one frame of a training and of a validation street: exactly what depends on no last digit
of a sine, of a random normal number or of a JPEG; the rest within what other machines may give.
"""
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from langocc.synthetic.frames import make_frame
from langocc.synthetic.records import GENERATOR_VERSION, Settings

SETTINGS = Settings(scenes_train=1, scenes_val=1, frames=3, image_size=(64, 36))
# Of GENERATOR_VERSION 1. A change of the generator that changes these raises the version: sets of
# two versions are then not mixed, nor their scores compared.
PINNED = dict(
    train=dict(
        exact=dict(record='3ed990ea4bfc0fa3', voxels='32a4f2ad292e92ba'),
        colours=[145., 153.7, 158.2, 47.7, 52.2, 59.7], points=[26388],
        places=[7., 6.91, 1.62, 38.29, 12.49], masks=[102863, 226252],
        labels=[0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 215, 4693, 0, 0, 0, 53, 272, 19,
                13423, 1309, 852, 2035, 2180, 0, 1270, 0],
        teacher=[1.6, 2.2, 1.4, 3.5, 25.8, 1.7, 1.4, 1.9, 1.8, 4.5, 5.2, 45.7, 12.5, 15., 12.3,
                 23.6, 20.6, 72.4, 2.]),
    val=dict(
        exact=dict(record='138b63f4b2b6ade2', voxels='7de3ca4dacbd4c60'),
        colours=[127.1, 127.9, 128.6, 40.3, 43.9, 47.], points=[31482],
        places=[6.01, 7.03, 1.56, 52.3, 14.85], masks=[82519, 97164],
        labels=[0, 0, 232, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 9, 715, 0, 0, 0, 2, 0, 0, 8859,
                1557, 5417, 923, 13573, 0, 155, 0],
        teacher=[1.2, 5.6, 1.2, 5.1, 10.4, 1., 1.1, 2.5, 1.2, 1., 3.8, 29.5, 4.7, 25., 10.3, 116.2,
                 16.6, 17.1, 1.7]))


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def steps(values, size=0.01):
    """Whole steps; their borders lie where no round number does."""
    return np.floor(np.asarray(values) / size + 0.371).astype(int).tolist()


def exact(root, record):
    """Names, times, poses and boxes to a centimetre, and the class of every voxel."""
    sensors = [[name, *(sensor[key] for key in ('token', 'timestamp', 'filename')),
                steps(sensor['translation']), steps(sensor['rotation'], 1e-3)]
               for name, sensor in sorted(record['sensors'].items())]
    boxes = [[*(box[key] for key in ('object', 'category', 'attributes')), steps(
        box['translation']), steps(box['size']), steps(box['rotation'], 1e-3)]
        for box in record['boxes']]
    text = json.dumps([record['token'], record['timestamp'], record['files'], sensors, boxes])
    with np.load(next(root.glob('gts/*/*/labels.npz'))) as labels:
        return dict(record=digest(text.encode()), voxels=digest(labels['semantics'].tobytes()))


def near(root):
    """name -> numbers, and by how much they may differ."""
    images = np.stack([np.asarray(Image.open(path)) for path in root.glob('samples/CAM*/*.jpg')])
    points = np.fromfile(next(root.glob('samples/LIDAR_TOP/*')), np.float32).reshape(-1, 5)
    labels = np.fromfile(next(root.glob('lidarseg/*/*')), np.uint8)
    teacher = np.mean([np.load(path)['probs'].mean((1, 2)) for path in root.glob('teacher*/*')], 0)
    with np.load(next(root.glob('gts/*/*/labels.npz'))) as file:
        masks = [int(file[name].sum()) for name in ('mask_lidar', 'mask_camera')]
    return dict(colours=([*images.mean((0, 1, 2)), *images.std((0, 1, 2))], 0.5),
                points=([len(points)], 10), places=(np.abs(points).mean(0), 0.02),
                labels=(np.bincount(labels, minlength=32), 30), teacher=(teacher, 0.5),
                masks=(masks, 200))


@pytest.mark.parametrize('scene', SETTINGS.scenes(), ids=lambda scene: scene.split)
def test_the_world_is_that_of_its_version(scene, tmp_path):
    assert GENERATOR_VERSION == 1, 'pin what this version makes'
    record = json.loads(make_frame(tmp_path, scene, 1).read_text())
    pinned = PINNED[scene.split]
    assert exact(tmp_path, record) == pinned['exact'], (
        'the same arguments give another world: raise GENERATOR_VERSION and pin this one')
    for name, (values, room) in near(tmp_path).items():
        np.testing.assert_allclose(values, pinned[name], atol=room, rtol=0, err_msg=(
            f'{name}: the same arguments give other bytes: raise GENERATOR_VERSION'))
