#!/usr/bin/env python
"""A data set of procedural streets in nuScenes format, with infos, ready to train on.

    python tools/make_synthetic.py --out data/synthetic
    python tools/make_synthetic.py --out /tmp/few --quick

Writes images, LiDAR, point labels, Occ3D labels, teacher files, text embeddings, a retrieval
benchmark, nuScenes tables and OUT/synthetic_infos_{train,val}.json. The same arguments and text
encoder (CLIP where its weights are found, see LANGOCC_CLIP_WEIGHTS, else a list of offline words)
give the same bytes. Run again after an interruption, it goes on where it was; other arguments or
another text encoder on the same folder are refused. Exit status: 0 done; 2 an argument or the
folder is wrong.
"""
import argparse
import os
import sys
import time
from pathlib import Path
from typing import Dict

from tqdm import tqdm

from langocc.datasets.nuscenes_prepare import FILE_KINDS, prepare_infos
from langocc.files import one_line_errors
from langocc.synthetic.long_scenes import long_scene_note
from langocc.synthetic.records import VERSION, Settings
from langocc.synthetic.text import claim_text_embeddings
from langocc.synthetic.writer import SPLITS_FILE, claim_folder, write_dataset
from langocc.teachers import OfflineTextEncoder, available_text_encoder

QUICK = dict(scenes_train=1, scenes_val=1, frames=3, image_size=(160, 90))


def parse_args(argv=None) -> argparse.Namespace:
    """Command line."""
    default = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, help='folder of the data set')
    parser.add_argument('--scenes-train', type=int, default=default.scenes_train, metavar='N')
    parser.add_argument('--scenes-val', type=int, default=default.scenes_val, metavar='N',
                        help='scenes of worlds that no training scene shares')
    parser.add_argument('--frames', type=int, default=default.frames, metavar='N',
                        help='key frames a scene, at 2 Hz; streets are made for 24 at the most')
    parser.add_argument('--image-size', type=int, nargs=2, default=default.image_size,
                        metavar=('W', 'H'), help='pixels, 16:9')
    parser.add_argument('--seed', type=int, default=default.seed)
    parser.add_argument('--workers', type=int, default=len(os.sched_getaffinity(0)), metavar='N',
                        help='processes (default: one a core)')
    parser.add_argument('--offline-text', action='store_true',
                        help='text embeddings of the offline words, also where CLIP is found')
    parser.add_argument('--quick', action='store_true',
                        help='sizes of tests: {scenes_train} + {scenes_val} scenes, {frames} '
                        'frames, {image_size[0]} x {image_size[1]}'.format(**QUICK))
    args = parser.parse_args(argv)
    if args.quick:
        vars(args).update(QUICK)
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}, expected at least 1')
    return args


def folder_sizes(root: Path) -> Dict[str, int]:
    """Bytes under each folder of the set, largest first; files beside them as '.'."""
    sizes: Dict[str, int] = {}
    for path in root.rglob('*'):
        if path.is_file():
            parts = path.relative_to(root).parts
            name = parts[0] if len(parts) > 1 else '.'
            sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def make(args: argparse.Namespace) -> None:
    """Makes the set and its infos and says what there is."""
    start = time.perf_counter()
    settings = Settings(seed=args.seed, scenes_train=args.scenes_train, scenes_val=args.scenes_val,
                        frames=args.frames, image_size=tuple(args.image_size))
    # A wrong folder is one line, without a bar.
    claim_folder(Path(args.out), settings)
    encoder = OfflineTextEncoder() if args.offline_text else available_text_encoder()
    claim_text_embeddings(args.out, encoder)
    note = long_scene_note(settings)
    if note:
        print(note, file=sys.stderr)
    total = settings.frames * len(settings.scenes())
    with tqdm(total=total, desc='streets', unit='frame') as progress:
        made = write_dataset(args.out, settings, args.workers, progress.update, encoder)
    report = prepare_infos(
        root=args.out, version=VERSION, out_dir=args.out, splits=Path(args.out) / SPLITS_FILE,
        prefix='synthetic', required=FILE_KINDS,
        progress_factory=lambda total, name: tqdm(total=total, desc=name, unit='sample'))
    if not report.complete:
        raise ValueError(f'{args.out} is damaged, remove it and run again:\n{report}')
    print(report)
    sizes = folder_sizes(Path(args.out))
    print(', '.join(f'{name} {size / 1e6:.1f} MB' for name, size in sizes.items()))
    print(f'{args.out}: {total} key frames in {len(settings.scenes())} scenes, '
          f'{sum(sizes.values()) / 1e6:.0f} MB; {made} made now, '
          f'{time.perf_counter() - start:.0f} s')


def main(argv=None) -> int:
    """Runs the tool; returns the exit status."""
    with one_line_errors('make_synthetic.py', ValueError, ImportError):
        make(parse_args(argv))
    return 0


if __name__ == '__main__':
    sys.exit(main())
