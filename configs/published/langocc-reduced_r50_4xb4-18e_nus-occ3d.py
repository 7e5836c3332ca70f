"""LangOcc, reduced model, as published: every switch of the parity table on, nothing pruned.

The matrix of the reducer comes from a file that tools/fit_reducer.py writes; a converted checkpoint
replaces it by its own.
"""
_base_ = ['langocc-full_r50_4xb4-18e_nus-occ3d.py']

model = dict(
    occ_head=dict(
        decoders=dict(lang=dict(embed_dims=128)),
        reducer=_base_.reducer_file))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(num_rays=14336)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
