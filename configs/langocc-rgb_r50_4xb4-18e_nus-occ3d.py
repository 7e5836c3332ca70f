"""RGB only: no teacher at all, colour by spherical harmonics, L1 (the paper's ablation, IoU 41.1).

Without language there are no classes: predictions say 'others' where a voxel is occupied; read
geo_IoU.
"""
_base_ = ['langocc-full_r50_4xb4-18e_nus-occ3d.py']

model = dict(
    occ_head=dict(
        vocabulary=None,
        decoders=dict(_delete_=True, rgb=dict(type='RGBDecoder', degree=2, chunk_size=65536,
                                              with_cp=True)),
        losses=dict(_delete_=True, rgb=dict(type='RenderedRGBLoss'))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(teacher=None, targets=('rgb',))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
