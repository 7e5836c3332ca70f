"""RenderOcc's idea: density and classes rendered, taught by 2D labels of class and depth.

Labels are LiDAR points with lidarseg classes, projected into the cameras of the key frame and of
three key frames before and after; rays of other frames that meet what moves are left out. Network,
renderer, rays a sample and schedule are LangOcc's full recipe, with classes in place of language.
"""
_base_ = ['_base_/default_runtime.py', '_base_/schedules/adamw_18e.py',
          '_base_/datasets/nus_occ3d.py', '_base_/models/langocc_r50.py']

model = dict(occ_head=dict(
    # Surfaces one voxel thin need more than the sigmoid's 1/m.
    density_decoder=dict(scale=10., shift=-5.),
    density_threshold=0.2,
    decoders=dict(_delete_=True, semantic=dict(
        type='ClassProbabilityDecoder', num_classes=17, chunk_size=65536, with_cp=True)),
    losses=dict(
        _delete_=True,
        semantic=dict(type='RenderedClassLoss', num_classes=17, class_weight='running'),
        depth=dict(type='SILogDepthLoss', far=40.))))
train_pipeline = [
    dict(type='PrepareImageInputs', is_train=True, data_config=_base_.data_config),
    dict(type='BEVAug', bda_aug_conf=_base_.bda_aug_conf, is_train=True),
    dict(type='PrepareRays', source=dict(type='LidarLabelSource'),
         num_rays=_base_.rays_per_sample, targets=('classes', 'distances'), mask_dynamic=True),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, ray_frame_ids=list(range(-3, 4))))
custom_hooks = [dict(type='RayCountHook'), _base_.ema_hook]
