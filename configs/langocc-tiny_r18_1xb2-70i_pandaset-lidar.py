"""Tiny model on the real sequence: rendering only, LiDAR-pixel rays (the paper's source)."""
_base_ = ['_base_/default_runtime.py', '_base_/schedules/adamw_tiny.py',
          '_base_/datasets/pandaset_occ.py', '_base_/models/langocc_tiny.py']

# Fit and evaluation on the same 16 frames: augmentation would only slow the fit.
data_config = dict(
    cams=_base_.camera_names, Ncams=6, input_size=_base_.input_size, src_size=(540, 960),
    resize=(0., 0.), rot=(0., 0.), flip=False, crop_h=(0., 0.), resize_test=0.)
train_pipeline = [
    dict(type='PrepareImageInputs', data_config=data_config),
    dict(type='PrepareRays', source=dict(type='LidarPixelSource'), teacher=_base_.teacher,
         num_rays=1536, targets=('lang_feats',)),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='PrepareImageInputs', data_config=data_config),
    dict(type='LoadOccGTFromFile'),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(pipeline=train_pipeline, ray_frame_ids=list(range(-12, 13))))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(occ_head=dict(vocabulary=_base_.vocabulary, reducer=_base_.reducer_file,
                           start_at_vocabulary=True))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=1000))
log_processor = dict(by_epoch=False, window_size=10)
