"""Each voxel's most frequent training class: what a map of nowhere scores on the synthetic street.

Fit it first, on the training set of any recipe (INFO_ROOT: the folder of the infos):

    python tools/fit_prior.py configs/bevstereo-occ-tiny_r18_1xb1_synthetic.py \
        --out INFO_ROOT/prior.npz
"""
_base_ = ['_base_/default_runtime.py', '_base_/datasets/synthetic_occ.py']

prior_file = (_base_.info_root or _base_.data_root + '/') + 'prior.npz'
model = dict(type='PriorOccupancy', prior=prior_file)
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
