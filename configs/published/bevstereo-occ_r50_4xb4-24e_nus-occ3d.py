"""BEVDet-Occ (R50, 4D stereo) as published: every switch of the parity table on that it has.

For checkpoints converted from `bevdet-occ-r50-4d-stereo`.
"""
_base_ = ['../bevstereo-occ_r50_4xb4-24e_nus-occ3d.py']

model = dict(
    data_preprocessor=dict(bgr=True),
    img_view_transformer=dict(truncate=True, published_invalid=True))
train_dataloader = dict(dataset=dict(key_ego='first_camera'))
val_dataloader = dict(dataset=dict(key_ego='first_camera'))
test_dataloader = dict(dataset=dict(key_ego='first_camera'))
