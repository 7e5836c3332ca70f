"""LangOccHead on three perpendicular planes (TPV), on the synthetic street.

The lifted volume becomes three planes with 2D convolutions of their own, and these a volume again.
"""
_base_ = ['langocc-bev-tiny_r18_1xb1_synthetic-camera.py']

model = dict(
    img_view_transformer=dict(collapse_z=False),
    img_bev_encoder_backbone=dict(_delete_=True, type='VolumeToTPV',
                                  in_channels=_base_.lift_channels, out_channels=32),
    img_bev_encoder_neck=dict(_delete_=True, type='TPVToVolume', in_channels=32, out_channels=32))
