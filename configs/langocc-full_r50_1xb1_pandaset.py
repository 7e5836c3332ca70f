"""The full-size model on the real sequence: 200 x 200 x 16 grid, 8,192 rays, 25 frames of rays.

One sequence cannot train it; this is the recipe to measure and to debug it with. Random initial
weights (no ImageNet file is needed); one step and one prediction at batch 1 fit 16 GiB on a CPU.
"""
_base_ = ['_base_/default_runtime.py', '_base_/schedules/adamw_tiny.py',
          '_base_/datasets/pandaset_occ.py', '_base_/models/langocc_r50.py']

model = dict(
    img_backbone=dict(init_cfg=None),
    occ_head=dict(vocabulary=_base_.vocabulary))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100))
log_processor = dict(by_epoch=False)
