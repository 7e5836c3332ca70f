"""LangOccHead on mmdet3d's ImVoxelNet, six cameras, on the synthetic street: occupancy alone.

Head, losses and rays are those of the camera-only recipe; its lift-splat trunk is exchanged.
docs/use_the_head.md goes through it.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-camera.py']

point_cloud_range = [-40, -40, -1, 40, 40, 5.4]
n_voxels = [100, 100, 8]
model = dict(
    _delete_=True,
    type='DetectorWithOccHead',
    detector=dict(
        type='MultiViewImVoxelNet',
        data_preprocessor=dict(type='OccDataPreprocessor'),
        backbone=dict(
            type='mmdet.ResNet', depth=18, base_channels=32, stem_channels=32, num_stages=4,
            out_indices=(1, 2, 3), norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False,
            style='pytorch'),
        neck=dict(type='CustomFPN', in_channels=[64, 128, 256], out_channels=16, num_outs=1,
                  out_ids=[0]),
        neck_3d=dict(type='IndoorImVoxelNeck', in_channels=16, out_channels=32, n_blocks=[1, 1]),
        prior_generator=dict(type='AlignedAnchor3DRangeGenerator', ranges=[point_cloud_range],
                             rotations=[.0]),
        n_voxels=n_voxels,
        coord_type='LIDAR'),
    without=('bbox_head',),
    volume=dict(module='neck_3d', level=0, order='xyz'),
    occ_head={**_base_.model.occ_head, 'in_channels': 32})

key_frame = dict(multi_adj_frame_id_cfg=(1, 1, 1), stereo=False)
# No image head, no pixels for one.
train_pipeline = [step for step in _base_.train_pipeline if step.get('name') != 'image_rays']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **key_frame))
val_dataloader = dict(dataset=key_frame)
test_dataloader = val_dataloader
# The neck's coarser volume is read by nobody.
find_unused_parameters = True
