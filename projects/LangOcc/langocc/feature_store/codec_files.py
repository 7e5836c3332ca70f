"""Codecs by config and in files.

A file is one ``.safetensors``: the fitted tensors, and type and options as metadata.
"""
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Union

import torch
from mmdet3d.registry import TASK_UTILS
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..files import atomic_write, existing_file
from ..teachers.reducer import Reducer
from .codecs import Codec
from .linear_codec import LinearCodec

_METADATA = 'langocc_codec'  # one key alone: safetensors writes several in an order of its own


def build_codec(config: Union[Codec, str, Path, Dict[str, Any]]) -> Codec:
    """A codec.

    Args:
        config: A codec, a file that :func:`save_codec` wrote, or a config:
            ``dict(type='Fp16Codec' | 'Int8Codec', embed_dims=512)``,
            ``dict(type='LinearCodec', reducer='reducer_128.safetensors')``, or for any type
            ``dict(type=..., file='codec.safetensors')``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or holds a codec of another type.
    """
    if isinstance(config, Codec):
        return config
    if isinstance(config, (str, Path)):
        return load_codec(config)
    config = dict(config)
    if 'file' in config:
        codec = load_codec(config['file'])
        if config.get('type', type(codec).__name__) != type(codec).__name__:
            raise ValueError(f'{config["file"]} holds a {type(codec).__name__}, expected '
                             f'{config["type"]}')
        return codec
    if config.get('type') == 'LinearCodec' and 'reducer' in config:
        return LinearCodec.from_reducer(Reducer.load(config['reducer']))
    return TASK_UTILS.build(config)


def codec_bytes(codec: Codec) -> bytes:
    """A codec as the content of a file; equal codecs give equal bytes."""
    record = dict(type=type(codec).__name__, options=codec.options(), fitted=codec.fitted)
    # safetensors needs a tensor at least
    tensors = codec.state() or {'nothing_fitted': torch.zeros(0, dtype=torch.uint8)}
    return save(tensors, metadata={_METADATA: json.dumps(record, sort_keys=True)})


def save_codec(codec: Codec, path: Union[str, Path]) -> None:
    """Write a codec to a ``.safetensors`` file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(codec_bytes(codec))


def load_codec(path: Union[str, Path]) -> Codec:
    """Read what :func:`save_codec` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or holds no codec.
    """
    existing_file(path, 'codec')
    try:
        with safe_open(str(path), framework='pt') as file:
            record = json.loads((file.metadata() or {})[_METADATA])
            tensors = {name: file.get_tensor(name) for name in file.keys()
                       if name != 'nothing_fitted'}
        return TASK_UTILS.build(dict(type=record['type'], **record['options'], **tensors,
                                     fitted=record['fitted']))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'cannot read codec {path}: {error}') from error


def codec_identity(codec: Codec) -> Dict[str, Any]:
    """What decides the bytes that a codec makes, as JSON values for a manifest."""
    digest = hashlib.sha256()
    for name, value in sorted(codec.state().items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.numpy().tobytes())
    return dict(type=type(codec).__name__, options=codec.options(), embed_dims=codec.embed_dims,
                row_bytes=codec.row_bytes, state_sha256=digest.hexdigest())
