"""FlashOcc's idea on the synthetic street: the tiny lift, then only the plane, on voxel labels.

The layers of the lifted volume are stacked in the channels; a 2D network encodes them, and each
column's channels become 16 heights x 18 classes.
"""
_base_ = ['bevstereo-occ-tiny_r18_1xb1_synthetic.py']

frames = 1 + _base_.model.num_adj
heights = round((_base_.grid_config.z[1] - _base_.grid_config.z[0]) / _base_.grid_config.z[2])
bev_channels = 32
model = dict(
    volume_skip=False,
    pre_process=None,
    img_bev_encoder_backbone=dict(
        _delete_=True, type='CustomResNet', num_layer=[1, 1, 1], stride=[1, 2, 2],
        numC_input=frames * heights * _base_.model.img_view_transformer.out_channels,
        num_channels=[bev_channels, 2 * bev_channels, 4 * bev_channels]),
    img_bev_encoder_neck=dict(
        _delete_=True, type='FPN_LSS', in_channels=5 * bev_channels, out_channels=2 * bev_channels,
        extra_upsample=round(_base_.grid_config.x[2] / _base_.voxel_size[0])),
    occ_head=dict(
        _delete_=True,
        type='BEVOccHead2D',
        in_channels=2 * bev_channels,
        feat_channels=2 * bev_channels,
        grid=_base_.model.occ_head.grid,
        mask='camera',
        loss_occ=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
