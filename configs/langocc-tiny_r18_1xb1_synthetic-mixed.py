"""The camera-only recipe with half of its rays at LiDAR pixels.

The paper's LiDAR-pixel rays meet things often, and the camera-only recipe's rays empty the air:
each does what the other cannot. LiDAR chooses pixels only; no distance is taught.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-camera.py']

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(source=dict(
    type='MixedSource', shares=[0.5, 0.5],
    sources=[dict(type='LidarPixelSource'), dict(type='CameraPixelSource')]))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
