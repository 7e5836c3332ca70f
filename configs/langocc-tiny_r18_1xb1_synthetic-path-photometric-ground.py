"""Tiny model on the synthetic street: silhouettes, driven path, photometric, pixels of the ground.

As the recipe with silhouettes, driven path and photometric costs; beside it, nothing stands before
pixels that the teacher calls road, sidewalk or grass.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-path-photometric.py']

model = dict(occ_head=dict(losses=dict(
    ground_pixels=dict(type='GroundPixelLoss', loss_weight=0.3))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(
    targets=('lang_feats', 'sky', 'ground', 'rgb', 'ego_poses', 'photometric_costs'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
