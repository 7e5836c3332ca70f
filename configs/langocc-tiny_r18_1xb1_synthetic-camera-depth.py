"""The camera-only recipe and pseudo-depth: stored maps with the errors of a monocular estimator.

Make the maps first (SYNTHETIC_ROOT: the data set; the error model is stated in
langocc/synthetic/pseudo_depth.py):

    python tools/make_pseudo_depth.py SYNTHETIC_ROOT
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-camera.py']

pseudo_depth = dict(type='DepthMaps', root=_base_.data_root + '/pseudo_depth', kind='z',
                    scale=1 / 256)
# Errors are some per cent of the depth: the surface is wide, and space before it may be wrong.
model = dict(occ_head=dict(losses=dict(depth=dict(
    type='RenderedDepthLoss', mode='termination', margin=0.8, free_margin=2., loss_weight=0.1))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(depth=pseudo_depth, targets=(*train_pipeline[2]['targets'], 'distances'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
