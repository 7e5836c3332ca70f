"""nuScenes with Occ3D labels, prepared by tools/prepare_data.py; LiDAR-pixel rays (the paper).

NUSCENES_ROOT names the data, LANGOCC_INFO_ROOT the folder of infos and reducer (default: the data
root); absolute, or relative to the working directory.
"""
os = __import__('os')  # mmengine takes a config with an import statement for a lazy one
dataset_type = 'NuScenesOccDataset'
data_root = os.path.normpath(os.environ.get('NUSCENES_ROOT') or 'data/nuscenes')
# mmdet3d joins a relative ann_file with data_root: infos beside the data have no folder here.
info_root = os.environ.get('LANGOCC_INFO_ROOT') or ''
info_root = info_root and os.path.abspath(info_root) + '/'
reducer_file = (info_root or data_root + '/') + 'reducer_128.safetensors'  # tools/fit_reducer.py
camera_names = ['CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK',
                'CAM_BACK_RIGHT']
data_config = dict(
    cams=camera_names, Ncams=6, input_size=(256, 704), src_size=(900, 1600),
    resize=(-0.06, 0.11), rot=(-5.4, 5.4), flip=True, crop_h=(0., 0.), resize_test=0.)
bda_aug_conf = dict(rot_lim=(0., 0.), scale_lim=(1., 1.), flip_dx_ratio=0.5, flip_dy_ratio=0.5)
multi_adj_frame_id_cfg = (1, 1 + 1, 1)
rays_per_sample = 8192

# Dense features of a teacher, one map (512, h, w) an image; text embeddings of the vocabulary.
teacher = dict(type='FeatureMapTeacher', root=data_root + '/teacher_feats', embed_dims=512)
# What tools/extract_features.py and inspect_features.py compute; LANGOCC_CLIP_WEIGHTS names CLIP's
# weights.
extract = dict(type='MaskClipTeacher', model='ViT-B-16', input_size=(448, 800))
text_encoder = dict(type='TextEmbeddings', files=data_root + '/text_embeds/clip_vit_b16.npz')
vocabulary = dict(type='Vocabulary', path='occ3d_nuscenes', text_encoder=text_encoder)

train_pipeline = [
    dict(type='PrepareImageInputs', is_train=True, data_config=data_config),
    dict(type='BEVAug', bda_aug_conf=bda_aug_conf, is_train=True),
    dict(type='PrepareRays', source=dict(type='LidarPixelSource'), teacher=teacher,
         num_rays=rays_per_sample, targets=('lang_feats',)),
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
    batch_size=4, num_workers=4, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file=info_root + 'nuscenes_infos_train.json', pipeline=train_pipeline,
                 ray_frame_ids=list(range(-12, 13)), test_mode=False, **dataset))
val_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file=info_root + 'nuscenes_infos_val.json', pipeline=test_pipeline,
                 test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='OccMetric')
test_evaluator = val_evaluator
