"""LangOccHead on a bird's eye view, on the synthetic street: BEVDet's trunk, lifted to a volume.

Lift-splat with the layers of height stacked in the channels, mmdet3d's SECOND and SECONDFPN, then
BEVToVolume. Head, losses and rays are those of the camera-only recipe.
"""
_base_ = ['langocc-tiny_r18_1xb1_synthetic-camera.py']

layers = 8
lift_channels = 16
model = dict(
    _delete_=True,
    type='LangOcc',
    num_adj=0,
    stereo=False,
    data_preprocessor=dict(type='OccDataPreprocessor'),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, base_channels=32, stem_channels=32, num_stages=4,
        out_indices=(2, 3), norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False,
        style='pytorch'),
    img_neck=dict(type='CustomFPN', in_channels=[128, 256], out_channels=64, num_outs=1,
                  out_ids=[0]),
    img_view_transformer=dict(
        type='LSSViewTransformer', collapse_z=True, input_size=(144, 256), downsample=16,
        grid_config=dict(x=[-40, 40, 0.8], y=[-40, 40, 0.8], z=[-1, 5.4, 0.8], depth=[1., 41., 1.]),
        in_channels=64, out_channels=lift_channels),
    img_bev_encoder_backbone=dict(type='SECOND', in_channels=layers * lift_channels,
                                  out_channels=[64, 128], layer_nums=[1, 1], layer_strides=[1, 2]),
    img_bev_encoder_neck=dict(
        type='SequentialNeck',
        stages=[dict(type='SECONDFPN', in_channels=[64, 128], out_channels=[64, 64],
                     upsample_strides=[1, 2]),
                dict(type='BEVToVolume', in_channels=128, out_channels=32, num_layers=layers)]),
    occ_head={**_base_.model.occ_head, 'in_channels': 32})

key_frame = dict(multi_adj_frame_id_cfg=(1, 1, 1), stereo=False)
# No image head, no pixels for one.
train_pipeline = [step for step in _base_.train_pipeline if step.get('name') != 'image_rays']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **key_frame))
val_dataloader = dict(dataset=key_frame)
test_dataloader = val_dataloader
