#!/usr/bin/env python
"""Convert checkpoints of BEVDet, of the published LangOcc and of torchvision to ours, and back.

    python tools/convert_checkpoint.py bevdet-occ.pth                       # what is it?
    python tools/convert_checkpoint.py bevdet-occ.pth ours.pth --config CONFIG
    python tools/convert_checkpoint.py ours.pth theirs.safetensors --to bevdet-occ

CONFIG is the recipe that will load the result. Every tensor is taken or said to be left out, with
the reason; a part that the family and the recipe have in common must fit to the last tensor. Files
are read without running what they say. docs/checkpoints.md tells the rest.
"""
import argparse
from pathlib import Path
from typing import Dict, Optional

from mmengine.config import Config, DictAction
from torch import Tensor

from langocc.checkpoints import (
    FAMILIES, Checkpoint, Conversion, Family, Target, back_family, check_complete, check_suffix,
    describe, detect_family, fold_colors, from_ours, notes_of, read_checkpoint, table, target_of,
    to_ours, write_checkpoint
)
from langocc.files import existing_file, one_line_errors, write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='.pth, .pt or .safetensors file')
    parser.add_argument('out', nargs='?', help='file to write, with one of these suffixes')
    parser.add_argument('--config', help='recipe of the model: needed to convert to ours; on the '
                        'way back it is checked that the file is all of it')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override config values')
    parser.add_argument('--to', choices=list(FAMILIES), help='go back, to this family')
    parser.add_argument('--partial', action='store_true',
                        help='leave out what does not fit the config instead of refusing the file')
    parser.add_argument('--key', default='auto', help='entry of the file that holds the weights, '
                        'for instance ema_state_dict (default: found, averages first)')
    parser.add_argument('--rgb', action='store_true', help='our side sees RGB images, theirs BGR: '
                        'fold the order of colours into the first convolution')
    parser.add_argument('--reducer-name', help='their name of a reduced model\'s matrix, to go '
                        'back (default: the name it came with)')
    parser.add_argument('--report', help='JSON file to write, tensor by tensor')
    args = parser.parse_args()
    if args.out is None and (args.to or args.report):
        parser.error('--to and --report need a file OUT')
    if args.to and args.partial:
        parser.error('--partial is for the way to ours')
    return args


def read_target(args: argparse.Namespace) -> Optional[Target]:
    if args.config is None:
        return None
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    cfg.merge_from_dict(args.cfg_options or {})
    return target_of(cfg, Path(args.config).name)


def convert(args: argparse.Namespace, source: Checkpoint) -> Conversion:
    """Either way.

    Raises:
        ValueError: the file is of no known family or does not fit, or an argument is missing.
    """
    where, target = str(source.path), read_target(args)
    if source.is_ours:
        if not args.to:
            raise ValueError(f'{where} is of this project\'s layout: name the family to go back '
                             f'to, --to {back_family(source.tensors).name} for instance')
        if target is not None:
            check_complete(source.tensors, target, where)
        name = args.reducer_name or source.conversion.get('reducer_name')
        family, tensors = FAMILIES[args.to], source.tensors
        if args.rgb:
            tensors = fold_colors(require_bgr(tensors, family), to_rgb=False)
        return from_ours(tensors, family, where, name)
    family = detect_family(source.tensors, where)
    if args.to:
        raise ValueError(f'{where} is a {family.title} already: --to is for checkpoints of this '
                         'project')
    if target is None:
        raise ValueError(f'{where} is a {family.title}: --config names the recipe that will load '
                         'the result')
    conversion = to_ours(source.tensors, family, target, where, args.partial)
    if args.rgb:
        conversion.tensors = fold_colors(require_bgr(conversion.tensors, family), to_rgb=True)
    if family.bgr and target.bgr == args.rgb:
        print(f'note: a {family.title} was trained on BGR images' + (
            f', --rgb made RGB of it, but {target.name} sees BGR: leave one of the two' if args.rgb
            else f', {target.name} sees RGB: give --rgb, or set model.data_preprocessor.bgr=True '
            'in the recipe (configs/published has it)'))
    return conversion


def require_bgr(tensors: Dict[str, Tensor], family: Family) -> Dict[str, Tensor]:
    """``tensors``; ValueError where the family sees RGB anyway."""
    if not family.bgr:
        raise ValueError(f'a {family.title} sees RGB images as ours do: leave out --rgb')
    return tensors


def identify(source: Checkpoint) -> str:
    """What a file is, in a line."""
    names = source.tensors
    title = (f"this project's layout, --to {back_family(names).name} goes back"
             if source.is_ours else detect_family(names, str(source.path)).title)
    others = f'; further weights under {list(source.other_keys)}' if source.other_keys else ''
    return (f'{source.path}: {title}, {len(names)} tensors'
            + (f" under '{source.key}'" if source.key else '') + others)


def main() -> None:
    args = parse_args()
    if args.out is not None:
        check_suffix(args.out)
    source = read_checkpoint(args.checkpoint, args.key)
    if args.out is None:
        print(identify(source))
        return
    conversion = convert(args, source)
    print(identify(source))
    print(describe(conversion))
    write_checkpoint(args.out, conversion.tensors, notes_of(
        conversion, source.path, 'theirs' if args.to else 'ours'))
    print(f'wrote {args.out}')
    if args.report:
        write_json(args.report, table(conversion), indent=1)
        print(f'wrote {args.report}')


if __name__ == '__main__':
    with one_line_errors('convert_checkpoint', ValueError):
        main()
