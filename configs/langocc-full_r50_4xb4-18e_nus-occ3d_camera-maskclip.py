"""LangOcc, full model, from images alone: random pixels in place of LiDAR's, MaskCLIP on the spot.

The paper chooses pixels by LiDAR points. Pixels drawn at random also see the sky and what lies
beyond the grid: the teacher says which are sky, by the nearest of ``class_names``, prompts of the
vocabulary, and three terms answer (docs/real_street.md, camera-only rays). Not trained on nuScenes
yet; the same terms are measured on the tiny recipes.
"""
_base_ = ['langocc-full_r50_4xb4-18e_nus-occ3d_online-maskclip.py']

class_names = ['sky', 'road', 'sidewalk', 'grass', 'building', 'wall', 'fence', 'bridge', 'pole',
               'traffic light', 'traffic sign', 'tree', 'bush', 'car', 'truck', 'bus', 'trailer',
               'construction vehicle', 'bicycle', 'motorcycle', 'pedestrian', 'barrier',
               'traffic cone', 'background']
maskclip = dict(_base_.maskclip, text_encoder=_base_.text_encoder, class_names=class_names,
                sky_classes=['sky'])
teacher = maskclip
model = dict(
    data_preprocessor=dict(online_teacher=maskclip),
    occ_head=dict(losses=dict(
        lang=dict(weigh_by_opacity=True),
        sky=dict(type='SkyLoss', loss_weight=0.1),
        ground=dict(type='GroundLoss', loss_weight=0.1))))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(source=dict(type='CameraPixelSource', num_images=8),
                         targets=('lang_feats', 'sky'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
