"""CameraRig and OccData."""
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from langocc.structures import CameraRig, OccData


def random_rig(frames=3, cameras=2, batch=()):
    generator = torch.Generator().manual_seed(1)

    def poses(*shape):
        matrix = torch.eye(4, dtype=torch.float64).repeat(*shape, 1, 1)
        random = torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64)
        matrix[..., :3, :3] = torch.linalg.qr(random)[0]
        shift = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
        matrix[..., :3, 3] = 1e3 * shift
        return matrix

    shape = (*batch, frames, cameras)
    return CameraRig(cam2img=poses(*shape), cam2ego=poses(*shape), ego2global=poses(*shape),
                     img_aug_matrix=poses(*shape), key_ego2global=poses(*batch))


def test_cam2key_is_the_chain_of_each_camera():
    rig = random_rig()
    for frame in range(3):
        for camera in range(2):
            point = torch.tensor([1., 2., 3., 1.], dtype=torch.float64)
            in_global = rig.ego2global[frame, camera] @ rig.cam2ego[frame, camera] @ point
            expected = torch.linalg.solve(rig.key_ego2global, in_global)
            torch.testing.assert_close(rig.cam2key()[frame, camera] @ point, expected,
                                       rtol=1e-9, atol=1e-9)


def test_float32_input_becomes_float64_and_stays_it():
    matrix = torch.eye(4).expand(1, 2, 4, 4)
    rig = CameraRig(matrix, matrix, matrix, matrix, torch.eye(4))
    assert rig.cam2key().dtype == rig.to('cpu').cam2img.dtype == torch.float64


def test_batch_and_frame_equal_the_items():
    rigs = [random_rig(), random_rig()]
    rigs[1].key_ego2global[0, 3] += 5
    batch = CameraRig.stack(rigs)
    assert batch.has_frames and batch.num_frames == 3 and batch.num_cameras == 2
    torch.testing.assert_close(batch.cam2key()[1], rigs[1].cam2key())
    frame = batch.frame(2)
    assert not frame.has_frames and frame.cam2img.shape == (2, 2, 4, 4)
    torch.testing.assert_close(frame.cam2key(), batch.cam2key()[:, 2])
    torch.testing.assert_close(frame.key2img(), batch.key2img()[:, 2])
    torch.testing.assert_close(batch.cameras([1]).cam2key(), batch.cam2key()[:, :, 1:])
    with pytest.raises(ValueError, match='no frame dimension'):
        frame.frame(0)


def test_key2img_maps_a_seen_point_to_its_pixel():
    rig = random_rig(frames=1, cameras=1).frame(0)
    rig.cam2img[0] = torch.tensor([[50., 0, 20, 0], [0, 60., 10, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    in_camera = torch.tensor([2., -1., 4., 1.], dtype=torch.float64)
    image = rig.key2img()[0] @ rig.cam2key()[0] @ in_camera
    expected = torch.tensor([50 * 2 / 4 + 20, -60 / 4 + 10, 4.], dtype=torch.float64)
    torch.testing.assert_close(torch.cat([image[:2] / image[2], image[2:3]]), expected)


def test_wrong_shapes_and_values_are_named():
    good, eye = torch.eye(4).expand(3, 2, 4, 4), torch.eye(4)
    with pytest.raises(ValueError, match=r'cam2ego has shape \(2, 4, 4\)'):
        CameraRig(good, good[0], good, good, eye)
    with pytest.raises(ValueError, match='key_ego2global'):
        CameraRig(good, good, good, good, good)
    with pytest.raises(ValueError, match='rigs of one shape'):
        CameraRig.stack([random_rig(), random_rig(frames=2)])
    rig = random_rig()
    rig.ego2global[0, 0, 0, 0] = float('nan')
    with pytest.raises(ValueError, match='ego2global has a non-finite'):
        rig.validate()


def test_occ_data_keeps_tensors_and_moves_like_a_data_element():
    occ = OccData(semantics=torch.full((2, 3, 4), 17, dtype=torch.uint8))
    occ.mask_camera = torch.ones(2, 3, 4, dtype=torch.bool)
    assert isinstance(occ, BaseDataElement) and set(occ.keys()) == {'semantics', 'mask_camera'}
    assert occ.to('cpu').semantics.dtype == torch.uint8
    assert isinstance(occ.numpy().mask_camera, np.ndarray)


def test_occ_data_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r'must be \(X, Y, Z\), got shape \(2, 3\)'):
        OccData(semantics=torch.zeros(2, 3))
    with pytest.raises(TypeError, match='semantics must be a tensor'):
        OccData(semantics=[1])
    occ = OccData(semantics=torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r'mask_lidar has shape \(2, 3, 5\)'):
        occ.mask_lidar = torch.zeros(2, 3, 5)
