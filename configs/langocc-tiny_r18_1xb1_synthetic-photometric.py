"""Tiny model on the synthetic street: camera-only rays, what other images show, the car's own path.

As the camera-only recipe, and a ray ends where the frames before and after show the same colours
(in place of where something must stand before the sky); where the car was is road, and nothing on
it. All of it needs images, poses and the 2D teacher.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-camera.py']

model = dict(occ_head=dict(
    density_threshold=0.8,
    losses=dict(
        lang=dict(sky_behind=False),
        sky=dict(loss_weight=0.3),
        path=dict(type='DrivenPathLoss', ground_weight=0.1),
        photometric=dict(type='PhotometricLoss', loss_weight=5.))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(
    targets=('lang_feats', 'sky', 'rgb', 'ego_poses', 'photometric_costs'),
    photometric=dict(type='PhotometricSweep', num_distances=96, patch=5, downscale=2,
                     planes=('facing', 'horizontal'), cache_size=_base_.image_cache_size))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
