"""Every part of the method, small enough for two CPU cores.

ResNet-18 of half the width on 144 x 256 images; lift and 3D encoder on voxels of 0.8 m, whose
features are interpolated onto the benchmark's 0.4 m grid, where they are decoded; language in the
reduced space (128 dimensions, tools/fit_reducer.py).
"""
point_cloud_range = [-40, -40, -1, 40, 40, 5.4]
voxel_size = [0.4, 0.4, 0.4]
grid_config = dict(x=[-40, 40, 0.8], y=[-40, 40, 0.8], z=[-1, 5.4, 0.8], depth=[1., 41., 1.])
input_size = (144, 256)
lift_channels = 16

model = dict(
    type='LangOcc',
    num_adj=1,
    stereo=True,
    data_preprocessor=dict(type='OccDataPreprocessor'),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, base_channels=32, stem_channels=32, num_stages=4,
        out_indices=(0, 2, 3), norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False,
        style='pytorch'),
    img_neck=dict(type='CustomFPN', in_channels=[128, 256], out_channels=64, num_outs=1,
                  start_level=0, out_ids=[0]),
    img_view_transformer=dict(
        type='LSSViewTransformerBEVStereo', grid_config=grid_config, input_size=input_size,
        downsample=16, in_channels=64, out_channels=lift_channels, loss_depth_weight=0.,
        depthnet_cfg=dict(use_dcn=False, aspp_mid_channels=32, stereo=True, bias=5.)),
    pre_process=dict(type='CustomResNet3D', numC_input=lift_channels, num_layer=[1],
                     num_channels=[lift_channels], stride=[1], backbone_output_ids=[0]),
    img_bev_encoder_backbone=dict(
        type='CustomResNet3D', numC_input=2 * lift_channels, num_layer=[1, 1, 1],
        num_channels=[lift_channels, 2 * lift_channels, 4 * lift_channels], stride=[1, 2, 2],
        backbone_output_ids=[0, 1, 2]),
    img_bev_encoder_neck=dict(type='LSSFPN3D', in_channels=7 * lift_channels, out_channels=32,
                              low_memory=True),
    occ_head=dict(
        type='LangOccHead',
        in_channels=32,
        feat_channels=24,
        grid=dict(point_cloud_range=point_cloud_range, voxel_size=voxel_size),
        position_frequencies=4,
        upsample=(2, 2, 2),
        density_decoder=dict(type='DensityDecoder', activation='sigmoid', hidden_channels=16,
                             num_hidden=1),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=128, hidden_channels=128,
                                num_hidden=2, norm_input=True)),
        renderer=dict(type='VolumeRenderer', near=0.05, far=40., num_proposal_samples=50,
                      num_samples=48, weight_threshold=1e-3),
        losses=dict(lang=dict(type='RenderedFeatureLoss', mode='weighted_mse')),
        density_threshold=0.1))
