"""A small network that short trainings from scratch get furthest with, on two CPU cores.

ResNet-18 of half the width on 144 x 256 images, features at stride 4; every voxel of 0.8 m samples
them at its pixels, a 2D network encodes the columns, and the head reads both, interpolated onto
the benchmark's 0.4 m grid. No depth net, no 3D convolutions but the last, one frame: what the
paper's trunk (langocc_tiny.py) needs some thousand steps to make use of. Language in the reduced
space (128 dimensions, tools/fit_reducer.py). Trials: benchmarks/trunk_trials.json.
"""
point_cloud_range = [-40, -40, -1, 40, 40, 5.4]
voxel_size = [0.4, 0.4, 0.4]
grid_config = dict(x=[-40, 40, 0.8], y=[-40, 40, 0.8], z=[-1, 5.4, 0.8])
input_size = (144, 256)
num_layers = 8
image_channels = 16
lift_channels = image_channels + 1  # one says whether a camera sees the voxel
encoder_channels = 16

model = dict(
    type='LangOcc',
    num_adj=0,
    stereo=False,
    volume_skip=True,
    data_preprocessor=dict(type='OccDataPreprocessor'),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, base_channels=32, stem_channels=32, num_stages=4,
        out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False,
        style='pytorch'),
    img_neck=dict(type='CustomFPN', in_channels=[32, 64, 128, 256], out_channels=48, num_outs=1,
                  start_level=0, out_ids=[0]),
    img_view_transformer=dict(
        type='SamplingViewTransformer', grid_config=grid_config, input_size=input_size,
        downsample=4, in_channels=48, out_channels=lift_channels),
    img_bev_encoder_backbone=dict(
        type='ColumnEncoder', in_channels=lift_channels, num_layers=num_layers,
        out_channels=encoder_channels, channels=64, num_blocks=2),
    img_bev_encoder_neck=None,
    occ_head=dict(
        type='LangOccHead',
        in_channels=encoder_channels + lift_channels,
        feat_channels=24,
        grid=dict(point_cloud_range=point_cloud_range, voxel_size=voxel_size),
        position_frequencies=4,
        height_frequencies=4,
        upsample=(2, 2, 2),
        keep_volume=True,
        density_decoder=dict(type='DensityDecoder', activation='sigmoid', hidden_channels=32,
                             num_hidden=2, norm_input=True),
        decoders=dict(
            lang=dict(type='LanguageDecoder', embed_dims=128, hidden_channels=64, num_hidden=2,
                      norm_input=True)),
        renderer=dict(type='VolumeRenderer', near=0.05, far=40., num_proposal_samples=50,
                      num_samples=48, weight_threshold=3e-3),
        losses=dict(lang=dict(type='RenderedFeatureLoss', mode='weighted_mse')),
        density_threshold=0.1))
