"""What the tiny recipes on the synthetic street share: network, images, budget, knobs of language.

LANGOCC_MAX_ITERS sets the budget (adamw_budget.py), ``--cfg-options randomness.seed=1`` the seed.
"""
_base_ = ['default_runtime.py', 'schedules/adamw_budget.py', 'datasets/synthetic_occ.py',
          'models/langocc_tiny_sampled.py']

# Street scenes are as likely mirrored; the images stay as they are in so short trainings.
data_config = dict(
    cams=_base_.camera_names, Ncams=6, input_size=_base_.input_size, resize=(0., 0.), rot=(0., 0.),
    flip=False, crop_h=(0., 0.), resize_test=0.)
bda_aug_conf = dict(rot_lim=(0., 0.), scale_lim=(1., 1.), flip_dx_ratio=0.5, flip_dy_ratio=0.5)
image_pipeline = [
    dict(type='PrepareImageInputs', data_config=data_config, is_train=True),
    dict(type='BEVAug', bda_aug_conf=bda_aug_conf, is_train=True),
]
test_pipeline = [
    dict(type='PrepareImageInputs', data_config=data_config),
    dict(type='LoadOccGTFromFile'),
    dict(type='PackOccInputs'),
]
one_frame = dict(multi_adj_frame_id_cfg=(1, 1, 1), stereo=False)
train_dataloader = dict(batch_size=1, dataset=dict(ray_frame_ids=[0], **one_frame))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **one_frame))
test_dataloader = val_dataloader

# Of the rendering recipes. Text embeddings are close to each other, and the paper's weighted loss
# fades with the error's fourth power: what is compared here is what deviates from their mean.
ray_frame_ids = list(range(-12, 13))
rays_per_sample = 1024
image_cache_size = 1200  # all training images of the default set, decoded: 0.27 MB each
language_loss = dict(type='RenderedFeatureLoss', mode='centered_cosine')
# Surfaces one voxel thin need more than the sigmoid's 1/m; start from nearly free space.
density = dict(scale=10., shift=-5.)
density_threshold = 0.4
# Geometry begins as a flat road; the weight halves every 20 steps.
road_loss = dict(type='FlatRoadLoss', half_life=20., free_density=0.07)
# What the teacher says of the key frame's own pixels, told to the image network directly.
image_pixels = 3072
image_head = dict(type='ImageFeatureHead', in_channels=_base_.image_channels, embed_dims=128,
                  input_size=_base_.input_size, downsample=4)

auto_scale_lr = dict(base_batch_size=1)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=100))
log_processor = dict(by_epoch=False, window_size=10)
