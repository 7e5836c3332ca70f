"""BEVStereo occupancy, fully supervised: cross-entropy on voxel labels under the camera mask.

BEVDet-Occ (R50, 4D stereo): the trunk of LangOcc's recipes, a classifier of 18 classes instead of
rendering, and the LSS depth loss from LiDAR. 24 epochs at a constant rate after the warm-up. As in
the other recipes, ImageNet weights start it, not a BEVDet detector.
"""
_base_ = ['_base_/default_runtime.py', '_base_/schedules/adamw_18e.py',
          '_base_/datasets/nus_occ3d.py', '_base_/models/langocc_r50.py']

model = dict(
    img_view_transformer=dict(loss_depth_weight=0.05),
    occ_head=dict(
        _delete_=True,
        type='BEVOccHead',
        in_channels=_base_.lift_channels,
        feat_channels=32,
        grid=dict(point_cloud_range=_base_.point_cloud_range, voxel_size=_base_.voxel_size),
        num_classes=18,
        mask='camera',
        loss_occ=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        with_cp=True))
train_pipeline = [
    dict(type='PrepareImageInputs', is_train=True, data_config=_base_.data_config),
    dict(type='BEVAug', bda_aug_conf=_base_.bda_aug_conf, is_train=True),
    dict(type='LoadOccGTFromFile'),
    dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=3),
    dict(type='PointToMultiViewDepth', grid_config=_base_.grid_config),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, ray_frame_ids=[0]))

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [_base_.param_scheduler[0]]
custom_hooks = [_base_.ema_hook]
