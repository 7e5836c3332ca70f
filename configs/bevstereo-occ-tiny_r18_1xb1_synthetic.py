"""The supervised twin: the tiny model's network up to its voxel features, trained on voxel labels.

The upper bound of the rendering recipes on the synthetic street.
"""
_base_ = ['_base_/tiny_synthetic.py']

trunk = _base_.model.occ_head  # in_channels, feat_channels, grid, places, upsampling: the same
model = dict(occ_head=dict(
    _delete_=True,
    type='BEVOccHead',
    in_channels=trunk.in_channels,
    feat_channels=trunk.feat_channels,
    grid=trunk.grid,
    position_frequencies=trunk.position_frequencies,
    height_frequencies=trunk.height_frequencies,
    upsample=trunk.upsample,
    keep_volume=trunk.keep_volume,
    mask='camera',
    loss_occ=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
train_pipeline = [
    *_base_.image_pipeline,
    dict(type='LoadOccGTFromFile'),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
custom_hooks = []  # RayCountHook counts rays, and there are none
