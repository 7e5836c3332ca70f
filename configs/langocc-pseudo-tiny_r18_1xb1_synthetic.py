"""Classes and depth from stored maps on the synthetic street: closed vocabulary, no LiDAR anywhere.

Make both kinds of maps first (SYNTHETIC_ROOT: the data set; their errors are stated in
langocc/synthetic/pseudo_labels.py and pseudo_depth.py):

    python tools/make_pseudo_labels.py SYNTHETIC_ROOT
    python tools/make_pseudo_depth.py SYNTHETIC_ROOT

Network and decoders are RenderOcc's tiny recipe's; rays are drawn among all pixels of the cameras.
"""
_base_ = ['_base_/tiny_synthetic.py']

pseudo_labels = dict(
    type='LabelMapTeacher', root=_base_.data_root + '/pseudo_labels',
    class_names=_base_.teacher.class_names, dynamic_classes=_base_.teacher.dynamic_classes,
    cache_size=1200)
pseudo_depth = dict(type='DepthMaps', root=_base_.data_root + '/pseudo_depth', kind='z',
                    scale=1 / 256)
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
        # Errors are some per cent of the depth: the surface is wide, and space before it may be
        # wrong.
        depth=dict(type='RenderedDepthLoss', mode='termination', margin=0.8, free_margin=2.,
                   loss_weight=0.2),
        sky=dict(type='SkyLoss', loss_weight=0.1))))
train_pipeline = [
    *_base_.image_pipeline,
    dict(type='PrepareRays', source=dict(type='CameraPixelSource'), teacher=pseudo_labels,
         depth=pseudo_depth, num_rays=_base_.rays_per_sample,
         targets=('classes', 'sky', 'distances'), mask_dynamic=True),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, ray_frame_ids=list(range(-3, 4))))
