"""A flat floor, the same everywhere: the geometry that needs no image on the synthetic street."""
_base_ = ['_base_/default_runtime.py', '_base_/datasets/synthetic_occ.py']

model = dict(
    type='ConstantOccupancy',
    grid_config=dict(x=[-40, 40, 0.4], y=[-40, 40, 0.4], z=[-1, 5.4, 0.4]),
    z_range=(-0.6, 0.2))
test_pipeline = [
    dict(type='PrepareImageInputs', data_config=dict(input_size=(144, 256))),
    dict(type='LoadOccGTFromFile'),
    dict(type='PackOccInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_cfg = dict()
needs_checkpoint = False
train_dataloader = None
val_dataloader = None
val_evaluator = None
