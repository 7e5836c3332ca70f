"""ImageFeatureHead: key-frame rays find their pixels; others are left out; the detector's use."""
import copy

import pytest
import torch
import torch.nn.functional as F
from test_detector import CONFIG, GRID, SIZE, build, make_batch, run
from test_net_view_transform import eye, make_rig

from langocc.models.heads import ImageFeatureHead
from langocc.models.view_transforms import sample_pixels
from voxelrender import RayBundle

PIXELS = torch.tensor([[20., 10.], [60., 40.], [5., 60.], [90., 3.]])
CAMERAS = torch.tensor([0, 1, 1, 0])


def make_rays(frames=(0, 0, 0, 0), pixels=PIXELS):
    """Rays through ``pixels`` of a camera at (0, 0, 1) that looks along +x (0) or -x (1)."""
    right, down = (pixels[:, 0] - 48) / 48, (pixels[:, 1] - 32) / 48
    sign = 1. - 2 * CAMERAS
    directions = F.normalize(torch.stack([sign, -sign * right, -down], -1), dim=-1)
    origins = torch.tensor([0., 0, 1]).expand(4, 3)
    torch.manual_seed(3)
    targets = dict(lang_feats=F.normalize(torch.randn(4, 6), dim=-1))
    return RayBundle(origins, directions, CAMERAS, torch.tensor(frames), targets)


def make_head(**changes):
    torch.manual_seed(0)
    return ImageFeatureHead(**dict(dict(in_channels=3, embed_dims=6, input_size=(64, 96),
                                        downsample=16, mode='cosine'), **changes))


def expected_loss(head, feats, rays, keep):
    rows = [sample_pixels(feats[0, CAMERAS[i]], PIXELS[i:i + 1].double(), 16)[0] for i in keep]
    pred = head(torch.stack(rows))
    return (1 - (pred * rays.targets['lang_feats'][keep]).sum(-1)).mean()


def test_loss_by_hand():
    head, feats, rays = make_head(), torch.randn(1, 2, 3, 4, 6), make_rays()
    losses = head.loss(feats, make_rig(), eye(), [rays], lambda embeds: embeds)
    torch.testing.assert_close(losses['loss_image'], expected_loss(head, feats, rays, [0, 3, 1, 2]))
    half = make_head(loss_weight=0.5).loss(feats, make_rig(), eye(), [rays], lambda e: e)
    torch.testing.assert_close(half['loss_image'], 0.5 * losses['loss_image'])


def test_flipped_rays_find_the_same_pixels():
    head, feats, rays = make_head(), torch.randn(1, 2, 3, 4, 6), make_rays()
    flip = torch.diag(torch.tensor([-1., 1, 1, 1]))
    losses = head.loss(feats, make_rig(), flip[None], [rays.transformed(flip)], lambda e: e)
    torch.testing.assert_close(losses['loss_image'], expected_loss(head, feats, rays, [0, 3, 1, 2]))


def test_other_frames_and_lost_pixels_are_left_out():
    head, feats = make_head(), torch.randn(1, 2, 3, 4, 6)
    rays = make_rays(frames=(0, 2, 0, -1))
    losses = head.loss(feats, make_rig(), eye(), [rays], lambda embeds: embeds)
    torch.testing.assert_close(losses['loss_image'], expected_loss(head, feats, rays, [0, 2]))
    outside = PIXELS.clone()
    outside[2] = torch.tensor([5., 80.])  # below a cropped image
    rays = make_rays(frames=(0, 2, 0, -1), pixels=outside)
    losses = head.loss(feats, make_rig(), eye(), [rays], lambda embeds: embeds)
    torch.testing.assert_close(losses['loss_image'], expected_loss(head, feats, rays, [0]))


def test_nothing_left_is_zero_and_connected():
    head, feats = make_head(mode='centered_cosine'), torch.randn(1, 2, 3, 4, 6)
    loss = head.loss(feats, make_rig(), eye(), [make_rays(frames=(1, 1, 1, 1))],
                     lambda embeds: embeds)['loss_image']
    loss.backward()
    assert loss == 0 and head.layers[1].weight.grad is not None


def test_targets_are_reduced_and_checked():
    feats = torch.randn(1, 2, 3, 4, 6)
    head = make_head(embed_dims=2)
    assert head.loss(feats, make_rig(), eye(), [make_rays()], lambda embeds: embeds[:, :2])
    with pytest.raises(ValueError, match=r'features \(4, 2\), the teacher \(reduced\) \(4, 6\)'):
        head.loss(feats, make_rig(), eye(), [make_rays()], lambda embeds: embeds)
    rays = make_rays()
    rays.targets.clear()
    with pytest.raises(KeyError, match="needs the ray target 'lang_feats'"):
        head.loss(feats, make_rig(), eye(), [rays], lambda embeds: embeds)


def sampled(**changes):
    """The detector of one frame with sampling, columns, skip and image head."""
    return build(**dict(dict(
        num_adj=0, stereo=False, volume_skip=True, pre_process=None,
        img_backbone=dict(CONFIG['img_backbone'], out_indices=(2, 3)),
        img_view_transformer=dict(
            type='SamplingViewTransformer', grid_config=GRID, input_size=SIZE, downsample=16,
            in_channels=16, out_channels=5),
        img_bev_encoder_backbone=dict(type='ColumnEncoder', in_channels=5, num_layers=4,
                                      out_channels=3, channels=8, num_blocks=1),
        img_bev_encoder_neck=None,
        occ_head=dict(copy.deepcopy(CONFIG['occ_head']), in_channels=8),
        image_head=dict(type='ImageFeatureHead', in_channels=4, embed_dims=6, input_size=SIZE,
                        downsample=16)), **changes))


def make_sampled_batch():
    batch = make_batch(frames=1)
    for sample in batch['data_samples']:
        rays = make_rays()
        sample.gt_image_rays = RayBundle(rays.origins, rays.directions, rays.camera_ids,
                                         rays.frame_ids, rays.targets)
    return batch


def test_detector_with_sampling_trains_every_parameter():
    model = sampled().train()
    losses = run(model, make_sampled_batch(), 'loss')
    assert losses['loss_image'] > 0
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_skip_gives_the_lifted_volume_beside_the_encoded_one():
    model = sampled().eval()
    inputs = model.data_preprocessor(make_sampled_batch())['inputs']
    volume, depth = model.extract_volume(inputs)
    plain = sampled(volume_skip=False, image_head=None,
                    occ_head=dict(copy.deepcopy(CONFIG['occ_head']), in_channels=3)).eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items()
                           if not name.startswith(('occ_head', 'image_head'))}, strict=False)
    assert depth is None and volume.shape[1] == 8
    torch.testing.assert_close(volume[:, :3], plain.extract_volume(inputs)[0])
    assert set(volume[:, 7].unique().tolist()) == {0., 1.}  # the lifted volume's visibility


def test_prediction_needs_no_image_rays_and_training_does():
    model = sampled()
    batch = make_batch(frames=1)
    assert run(model.eval(), batch, 'predict')[0].pred_occ.semantics.shape == (16, 16, 4)
    with pytest.raises(KeyError, match="gt_image_rays, missing in samples .'sample0'.*image_rays"):
        run(model.train(), make_batch(frames=1), 'loss')
