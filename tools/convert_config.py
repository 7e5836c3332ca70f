#!/usr/bin/env python
"""Convert a BEVDet occupancy config (mmdet3d 0.x) to a recipe of this project.

    python tools/convert_config.py bevdet-occ-r50-4d-stereo.py configs/mine.py

The result holds what differs from a recipe of ours, by default the one with every published
behaviour (configs/published), and is built once, without memory, before it is kept. The file is
not run: its values are read from its syntax tree, and what cannot be read is named.
docs/checkpoints.md says which key goes where.
"""
import argparse
from pathlib import Path

from mmengine.config import Config

from langocc.checkpoints import config_text, read_config_values, target_of, translate
from langocc.files import atomic_write, existing_file, one_line_errors

BASE = Path(__file__).resolve().parents[1] / (
    'configs/published/bevstereo-occ_r50_4xb4-24e_nus-occ3d.py')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config with a BEVStereo4DOCC model')
    parser.add_argument('out', help='.py file to write')
    parser.add_argument('--base', default=str(BASE), help='recipe to start from (default: '
                        'configs/published/bevstereo-occ_r50_4xb4-24e_nus-occ3d.py)')
    args = parser.parse_args()
    if not args.out.endswith('.py'):
        parser.error(f'OUT {args.out}: expected a name that ends in .py')
    return args


def main() -> None:
    args = parse_args()
    source = read_config_values(args.config)
    changes, notes = translate(source, Config.fromfile(existing_file(args.base, 'config')))
    text = config_text(changes, args.base, args.out, Path(args.config).name)
    with atomic_write(args.out) as temporary:
        temporary.write_text(text, encoding='utf-8')
        try:
            target = target_of(Config.fromfile(temporary), args.out)
        except Exception as error:  # whatever a part of the model says of its arguments
            raise ValueError(f'{args.config}: the converted model does not build: {error}'
                             ) from error
    for base in source.bases:
        notes.append(f'_base_ {base} is not there; nothing of it was read')
    print('\n'.join(notes))
    print(f'{len(target.shapes)} tensors; wrote {args.out}')


if __name__ == '__main__':
    with one_line_errors('convert_config', ValueError):
        main()
