"""Tiny model on the synthetic street: rendering only, camera-only rays (no LiDAR anywhere).

Colour is rendered beside language: where only few words are seen, it is texture that says where
along its ray a surface is.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-lidar.py']

model = dict(occ_head=dict(
    decoders=dict(rgb=dict(type='RGBDecoder', degree=0, hidden_channels=32, num_hidden=1,
                           norm_input=True)),
    losses=dict(
        rgb=dict(type='RenderedRGBLoss'),
        lang=dict(sky_behind=True),
        sky=dict(type='SkyLoss', loss_weight=0.1),
        ground=dict(type='GroundLoss', loss_weight=0.1))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(source=dict(type='CameraPixelSource'),
                         targets=('lang_feats', 'sky', 'rgb'),
                         image_cache_size=_base_.image_cache_size)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
