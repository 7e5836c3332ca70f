"""LangOcc, full model, taught by features from a store in place of maps in files.

tools/extract_features.py writes it, with the teacher that ``extract`` names.
"""
_base_ = ['langocc-full_r50_4xb4-18e_nus-occ3d.py']

store = dict(type='StoreTeacher', root=_base_.data_root + '/features')
teacher = dict(_delete_=True, **store)  # tools ask it, too
train_pipeline = _base_.train_pipeline
train_pipeline[2].teacher = store  # update() would merge the two
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
