"""LangOcc, full model, as published: every switch of the parity table on, nothing pruned.

For checkpoints converted from the published model, and to measure what its defects cost.
"""
_base_ = ['../langocc-full_r50_4xb4-18e_nus-occ3d.py']

model = dict(
    data_preprocessor=dict(bgr=True),
    img_view_transformer=dict(truncate=True, published_invalid=True),
    occ_head=dict(
        grid=dict(alignment='edges'),
        renderer=dict(jitter_at_test=True, weight_threshold=0.)))
teacher = dict(parity_half_pixel=True)
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(parity_half_pixel=True,
                         teacher=dict(_base_.teacher, parity_half_pixel=True))
train_dataloader = dict(dataset=dict(key_ego='first_camera', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(key_ego='first_camera'))
test_dataloader = dict(dataset=dict(key_ego='first_camera'))
