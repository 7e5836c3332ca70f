"""Tiny model on the synthetic street: camera-only rays, and what other images show along them.

As the camera-only recipe; beside it, a ray ends where the frames before and after show the same
colours (a plane sweep in the data pipeline). That needs images and poses alone.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-camera.py']

model = dict(occ_head=dict(losses=dict(
    photometric=dict(type='PhotometricLoss', loss_weight=5.))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(
    targets=('lang_feats', 'sky', 'rgb', 'photometric_costs'),
    photometric=dict(type='PhotometricSweep', num_distances=96, patch=5, downscale=2,
                     planes=('facing', 'horizontal'), cache_size=_base_.image_cache_size))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
