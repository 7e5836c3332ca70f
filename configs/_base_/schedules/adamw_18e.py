"""The paper's schedule: AdamW, 18 epochs, batch 16, EMA.

Learning rate: linear warm-up over 200 iterations from 0.001 of the rate, 1e-4 in epochs 0-7, then a
cosine once an epoch: 9.8e-5, 9.2e-5, ... 3e-6 in the last (as published).
"""
max_epochs = 18
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-2),
    clip_grad=dict(max_norm=5, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=200, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=7, end=max_epochs, T_max=11, eta_min=1e-6, by_epoch=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=16)
# A recipe lists this beside RayCountHook: custom_hooks = [..., ema_hook].
ema_hook = dict(type='EMAHook', ema_type='WarmupEMA', decay=0.999, warmup=2000., init_updates=10560,
                update_buffers=True, priority='NORMAL')
