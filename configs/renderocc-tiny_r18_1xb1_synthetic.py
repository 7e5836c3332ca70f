"""RenderOcc's idea on the synthetic street: classes and depth of labelled LiDAR points, rendered.

The trunk is the other tiny recipes'. Depth is taught by the likelihood of where a ray ends, which
also empties the space before it.
"""
_base_ = ['_base_/tiny_synthetic.py']

model = dict(occ_head=dict(
    decoders=dict(_delete_=True, semantic=dict(
        type='ClassProbabilityDecoder', num_classes=17, hidden_channels=64, num_hidden=2,
        norm_input=True)),
    density_decoder=_base_.density,
    density_threshold=_base_.density_threshold,
    losses=dict(
        _delete_=True,
        road=_base_.road_loss,
        semantic=dict(type='RenderedClassLoss', num_classes=17, given_hit=True,
                      class_weight='running'),
        depth=dict(type='RenderedDepthLoss', mode='termination', margin=0.3, free_margin=1.2,
                   loss_weight=0.2),
        # No LiDAR ray passes the upper air: without a prior it keeps whatever the network says.
        sparsity=dict(type='DensitySparsityLoss', loss_weight=0.1, num_voxels=8192))))
train_pipeline = [
    *_base_.image_pipeline,
    dict(type='PrepareRays', source=dict(type='LidarLabelSource'),
         num_rays=_base_.rays_per_sample, targets=('classes', 'distances'), mask_dynamic=True),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, ray_frame_ids=list(range(-3, 4))))
