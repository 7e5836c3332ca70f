"""LangOcc, reduced model: features of 128 dimensions by a fitted linear map, 14,336 rays a sample.

Fit the map first:

    python tools/fit_reducer.py --text-embeds data/nuscenes/text_embeds/clip_vit_b16.npz \
        --vocabulary occ3d_nuscenes --dims 128 --out data/nuscenes/reducer_128.safetensors
"""
_base_ = ['langocc-full_r50_4xb4-18e_nus-occ3d.py']

model = dict(
    occ_head=dict(
        decoders=dict(lang=dict(embed_dims=128)),
        reducer=_base_.reducer_file))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(num_rays=14336)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
