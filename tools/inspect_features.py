#!/usr/bin/env python
"""What codecs leave of a teacher's features, in numbers and pictures, on the user's own images.

    python tools/inspect_features.py CONFIG --vocabulary occ3d_nuscenes --out-dir inspection
    python tools/inspect_features.py --teacher maskclip --weights FILE --input-size 448 800 \
        --infos INFOS.json --data-root DIR --codecs pca64-int8 pq --out-dir inspection
    python tools/inspect_features.py CONFIG --store STORE --out-dir inspection
    python tools/inspect_features.py --store STORE --infos INFOS.json --data-root DIR --out-dir DIR

Codecs are fitted on --fit-images images and judged on --images others, all drawn at random.
--store judges a store against the teacher computed anew; without a teacher it shows pictures alone.
Writes OUT_DIR/fidelity.json and OUT_DIR/features.png: images beside their maps, of which the three
main directions are red, green and blue, the same in all maps of the sheet. Exit status: 0 done; 2
an argument or a file is wrong.
"""
import argparse
from pathlib import Path
from typing import Dict, List, Optional

from langocc.apis.extraction_arguments import add_source_arguments, read_source, read_source_images
from langocc.apis.extraction_codecs import CODEC_NAMES
from langocc.apis.inspection import (
    Inspection, draw_sheet, inspect_codecs, inspect_store, show_store
)
from langocc.files import one_line_errors, write_json
from langocc.teachers import ClipTextEncoder, TextEmbeddings, Vocabulary
from langocc.visualization.pictures import save_picture

COLUMNS = dict(bytes_per_vector='bytes', mean_cosine='cosine', p1_cosine='1 % below',
               class_agreement='same class')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source_arguments(parser)
    parser.add_argument('--store', metavar='DIR', help='a store of tools/extract_features.py')
    parser.add_argument('--codecs', nargs='+', metavar='CODEC', help='default: all of '
                        f'{[name for name in CODEC_NAMES if name != "reducer"]}')
    parser.add_argument('--reducer', metavar='FILE', help="for the codec 'reducer'")
    parser.add_argument('--vocabulary', metavar='FILE', help='vocabulary file or name: share of '
                        'cells whose class stays the same')
    parser.add_argument('--text-embeds', metavar='FILE.npz', help='text embeddings of its prompts '
                        "(default: CLIP's text tower, of the teacher's weights)")
    parser.add_argument('--images', type=int, default=8, metavar='N', help='images judged')
    parser.add_argument('--fit-images', type=int, default=16, metavar='N', help='images fitted on')
    parser.add_argument('--show', type=int, default=6, metavar='N', help='images in the picture')
    parser.add_argument('--seed', type=int, default=0, help='of their choice')
    parser.add_argument('--out-dir', required=True, metavar='DIR')
    args = parser.parse_args()
    if args.store and args.codecs:
        parser.error('--codecs are fitted anew, --store has one: give either')
    return args


def read_vocabulary(args: argparse.Namespace) -> Optional[Vocabulary]:
    """The vocabulary with its text embeddings; None where none is asked for."""
    if args.vocabulary is None:
        return None
    if args.text_embeds:
        return Vocabulary(args.vocabulary, TextEmbeddings(args.text_embeds))
    given = {name: value for name in ('weights', 'model', 'pretrained')
             if (value := getattr(args, name)) is not None}
    return Vocabulary(args.vocabulary, ClipTextEncoder(**given, cache=True))


def inspect(args: argparse.Namespace) -> Inspection:
    """What is asked for: codecs, a store beside its teacher, or a store alone."""
    images = read_source_images(args)
    if args.store and args.config is None and args.teacher is None:
        return show_store(args.store, images, args.show, args.seed)
    source, vocabulary = read_source(args), read_vocabulary(args)
    if args.store:
        return inspect_store(source, args.store, images, vocabulary, args.images,
                             args.show, args.seed)
    codecs = args.codecs or [name for name in CODEC_NAMES if name != 'reducer' or args.reducer]
    return inspect_codecs(source, images, codecs, vocabulary, args.images, args.fit_images,
                          args.show, args.seed, args.reducer)


def table(rows: List[dict]) -> str:
    """Rows as text."""
    lines = [f'{"codec":<12}' + ''.join(f'{title:>12}' for title in COLUMNS.values())]
    for row in rows:
        cells = [row.get(key) for key in COLUMNS]
        lines.append(f'{row["codec"]:<12}' + ''.join(
            f'{"-" if cell is None else cell if isinstance(cell, int) else f"{cell:.4f}":>12}'
            for cell in cells))
    return '\n'.join(lines)


def captions(rows: List[dict]) -> Dict[str, str]:
    """Lines above the maps of a sheet."""
    return {row['codec']: f'{row["codec"]}: {row["bytes_per_vector"]} B, cos '
            f'{row["mean_cosine"]:.4f}' for row in rows}


def main() -> None:
    args = parse_args()
    found = inspect(args)
    out = Path(args.out_dir)
    if found.rows:
        print(f'{found.facts["images"]} images, {found.facts["cells"]:,} cells, cosine to float32')
        print(table(found.rows))
    for note in found.notes:
        print(note)
    write_json(out / 'fidelity.json', dict(rows=found.rows, notes=found.notes, **found.facts),
               indent=1)
    save_picture(out / 'features.png', draw_sheet(found.images, found.maps, captions(found.rows)))
    print(f'wrote {out / "fidelity.json"} and {out / "features.png"}')


if __name__ == '__main__':
    with one_line_errors('inspect_features', KeyError, ValueError, OSError, ImportError):
        main()
