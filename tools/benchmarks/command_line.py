"""The command line of tools/benchmark.py."""
import argparse
from pathlib import Path
from typing import Dict, List, Tuple

import torch

from voxelrender.rendering import DEFAULT_WEIGHT_THRESHOLD

from .columns import help_text
from .features import EMBEDDED, PARTS
from .head import QUERY_VOXELS
from .scene import PRESETS, Size

COMMANDS = dict(
    step="voxel features -> density, language -> rendered features -> the paper's loss, and back",
    prune='the same for several weight thresholds: what pruning does to loss and gradient',
    head='voxel features -> occupancy and classes',
    query='a new text against the occupied voxels of a finished field',
    scale='forward cost against the number of voxels, of rays and of channels, in proportion to a '
          "base of an eighth of the preset's voxels (half along each axis) and all its rays",
    lift='lift-splat pooling against sort and running sum',
    predict='images -> occupancy and classes: alone, streamed, in bfloat16; stages and their '
            'floors',
    profile='a whole training step, stage by stage: published layout against ours',
    features='teacher features: what a training sample reads from disk, sizes, codecs, extraction')
SCALES = ('grid', 'rays', 'features')
# Commands that have an option.
SCALABLE = ('step', 'prune', 'head')
WITH_RAYS = ('step', 'prune', 'head', 'predict', 'profile')
WITH_THRESHOLD = ('step', 'scale')
_RAYS = dict(
    predict='images of blurred noise, or of the real sequence',
    profile='images of blurred noise, or of the real sequence; rays are made in either case')
_PRESET = ('size: the paper\'s (full), half the grid along x and y and a quarter of the rays '
           '(quarter), a toy (tiny)')


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps line breaks of texts and names defaults, where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, [], False) or '(default' in action.help:
            return action.help
        return super()._get_help_string(action)


def parse_arguments(description: str, argv: List[str] = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND',
                                     title='commands (COMMAND --help: options, columns)')
    for name, text in COMMANDS.items():
        _add_options(name, commands.add_parser(
            name, help=text, description=text, epilog=help_text(name),
            formatter_class=HelpFormatter))
    arguments = parser.parse_args(argv)
    arguments.scale = dict(getattr(arguments, 'scale', []))
    _check(commands.choices[arguments.command], arguments)
    return arguments


def shown_options(arguments: argparse.Namespace) -> Dict[str, object]:
    """What of the command line belongs to the result."""
    shown = dict(preset=arguments.preset, scaled=arguments.scale)
    if hasattr(arguments, 'rays'):
        shown['rays'] = arguments.rays
    return dict(shown, device=arguments.device, repeats=arguments.repeats)


def _add_options(name: str, command: argparse.ArgumentParser) -> None:
    command.add_argument('--preset', choices=sorted(PRESETS), help=_PRESET,
                         default='full' if name == 'query' else 'quarter')
    command.add_argument('--device', default='cpu', help="'cpu', 'cuda', 'cuda:1' ...")
    if name in WITH_RAYS:
        command.add_argument('--rays', choices=('made', 'real'), default='made', help=_RAYS.get(
            name, 'made up, or through LiDAR pixels of the real sequence (../shared or '
            'LANGOCC_SHARED)'))
    if name in WITH_THRESHOLD:
        command.add_argument('--threshold', type=float, default=DEFAULT_WEIGHT_THRESHOLD,
                             help='weight threshold of the default mode; 0 prunes nothing')
    command.add_argument('--repeats', type=int, default=3, metavar='N',
                         help='timed runs after a warm-up')
    command.add_argument('--json', type=Path, metavar='FILE', help='write the result here')
    command.add_argument('--peak-of', help=argparse.SUPPRESS)
    if name in SCALABLE:
        command.add_argument(
            '--scale', nargs='+', type=_scale_factor, default=[], metavar='WHAT=FACTOR',
            help=f'size in proportion to the preset, for instance grid=0.5 rays=2; WHAT is one of '
            f'{list(SCALES)}, grid along each axis')
    if name == 'prune':
        command.add_argument('--thresholds', type=float, nargs='+', metavar='W',
                             default=[0., 1e-4, 3e-4, 1e-3, 3e-3, 1e-2], help='weight thresholds')
    if name == 'query':
        command.add_argument('--voxels', type=int, metavar='N', help='occupied voxels (default: '
                             "the preset's, " + ', '.join(f'{preset} {count}' for preset, count
                                                          in QUERY_VOXELS.items()) + ')')
    if name == 'features':
        _add_feature_options(command)


def _add_feature_options(command: argparse.ArgumentParser) -> None:
    command.add_argument('--parts', nargs='+', choices=(*PARTS, EMBEDDED), default=PARTS,
                         help='what to measure: on the real sequence, or what codecs cost '
                         'downstream in the embedded world')
    command.add_argument('--synthetic', metavar='DIR', help='folder of tools/make_synthetic.py '
                         f'for the part {EMBEDDED} (default: SYNTHETIC_ROOT or data/synthetic)')
    command.add_argument('--vit-images', type=int, metavar='N',
                         help='images that the ViT sees, instead of the preset\'s')
    command.add_argument('--folder', metavar='DIR', help='where files are written and read '
                         '(default: the system\'s temporary folder; some GB in preset full)')


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends with the command's usage where a value makes no sense."""
    for name in ('repeats', 'voxels', 'vit_images'):
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            parser.error(f'--{name.replace("_", "-")} {value}: expected at least 1')
    thresholds = [getattr(arguments, 'threshold', 0.), *getattr(arguments, 'thresholds', ())]
    for threshold in thresholds:
        if not 0 <= threshold < 1:
            parser.error(f'threshold {threshold}: weights are in [0, 1), 0 prunes nothing')
    try:
        torch.empty(0, device=arguments.device)
    except (AssertionError, RuntimeError) as error:
        parser.error(f'--device {arguments.device}: {str(error).splitlines()[0]}')
    try:
        if arguments.command in SCALABLE:
            Size.of(arguments)
    except ValueError as error:
        parser.error(str(error))


def _scale_factor(text: str) -> Tuple[str, float]:
    """'grid=0.5' -> ('grid', 0.5)."""
    name, _, factor = text.partition('=')
    if name not in SCALES:
        raise argparse.ArgumentTypeError(
            f'{text!r}: expected one of {list(SCALES)}, = and a number')
    try:
        value = float(factor)
    except ValueError:
        value = 0.
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r}: {factor!r} is not a positive number')
    return name, value
