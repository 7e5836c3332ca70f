"""What every recipe shares: scope, hooks, logging."""
custom_imports = dict(imports=['langocc'], allow_failed_imports=False)
default_scope = 'mmdet3d'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='geo_IoU',
                    rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # --cfg-options default_hooks.visualization.draw=True: pictures of samples 0 and 50 of each
    # validation and test, in <work dir>/<time>/vis_data/vis_image and in TensorBoard.
    visualization=dict(type='OccVisualizationHook', draw=False, interval=50, num_samples=2))
custom_hooks = [dict(type='RayCountHook')]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='OccVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
