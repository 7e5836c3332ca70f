"""Small random CLIP models in the files that open_clip publishes."""
import json
import socket

import open_clip
import torch
from safetensors.torch import save_file

TINY = dict(embed_dim=24,
            vision_cfg=dict(image_size=32, layers=2, width=32, head_width=16, patch_size=8),
            text_cfg=dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=2))
RESNET = dict(TINY, vision_cfg=dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=32))


def tiny_clip(config=TINY, seed=0, scale=0.3):
    """A model with all its parameters drawn anew, text and image side."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config).eval()
    for name, value in model.named_parameters():
        if name != 'logit_scale':
            value.data = scale * torch.randn_like(value)
            if value.dim() == 1 and name.endswith('weight'):
                value.data += 1
    return model


def cut_off(monkeypatch, folder, *more):
    """No network, no weights named, caches (and the variables ``more``) in an empty folder."""
    def refuse(*args, **kwargs):
        raise AssertionError('the network was asked')
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS', raising=False)
    for name in ('HF_HOME', 'HF_HUB_CACHE', *more):
        monkeypatch.setenv(name, str(folder / 'cache'))


def write_folder(folder, state, config=TINY, preprocess=None, **extra):
    """A folder as open_clip publishes it: configuration and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    about = dict(model_cfg=dict(config, **extra))
    if preprocess is not None:
        about['preprocess_cfg'] = preprocess
    (folder / 'open_clip_config.json').write_text(json.dumps(about))
    save_file({key: value.contiguous() for key, value in state.items()},
              folder / 'open_clip_model.safetensors')
    return folder
