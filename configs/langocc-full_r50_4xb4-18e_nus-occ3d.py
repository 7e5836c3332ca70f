"""LangOcc, full model: 512-d features, 8,192 LiDAR-pixel rays a sample (the paper's row)."""
_base_ = ['_base_/default_runtime.py', '_base_/schedules/adamw_18e.py',
          '_base_/datasets/nus_occ3d.py', '_base_/models/langocc_r50.py']

model = dict(occ_head=dict(vocabulary=_base_.vocabulary))
custom_hooks = [dict(type='RayCountHook'), _base_.ema_hook]
