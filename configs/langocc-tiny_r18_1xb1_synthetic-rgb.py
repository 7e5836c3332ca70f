"""Tiny model on the synthetic street: colour only, camera rays (the paper's RGB ablation).

No teacher at all, so no classes: predictions say 'others' where a voxel is occupied; read geo_IoU.
"""
_base_ = ['_base_/tiny_synthetic.py']

model = dict(occ_head=dict(
    decoders=dict(_delete_=True, rgb=dict(type='RGBDecoder', degree=2, hidden_channels=128,
                                          num_hidden=2, norm_input=True)),
    density_decoder=_base_.density,
    density_threshold=_base_.density_threshold,
    losses=dict(_delete_=True, rgb=dict(type='RenderedRGBLoss'), road=_base_.road_loss)))
train_pipeline = [
    *_base_.image_pipeline,
    dict(type='PrepareRays', source=dict(type='CameraPixelSource'),
         num_rays=_base_.rays_per_sample, targets=('rgb',),
         image_cache_size=_base_.image_cache_size),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, ray_frame_ids=_base_.ray_frame_ids))
