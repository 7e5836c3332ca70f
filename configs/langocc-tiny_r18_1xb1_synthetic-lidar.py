"""Tiny model on the synthetic street: rendering only, LiDAR-pixel rays (the paper's source)."""
_base_ = ['_base_/tiny_synthetic.py']

model = dict(image_head=_base_.image_head, occ_head=dict(
    vocabulary=_base_.vocabulary,
    reducer=_base_.reducer_file,
    start_at_vocabulary=True,
    density_decoder=_base_.density,
    density_threshold=_base_.density_threshold,
    losses=dict(lang=_base_.language_loss, road=_base_.road_loss)))
train_pipeline = [
    *_base_.image_pipeline,
    dict(type='PrepareRays', source=dict(type='LidarPixelSource'), teacher=_base_.teacher,
         num_rays=_base_.rays_per_sample, targets=('lang_feats',)),
    dict(type='PrepareRays', name='image_rays', teacher=_base_.teacher,
         source=dict(type='CameraPixelSource', key_frame_share=1.),
         num_rays=_base_.image_pixels, targets=('lang_feats',)),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, ray_frame_ids=_base_.ray_frame_ids))
