"""Classes and depth from foundation models: camera-only, a closed vocabulary, no LiDAR anywhere.

What the stronger recipes of 2025-26 share: rays take their class from an open-vocabulary
segmenter's label maps and their distance from a metric depth estimator's maps, both stored:

    data/nuscenes/pseudo_labels/<sample_data token>.png  8 bits: Occ3D's 17 classes, 17 sky, 255 ?
    data/nuscenes/pseudo_depth/<sample_data token>.png   16 bits: z-depth in 1/256 m, 0 unknown

Other formats, numbers and folders are settings of LabelMapTeacher and DepthMaps, see
docs/baselines.md; text_encoder there turns the labels into language features.
"""
_base_ = ['_base_/default_runtime.py', '_base_/schedules/adamw_18e.py',
          '_base_/datasets/nus_occ3d.py', '_base_/models/langocc_r50.py']

class_names = ['others', 'barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle',
               'pedestrian', 'traffic_cone', 'trailer', 'truck', 'driveable_surface', 'other_flat',
               'sidewalk', 'terrain', 'manmade', 'vegetation', 'sky']
pseudo_labels = dict(
    type='LabelMapTeacher', root=_base_.data_root + '/pseudo_labels', class_names=class_names,
    dynamic_classes=['bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian',
                     'trailer', 'truck'])
pseudo_depth = dict(type='DepthMaps', root=_base_.data_root + '/pseudo_depth', kind='z',
                    scale=1 / 256, depth_range=(0.5, 80.))
model = dict(occ_head=dict(
    # Surfaces one voxel thin need more than the sigmoid's 1/m.
    density_decoder=dict(scale=10., shift=-5.),
    density_threshold=0.2,
    decoders=dict(_delete_=True, semantic=dict(
        type='ClassProbabilityDecoder', num_classes=17, chunk_size=65536, with_cp=True)),
    losses=dict(
        _delete_=True,
        semantic=dict(type='RenderedClassLoss', num_classes=17, given_hit=True,
                      class_weight='running'),
        # An estimator's error is some per cent of the depth: log, and no sharp surface asked.
        depth=dict(type='RenderedDepthLoss', mode='log_l1', far=40.),
        sky=dict(type='SkyLoss', loss_weight=0.1),
        ground=dict(type='GroundLoss', loss_weight=0.1))))
train_pipeline = [
    dict(type='PrepareImageInputs', is_train=True, data_config=_base_.data_config),
    dict(type='BEVAug', bda_aug_conf=_base_.bda_aug_conf, is_train=True),
    dict(type='PrepareRays', source=dict(type='CameraPixelSource'), teacher=pseudo_labels,
         depth=pseudo_depth, num_rays=_base_.rays_per_sample,
         targets=('classes', 'sky', 'distances'), mask_dynamic=True),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
custom_hooks = [dict(type='RayCountHook'), _base_.ema_hook]
