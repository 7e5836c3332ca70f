"""Tiny model on the synthetic street: camera-only rays, silhouettes, and the car's own path.

As the recipe with silhouettes; beside it, where the car was in the frames that rays come from there
is road, and nothing on it. With that, density depends on what the images show: road is empty, and
what does not look like road may stand. Few voxels are sure, so that those count as occupied that
stop a quarter of a ray (0.8 / m over 0.4 m) rather than a seventh.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-silhouettes.py']

model = dict(occ_head=dict(
    density_threshold=0.8,
    losses=dict(path=dict(type='DrivenPathLoss', ground_weight=0.1))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(targets=('lang_feats', 'sky', 'rgb', 'ego_poses'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
