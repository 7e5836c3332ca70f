"""LangOcc with ResNet-50, six cameras at 256 x 704 and a grid of 200 x 200 x 16 (the paper)."""
point_cloud_range = [-40, -40, -1, 40, 40, 5.4]
voxel_size = [0.4, 0.4, 0.4]
grid_config = dict(x=[-40, 40, 0.4], y=[-40, 40, 0.4], z=[-1, 5.4, 0.4], depth=[1., 45., 0.5])
input_size = (256, 704)
lift_channels = 32
feat_channels = 256
embed_dims = 512

model = dict(
    type='LangOcc',
    num_adj=1,
    stereo=True,
    data_preprocessor=dict(type='OccDataPreprocessor'),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        with_cp=True,
        style='pytorch',
        init_cfg=dict(type='BackboneInit', checkpoint='torchvision://resnet50')),
    img_neck=dict(type='CustomFPN', in_channels=[1024, 2048], out_channels=256, num_outs=1,
                  start_level=0, out_ids=[0]),
    img_view_transformer=dict(
        type='LSSViewTransformerBEVStereo',
        grid_config=grid_config,
        input_size=input_size,
        downsample=16,
        in_channels=256,
        out_channels=lift_channels,
        loss_depth_weight=0.,
        depthnet_cfg=dict(use_dcn=False, aspp_mid_channels=96, stereo=True, bias=5.)),
    pre_process=dict(type='CustomResNet3D', numC_input=lift_channels, with_cp=False, num_layer=[1],
                     num_channels=[lift_channels], stride=[1], backbone_output_ids=[0]),
    img_bev_encoder_backbone=dict(
        type='CustomResNet3D', numC_input=2 * lift_channels, num_layer=[1, 2, 4], with_cp=False,
        num_channels=[lift_channels, 2 * lift_channels, 4 * lift_channels], stride=[1, 2, 2],
        backbone_output_ids=[0, 1, 2]),
    img_bev_encoder_neck=dict(type='LSSFPN3D', in_channels=7 * lift_channels,
                              out_channels=lift_channels, low_memory=True),
    occ_head=dict(
        type='LangOccHead',
        in_channels=lift_channels,
        feat_channels=feat_channels,
        grid=dict(point_cloud_range=point_cloud_range, voxel_size=voxel_size),
        density_decoder=dict(type='DensityDecoder', activation='sigmoid', chunk_size=65536,
                             with_cp=True),
        decoders=dict(
            lang=dict(type='LanguageDecoder', embed_dims=embed_dims, chunk_size=65536,
                      with_cp=True)),
        renderer=dict(type='VolumeRenderer', near=0.05, far=40., num_proposal_samples=50,
                      num_samples=100),
        losses=dict(lang=dict(type='RenderedFeatureLoss', mode='weighted_mse')),
        density_threshold=0.1))
