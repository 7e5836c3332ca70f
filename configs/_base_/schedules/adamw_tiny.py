"""Seventy iterations on a CPU: warm-up, then a cosine to zero; no EMA.

The last layers start far from what they must say and without batch norm: a larger step for them.
"""
max_iters = 70
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    paramwise_cfg=dict(custom_keys={
        'occ_head.density_decoder': dict(lr_mult=4.),
        'occ_head.final_conv': dict(lr_mult=4.),
        'occ_head.language_decoder': dict(lr_mult=3.)}),
    clip_grad=dict(max_norm=5, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=10, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=10, end=max_iters, T_max=max_iters - 10, eta_min=1e-5,
         by_epoch=False),
]
# Evaluated by tools/test.py after training; lower val_interval to score during it as well.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=10 * max_iters)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=2)
