"""Tiny model on the synthetic street: camera-only rays that carve by silhouettes.

As the camera-only recipe, but that rays that see the sky meet nothing and all others something,
in place of a sky composed behind. What stands begins to stand; the ground's classes pay for it.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-lidar.py']

model = dict(occ_head=dict(
    decoders=dict(rgb=dict(type='RGBDecoder', degree=0, hidden_channels=32, num_hidden=1,
                           norm_input=True)),
    losses=dict(
        rgb=dict(type='RenderedRGBLoss'),
        sky=dict(type='SkyLoss', loss_weight=0.3),
        silhouette=dict(type='SilhouetteLoss', loss_weight=0.3),
        ground=dict(type='GroundLoss', loss_weight=0.1))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(source=dict(type='CameraPixelSource'),
                         targets=('lang_feats', 'sky', 'rgb'),
                         image_cache_size=_base_.image_cache_size)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
