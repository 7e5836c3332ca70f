#!/usr/bin/env python
"""Convert checkpoints of BEVDet, of the published LangOcc and of torchvision to ours, and back.

    python tools/convert_checkpoint.py bevdet-occ.pth                       # what is it?
    python tools/convert_checkpoint.py bevdet-occ.pth ours.pth --config CONFIG
    python tools/convert_checkpoint.py ours.pth theirs.safetensors --to bevdet-occ

CONFIG is the recipe that will load the result. Every tensor is taken or said to be left out, with
the reason; a part that the family and the recipe have in common must fit to the last tensor, and
what goes back must be a network of that family. Files are read without running what they say.
docs/checkpoints.md tells the rest.
"""
import argparse
from pathlib import Path
from typing import Optional, Tuple

from mmengine.config import Config, DictAction

from langocc.checkpoints import (
    FAMILIES, Checkpoint, Conversion, Family, Target, back_family, check_complete, check_suffix,
    describe, detect_family, fold_colors, from_ours, networks_of, notes_of, read_checkpoint, table,
    target_of, to_ours, write_checkpoint
)
from langocc.engine import merge_options
from langocc.files import existing_file, one_line_errors, write_json

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
OTHER = dict(RGB='BGR', BGR='RGB')
FOLD = dict(BGR='--rgb', RGB='--bgr')  # by what theirs sees: ours then sees the other


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='.pth, .pt or .safetensors file')
    parser.add_argument('out', nargs='?', help='file to write, with one of these suffixes')
    parser.add_argument('--config', help='recipe of the model: needed to convert to ours; on the '
                        'way back theirs is a network of its sizes (default: the published ones)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override config values')
    parser.add_argument('--to', choices=list(FAMILIES), help='go back, to this family')
    parser.add_argument('--partial', action='store_true',
                        help='leave out what does not fit the config instead of refusing the file')
    parser.add_argument('--key', default='auto', help='entry of the file that holds the weights, '
                        'for instance ema_state_dict (default: found, averages first)')
    colors = parser.add_mutually_exclusive_group()
    colors.add_argument('--rgb', action='store_true', help='our side sees RGB images, theirs BGR: '
                        'fold the order of colours into the first convolution')
    colors.add_argument('--bgr', action='store_true', help='the same where our side sees BGR '
                        'images and theirs, torchvision\'s, RGB')
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
    merge_options(cfg, args.cfg_options)
    return target_of(cfg, Path(args.config).name)


def convert(args: argparse.Namespace, source: Checkpoint) -> Tuple[Conversion, Optional[str]]:
    """Either way; also the colours that the result sees, None where they are not known.

    Raises:
        ValueError: the file is of no known family or does not fit, or an argument is missing.
    """
    target = read_target(args)
    if source.is_ours or (target and args.to and set(source.tensors) == set(target.names())):
        return convert_back(args, source, target)
    where, family = str(source.path), detect_family(source.tensors, str(source.path))
    if args.to:
        raise ValueError(f'{where} is a {family.title} already: --to is for checkpoints of this '
                         'project')
    if target is None:
        raise ValueError(f'{where} is a {family.title}: --config names the recipe that will load '
                         'the result')
    fold, colors = option_to_fold(args, family), family.colors
    conversion = to_ours(source.tensors, family, target, where, args.partial)
    if fold:
        conversion.tensors = fold_colors(conversion.tensors, to_rgb=family.bgr)
        colors = OTHER[colors]
    if colors != target.colors:
        print(f'note: a {family.title} was trained on {family.colors} images, ' + (
            f'{fold} made {colors} of it, but {target.name} sees {target.colors}: leave one of '
            f'the two' if fold else f'{target.name} sees {target.colors}: give '
            f'{FOLD[family.colors]}, or set model.data_preprocessor.bgr={family.bgr} in the '
            'recipe' + (' (configs/published has it)' if family.bgr else '')))
    return conversion, colors


def convert_back(args: argparse.Namespace, source: Checkpoint, target: Optional[Target]
                 ) -> Tuple[Conversion, Optional[str]]:
    """A file of this project's layout to the family ``args.to``."""
    where, tensors = str(source.path), source.tensors
    if target is not None and (not args.to or FAMILIES[args.to].head):
        check_complete(tensors, target, where)
    if not args.to:
        raise ValueError(f"{where} is of this project's layout already" + (
            f', {target.name} loads it as it is' if target else '') + way(source))
    family = FAMILIES[args.to]
    fold, colors = option_to_fold(args, family), source.colors or (target and target.colors)
    if colors is None:
        print(f'note: nothing says whether {where} sees RGB or BGR images (--config would); a '
              f'{family.title} sees {family.colors}'
              + (f', and {fold} takes {where} to see the other' if fold else ''))
    elif (colors == family.colors) == bool(fold):
        print(f'note: {where} sees {colors} images, a {family.title} {family.colors}: '
              + (f'leave out {fold}' if fold else f'give {FOLD[family.colors]}'))
    if fold:
        tensors = fold_colors(tensors, to_rgb=not family.bgr)
        colors = OTHER.get(colors)
    name = args.reducer_name or source.conversion.get('reducer_name')
    networks = networks_of(family, CONFIGS, target)
    return from_ours(tensors, family, networks, where, name), colors


def option_to_fold(args: argparse.Namespace, family: Family) -> Optional[str]:
    """The option that asks to fold colours, None without; ValueError where it is the other one."""
    asked = '--rgb' if args.rgb else '--bgr' if args.bgr else None
    if asked not in (None, FOLD[family.colors]):
        ours = {'--rgb': 'RGB', '--bgr': 'BGR'}[asked]
        raise ValueError(f'a {family.title} sees {ours} images as ours do: leave out {asked}')
    return asked


def way(source: Checkpoint) -> str:
    """How a file of ours goes back, to end a line with; '' where no family has a part of it."""
    family = back_family(source.tensors)
    return f', --to {family.name} goes back' if family else ''


def identify(source: Checkpoint) -> str:
    """What a file is, in a line."""
    names = source.tensors
    title = (f"this project's layout{way(source)}" if source.is_ours
             else detect_family(names, str(source.path)).title)
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
    conversion, colors = convert(args, source)
    print(identify(source))
    print(describe(conversion))
    write_checkpoint(args.out, conversion.tensors, notes_of(
        conversion, source.path, 'theirs' if args.to else 'ours', colors))
    print(f'wrote {args.out}')
    if args.report:
        write_json(args.report, table(conversion), indent=1)
        print(f'wrote {args.report}')


if __name__ == '__main__':
    with one_line_errors('convert_checkpoint', ValueError):
        main()
