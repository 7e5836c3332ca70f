"""Procedural streets of tools/make_synthetic.py: training scenes, and others to evaluate on.

SYNTHETIC_ROOT names the data, LANGOCC_INFO_ROOT another folder of infos and reducer (default: the
data root, where make_synthetic.py leaves the infos); absolute, or relative to the working
directory.
"""
os = __import__('os')  # mmengine takes a config with an import statement for a lazy one
dataset_type = 'NuScenesOccDataset'
data_root = os.path.normpath(os.environ.get('SYNTHETIC_ROOT') or 'data/synthetic')
# mmdet3d joins a relative ann_file with data_root: infos beside the data have no folder here.
info_root = os.environ.get('LANGOCC_INFO_ROOT') or ''
info_root = info_root and os.path.abspath(info_root) + '/'
reducer_file = (info_root or data_root + '/') + 'reducer_128.safetensors'  # tools/fit_reducer.py
camera_names = ['CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK',
                'CAM_BACK_RIGHT']
data_config = dict(
    cams=camera_names, Ncams=6, input_size=(144, 256), src_size=(225, 400),
    resize=(-0.06, 0.11), rot=(-5.4, 5.4), flip=True, crop_h=(0., 0.), resize_test=0.)
bda_aug_conf = dict(rot_lim=(0., 0.), scale_lim=(1., 1.), flip_dx_ratio=0.5, flip_dy_ratio=0.5)
multi_adj_frame_id_cfg = (1, 1 + 1, 1)
rays_per_sample = 8192

text_encoder = dict(type='TextEmbeddings', files=data_root + '/text_embeds/words.npz')
# Classes, words and movers of langocc.synthetic.teacher: Occ3D's 17 and sky.
teacher = dict(
    type='ProbabilityTeacher', root=data_root + '/teacher_probs', text_encoder=text_encoder,
    cache_size=1200,  # all training maps of the default set, 27 kB each
    class_names=('others', 'barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle',
                 'pedestrian', 'traffic_cone', 'trailer', 'truck', 'driveable_surface',
                 'other_flat', 'sidewalk', 'terrain', 'manmade', 'vegetation', 'sky'),
    prompts=('background', 'barrier', 'bicycle', 'bus', 'car', 'construction vehicle', 'motorcycle',
             'pedestrian', 'traffic cone', 'trailer', 'truck', 'road', 'traffic island', 'sidewalk',
             'grass', 'building', 'vegetation', 'sky'),
    dynamic_classes=('bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian',
                     'trailer', 'truck'))
vocabulary = dict(type='Vocabulary', path='occ3d_nuscenes', text_encoder=text_encoder)

train_pipeline = [
    dict(type='PrepareImageInputs', is_train=True, data_config=data_config),
    dict(type='BEVAug', bda_aug_conf=bda_aug_conf, is_train=True),
    dict(type='PrepareRays', source=dict(type='CameraPixelSource'), teacher=teacher,
         num_rays=rays_per_sample, targets=('lang_feats', 'sky')),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='PrepareImageInputs', data_config=data_config),
    dict(type='BEVAug', bda_aug_conf=bda_aug_conf, is_train=False),
    dict(type='LoadOccGTFromFile'),
    dict(type='PackOccInputs'),
]
dataset = dict(
    type=dataset_type, data_root=data_root, camera_names=camera_names,
    multi_adj_frame_id_cfg=multi_adj_frame_id_cfg, stereo=True)
train_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(ann_file=info_root + 'synthetic_infos_train.json', pipeline=train_pipeline,
                 ray_frame_ids=list(range(-4, 5)), test_mode=False, **dataset))
val_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file=info_root + 'synthetic_infos_val.json', pipeline=test_pipeline,
                 test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='OccMetric')
test_evaluator = [val_evaluator, dict(type='RayIoUMetric')]
