"""LangOcc, full model, taught by MaskCLIP on the spot: no feature is extracted or stored.

LANGOCC_CLIP_WEIGHTS names the weights of open_clip's ViT-B-16; OpenAI's own were trained with
another activation, and ``model`` is then 'ViT-B-16-quickgelu'. Each step shows the teacher 8 of the
150 images that the paper draws a sample's rays from, 32 a GPU.
"""
_base_ = ['langocc-full_r50_4xb4-18e_nus-occ3d.py']

maskclip = dict(type='MaskClipTeacher', model='ViT-B-16', input_size=(448, 800), dtype='float16',
                chunk_size=16)
teacher = dict(_delete_=True, **maskclip)  # tools ask it, too
model = dict(data_preprocessor=dict(online_teacher=maskclip))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(teacher='online',
                         source=dict(type='LidarPixelSource', num_images=8))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
