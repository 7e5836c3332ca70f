"""Tiny model on the synthetic street: rendering only, camera-only rays (no LiDAR anywhere)."""
_base_ = ['langocc-tiny_r18_1xb2_synthetic-lidar.py']

model = dict(occ_head=dict(
    losses=dict(
        lang=dict(sky_behind=True),
        sky=dict(type='SkyLoss', loss_weight=0.1),
        ground=dict(type='GroundLoss', loss_weight=0.1))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(source=dict(type='CameraPixelSource'), targets=('lang_feats', 'sky'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
