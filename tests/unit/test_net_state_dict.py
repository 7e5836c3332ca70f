"""Names, shapes and counts of the published model, part by part."""
import re

import pytest
import torch
from mmdet3d.registry import MODELS

import langocc.models  # noqa: F401  (registers the parts)

GRID = dict(x=[-40, 40, 0.4], y=[-40, 40, 0.4], z=[-1, 5.4, 0.4], depth=[1.0, 45.0, 0.5])
PARTS = dict(
    img_backbone=dict(type='mmdet.ResNet', depth=50, num_stages=4, out_indices=(0, 2, 3),
                      frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True),
                      norm_eval=False, style='pytorch'),
    img_neck=dict(type='CustomFPN', in_channels=[1024, 2048], out_channels=256, num_outs=1,
                  start_level=0, out_ids=[0]),
    img_view_transformer=dict(
        type='LSSViewTransformerBEVStereo', grid_config=GRID, input_size=(256, 704),
        downsample=16, in_channels=256, out_channels=32, collapse_z=False, sid=False,
        loss_depth_weight=1.,
        depthnet_cfg=dict(use_dcn=False, aspp_mid_channels=96, stereo=True, bias=5.)),
    img_bev_encoder_backbone=dict(
        type='CustomResNet3D', numC_input=64, num_layer=[1, 2, 4], num_channels=[32, 64, 128],
        stride=[1, 2, 2], backbone_output_ids=[0, 1, 2], with_cp=False),
    img_bev_encoder_neck=dict(type='LSSFPN3D', in_channels=224, out_channels=32),
    pre_process_net=dict(type='CustomResNet3D', numC_input=32, num_layer=[1], num_channels=[32],
                         stride=[1], backbone_output_ids=[0]))
PARAMETERS = dict(img_backbone=23_508_032, img_neck=1_377_024, img_view_transformer=5_840_638,
                  img_bev_encoder_backbone=4_122_688, img_bev_encoder_neck=7_232,
                  pre_process_net=83_136)  # paper.md, "Model"


@pytest.fixture(scope='module')
def parts():
    """Every part at full size, without memory."""
    with torch.device('meta'):
        return {name: MODELS.build(cfg) for name, cfg in PARTS.items()}


def published(shared_root, part):
    """Name -> shape of one part of the published list."""
    text = (shared_root / 'design' / 'published_state_dict.txt').read_text()
    found = re.findall(rf'^{part}\.(\S+) \(([\d, ]*)\)$', text, flags=re.MULTILINE)
    return {name: tuple(int(size) for size in re.findall(r'\d+', shape)) for name, shape in found}


@pytest.mark.parametrize('part', PARTS)
def test_names_and_shapes_are_the_published_ones(parts, shared_root, part):
    ours = {name: tuple(value.shape) for name, value in parts[part].state_dict().items()}
    expected = published(shared_root, part)
    assert len(expected) > 5
    assert ours == expected


@pytest.mark.parametrize('part', PARTS)
def test_parameter_counts(parts, part):
    assert sum(value.numel() for value in parts[part].parameters()) == PARAMETERS[part]
