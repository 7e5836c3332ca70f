"""Two tasks on one ImVoxelNet volume: occupancy by LangOccHead, boxes by mmdet3d's CenterHead.

The boxes are the data set's annotations, in the key ego frame; the occupancy head sees none.
"""
_base_ = ['langocc-imvoxelnet-tiny_r18_1xb1_synthetic-camera.py']

class_names = ['car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle',
               'pedestrian', 'traffic_cone', 'barrier']
cell = 0.8
post_center_range = [-45, -45, -5, 45, 45, 8]
bbox_head = dict(
    type='CenterHead',
    in_channels=64,
    tasks=[dict(num_class=len(class_names), class_names=class_names)],
    common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
    share_conv_channel=32,
    bbox_coder=dict(type='CenterPointBBoxCoder', pc_range=_base_.point_cloud_range[:2],
                    post_center_range=post_center_range, max_num=100, score_threshold=0.1,
                    out_size_factor=1, voxel_size=[cell, cell], code_size=9),
    separate_head=dict(type='BiasedSeparateHead', init_bias=-2.19, final_kernel=3, head_conv=32),
    # A tenth of CenterPoint's: at the start boxes and occupancy then move the shared part about
    # equally (both are clipped together).
    loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean', loss_weight=0.1),
    loss_bbox=dict(type='mmdet.L1Loss', reduction='mean', loss_weight=0.25),
    norm_bbox=True)
model = dict(
    without=(),
    volume=dict(module='neck_3d.0'),
    detector=dict(
        neck_3d=dict(
            _delete_=True,
            type='SequentialNeck',
            stages=[_base_.model.detector.neck_3d,
                    dict(type='VolumeToBEV', in_channels=32, num_layers=_base_.n_voxels[2],
                         out_channels=64, order='xyz')]),
        bbox_head=bbox_head,
        train_cfg=dict(
            grid_size=[*_base_.n_voxels[:2], 1], voxel_size=[cell, cell, 6.4], out_size_factor=1,
            point_cloud_range=_base_.point_cloud_range, dense_reg=1, gaussian_overlap=0.1,
            max_objs=200, min_radius=2, code_weights=[1., 1., 1., 1., 1., 1., 1., 1., 0.2, 0.2]),
        test_cfg=dict(nms_type='circle', min_radius=[2.], post_max_size=100)))

train_pipeline = _base_.train_pipeline
train_pipeline[-1:-1] = [
    dict(type='LoadEgoBoxes'),
    dict(type='ObjectRangeFilter', point_cloud_range=_base_.point_cloud_range)]
metainfo = dict(classes=class_names)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
