"""An occupancy head on the bird's eye view of mmdet3d's PointPillars, beside its anchor head."""
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import langocc  # noqa: F401
from voxelrender import RayBundle

init_default_scope('mmdet3d')
RANGE, PILLAR = [-8, -6, -1, 8, 6, 3], [1., 1., 4.]
POINTPILLARS = dict(
    type='VoxelNet',
    data_preprocessor=dict(
        type='Det3DDataPreprocessor', voxel=True,
        voxel_layer=dict(max_num_points=8, point_cloud_range=RANGE, voxel_size=PILLAR,
                         max_voxels=(200, 200))),
    voxel_encoder=dict(type='PillarFeatureNet', in_channels=4, feat_channels=[8],
                       voxel_size=PILLAR, point_cloud_range=RANGE),
    middle_encoder=dict(type='PointPillarsScatter', in_channels=8, output_shape=[12, 16]),
    backbone=dict(type='SECOND', in_channels=8, layer_nums=[1, 1], layer_strides=[1, 2],
                  out_channels=[8, 8]),
    neck=dict(type='SECONDFPN', in_channels=[8, 8], upsample_strides=[1, 2],
              out_channels=[8, 8]),
    bbox_head=dict(
        type='Anchor3DHead', num_classes=1, in_channels=16, feat_channels=16,
        use_direction_classifier=True, diff_rad_by_sin=True,
        anchor_generator=dict(type='AlignedAnchor3DRangeGenerator',
                              ranges=[[-8, -6, 0, 8, 6, 0]], sizes=[[4, 2, 1.5]],
                              rotations=[0, 1.57], reshape_out=True),
        bbox_coder=dict(type='DeltaXYZWLHRBBoxCoder'),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='mmdet.SmoothL1Loss'),
        loss_dir=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False)),
    train_cfg=dict(
        assigner=dict(type='Max3DIoUAssigner', pos_iou_thr=0.6, neg_iou_thr=0.45,
                      iou_calculator=dict(type='mmdet3d.BboxOverlapsNearest3D'),
                      min_pos_iou=0.45, ignore_iof_thr=-1),
        allowed_border=0, pos_weight=-1, debug=False),
    test_cfg=dict(use_rotate_nms=True, nms_across_levels=False, nms_thr=0.01, score_thr=0.,
                  min_bbox_size=0, nms_pre=20, max_num=5))
MODEL = dict(
    type='DetectorWithOccHead', detector=POINTPILLARS,
    volume=dict(module='neck', level=0, order='yx'),
    volume_neck=dict(type='BEVToVolume', in_channels=16, out_channels=6, num_layers=4),
    occ_head=dict(
        type='LangOccHead', in_channels=6, feat_channels=8,
        grid=dict(point_cloud_range=RANGE, voxel_size=[1., 1., 1.]),
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=5, hidden_channels=8)),
        renderer=dict(type='VolumeRenderer', far=12., num_proposal_samples=10, num_samples=12),
        losses=dict(lang=dict(type='RenderedFeatureLoss', mode='mse'))))


def make_batch():
    torch.manual_seed(1)
    points = torch.cat([torch.rand(300, 3) * torch.tensor([16., 12, 4]) - torch.tensor([8., 6, 1]),
                        torch.rand(300, 1)], dim=1)
    sample = Det3DDataSample(metainfo=dict(token='a', box_type_3d=LiDARInstance3DBoxes))
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(torch.tensor([[3., 2, -0.7, 4, 2, 1.5, 0.]])),
        labels_3d=torch.tensor([0]))
    sample.gt_rays = RayBundle(
        torch.zeros(40, 3), F.normalize(torch.randn(40, 3), dim=-1),
        targets=dict(lang_feats=F.normalize(torch.randn(40, 5), dim=-1)))
    return dict(inputs=dict(points=[points]), data_samples=[sample])


def test_one_pass_trains_and_predicts_both():
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(MODEL))  # as a config file gives it
    model.init_weights()
    model.train()
    losses = model(**model.data_preprocessor(make_batch(), True), mode='loss')
    assert {'loss_cls', 'loss_bbox', 'loss_dir', 'loss_lang'} <= set(losses)
    losses['loss_lang'].backward()  # language alone teaches the LiDAR network
    assert model.detector.voxel_encoder.pfn_layers[0].linear.weight.grad.any()
    assert model.detector.bbox_head.conv_cls.weight.grad is None
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(make_batch(), False)
        prediction, = model(**data, mode='predict')
        field = model.extract_field(data['inputs'])
    assert tuple(prediction.pred_occ.semantics.shape) == (16, 12, 4)
    assert len(prediction.pred_instances_3d.bboxes_3d) > 0
    assert field.densities.shape == (1, 4, 12, 16)
