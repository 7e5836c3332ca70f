"""adamw_tiny.py for a budget of iterations that the environment may set: LANGOCC_MAX_ITERS=1000.

Warm-up over a tenth of the budget, 50 iterations at most, then a cosine to its end; no EMA. A
checkpoint holds the state of its schedule: a run that is resumed keeps the budget it began with.
"""
_base_ = ['adamw_tiny.py']

os = __import__('os')  # mmengine takes a config with an import statement for a lazy one
max_iters = os.environ.get('LANGOCC_MAX_ITERS') or '300'
if not max_iters.isdecimal() or int(max_iters) < 1:
    raise ValueError(f'LANGOCC_MAX_ITERS={max_iters!r}, expected a number of iterations, 1 or more')
max_iters = int(max_iters)
warmup_iters = max(1, min(50, max_iters // 10))
cosine_end = max(max_iters, warmup_iters + 1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=warmup_iters, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=warmup_iters, end=cosine_end,
         T_max=cosine_end - warmup_iters, eta_min=1e-5, by_epoch=False),
]
# Evaluated by tools/test.py after training; val_begin=1 and a val_interval score during it as well.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters,
                 val_begin=max_iters + 1)
