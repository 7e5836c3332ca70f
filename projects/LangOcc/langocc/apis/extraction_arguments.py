"""What the tools of extraction and inspection take from the command line: images and a teacher.

A config gives both: its teacher is ``extract`` (a teacher's config) or else ``teacher``, its images
are those of the data sets of ``train_dataloader`` and ``val_dataloader``. Options stand in for
either.
"""
import argparse
import os
import os.path as osp
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from mmengine.config import Config, DictAction

from ..engine import merge_options
from ..files import existing_file
from .extraction_images import ImageItem, MapSource, build_map_source, read_images

SPLITS = ('train', 'val')
_TEACHERS = dict(maskclip='MaskClipTeacher')
# Options of --teacher, by the names of the teacher's arguments.
_TEACHER_OPTIONS = ('weights', 'model', 'pretrained', 'input_size', 'dtype')


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that :func:`read_source_images` and :func:`read_source` read."""
    parser.add_argument('config', nargs='?', help='config file with a teacher and data sets')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    images = parser.add_argument_group('images, instead of those of the config')
    images.add_argument('--infos', nargs='+', metavar='FILE.json',
                        help='infos of tools/prepare_data.py, one or more')
    images.add_argument('--data-root', metavar='DIR', help='folder that their paths are relative '
                        "to (default: the config's data_root)")
    images.add_argument('--cameras', nargs='+', metavar='CAMERA',
                        help="default: the config's, or with --infos all of them")
    images.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS),
                        help="of the config's data sets (default: both)")
    teacher = parser.add_argument_group('teacher, instead of that of the config')
    teacher.add_argument('--teacher', choices=sorted(_TEACHERS), help='maskclip: dense features of '
                         "a CLIP's image tower, by open_clip")
    teacher.add_argument('--weights', metavar='FILE',
                         help='of CLIP (default: the environment\'s LANGOCC_CLIP_WEIGHTS)')
    teacher.add_argument('--model', help="open_clip's name of the model (default: ViT-B-16)")
    teacher.add_argument('--pretrained', metavar='TAG', help="instead of --weights: open_clip's "
                         'name of a training in the Hugging Face cache')
    teacher.add_argument('--input-size', nargs=2, type=int, metavar=('H', 'W'),
                         help='images are resized to it, for instance 448 800')
    teacher.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'),
                         help='precision of the network (default: float32)')
    parser.add_argument('--map-size', nargs=2, type=int, metavar=('h', 'w'),
                        help='cells at which to read a teacher that answers at pixels')
    parser.add_argument('--device', help="'cpu', 'cuda:0' ... (default: a GPU where there is one)")


def read_source(args: argparse.Namespace) -> MapSource:
    """The teacher that the arguments describe, on its device.

    Options of ``--teacher`` also stand in for those of the config's, if it is of that kind.

    Raises:
        FileNotFoundError: no such config.
        ValueError: no teacher, or options that belong to another.
    """
    given = {name: value for name in _TEACHER_OPTIONS
             if (value := getattr(args, name)) is not None}
    if args.teacher is not None:
        config: Dict[str, Any] = dict(type=_TEACHERS[args.teacher], **given)
    else:
        config = dict(_config_teacher(args), **given)
        if given and config['type'] not in _TEACHERS.values():
            raise ValueError(f'{sorted(given)} are options of --teacher, which is not given; '
                             f'{args.config} has a {config["type"]}')
    return build_map_source(config, args.map_size, args.device or default_device())


def default_device(environment: Mapping[str, str] = os.environ) -> str:
    """The GPU of this process by its local rank, or the CPU."""
    if not torch.cuda.is_available():
        return 'cpu'
    local = environment.get('LOCAL_RANK', environment.get('SLURM_LOCALID', '0'))
    return f'cuda:{int(local) % torch.cuda.device_count()}'


def read_source_images(args: argparse.Namespace) -> List[ImageItem]:
    """The images that the arguments describe.

    Raises:
        FileNotFoundError: no such config or infos.
        ValueError: neither infos nor a config with data sets; see also :func:`read_images`.
    """
    if args.infos is None:
        if args.config is None:
            raise ValueError('no images: name a CONFIG, or --infos and --data-root')
        return _config_images(args)
    root = args.data_root
    if root is None and args.config is not None:
        root = _read_config(args).get('data_root')
    if root is None:
        raise ValueError('--infos needs --data-root, the folder that their paths are relative to')
    return read_images(args.infos, root, args.cameras)


def _read_config(args: argparse.Namespace) -> Config:
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    merge_options(cfg, args.cfg_options, also_read=('extract', 'teacher', 'data_root'))
    return cfg


def _config_teacher(args: argparse.Namespace) -> Mapping[str, Any]:
    if args.config is None:
        raise ValueError('no teacher: name a CONFIG that has one, or --teacher')
    cfg = _read_config(args)
    teacher = cfg.get('extract') or cfg.get('teacher')
    if not isinstance(teacher, Mapping) or 'type' not in teacher:
        raise ValueError(f"{args.config} has no teacher: expected 'extract' or 'teacher', a dict "
                         f'with a type')
    return teacher.to_dict() if hasattr(teacher, 'to_dict') else teacher


def _config_images(args: argparse.Namespace) -> List[ImageItem]:
    cfg = _read_config(args)
    found: Dict[str, ImageItem] = {}
    for split in args.splits:
        ann_file, root, cameras = _config_infos(cfg, split, args)
        for item in read_images([ann_file], args.data_root or root, args.cameras or cameras):
            found.setdefault(item.token, item)
    return list(found.values())


def _config_infos(cfg: Config, split: str, args: argparse.Namespace
                  ) -> Tuple[str, str, Optional[List[str]]]:
    """Infos, data root and cameras of a split of a config."""
    name = f'{split}_dataloader'
    dataset = (cfg.get(name) or {}).get('dataset') or {}
    while 'ann_file' not in dataset and 'dataset' in dataset:  # wrappers such as RepeatDataset
        dataset = dataset['dataset']
    if 'ann_file' not in dataset:
        raise ValueError(f'{args.config}: {name} has no data set with an ann_file; name --infos, '
                         f'or other --splits')
    root = dataset.get('data_root') or ''
    return osp.join(root, dataset['ann_file']), root, dataset.get('camera_names')
