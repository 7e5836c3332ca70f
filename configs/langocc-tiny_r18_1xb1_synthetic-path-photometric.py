"""Tiny model on the synthetic street: silhouettes, driven path, and what other images show.

As the recipe with the driven path; beside it, a ray ends where the frames before and after show the
same colours. All of it needs images, poses and the 2D teacher.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-path.py']

model = dict(occ_head=dict(losses=dict(
    photometric=dict(type='PhotometricLoss', loss_weight=5.))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(
    targets=('lang_feats', 'sky', 'rgb', 'ego_poses', 'photometric_costs'),
    photometric=dict(type='PhotometricSweep', num_distances=96, patch=5, downscale=2,
                     planes=('facing', 'horizontal'), cache_size=_base_.image_cache_size))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
