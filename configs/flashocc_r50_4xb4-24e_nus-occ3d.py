"""FlashOcc: the supervised twin without a 3D network; channels become heights in the last layer.

R50, BEVStereo, the key frame and one before: features are lifted into one layer of columns, encoded
in the plane, and classified as 16 heights x 18 classes a column. Labels, mask, depth loss and
schedule are those of bevstereo-occ_r50_4xb4-24e_nus-occ3d.py.
"""
_base_ = ['bevstereo-occ_r50_4xb4-24e_nus-occ3d.py']

lift_channels = 80
model = dict(
    img_view_transformer=dict(
        grid_config=dict(z=[-1, 5.4, 6.4]), out_channels=lift_channels, collapse_z=True),
    pre_process=dict(_delete_=True, type='CustomResNet', numC_input=lift_channels, num_layer=[1],
                     num_channels=[lift_channels], stride=[1], backbone_output_ids=[0]),
    img_bev_encoder_backbone=dict(
        _delete_=True, type='CustomResNet', numC_input=2 * lift_channels, num_layer=[2, 2, 2],
        num_channels=[2 * lift_channels, 4 * lift_channels, 8 * lift_channels], stride=[2, 2, 2]),
    img_bev_encoder_neck=dict(_delete_=True, type='FPN_LSS', in_channels=10 * lift_channels,
                              out_channels=256),
    occ_head=dict(
        _delete_=True,
        type='BEVOccHead2D',
        in_channels=256,
        feat_channels=256,
        grid=dict(point_cloud_range=_base_.point_cloud_range, voxel_size=_base_.voxel_size),
        num_classes=18,
        mask='camera',
        loss_occ=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        with_cp=True))
