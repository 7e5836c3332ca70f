#!/usr/bin/env python
"""Embed words by CLIP, for teachers, vocabularies and queries that read text from a file.

    python tools/embed_text.py --weights CLIP.safetensors --model ViT-B-16 --templates clip85 \\
        --vocabulary occ3d_nuscenes --out data/nuscenes/text_embeds/clip_vit_b16.npz

Beside the rows it writes their names (.json) and what made them (.encoder.json), from which other
words are embedded alike where the weights are. Rows are cached as they come: killed and started
again, it goes on where it was.
"""
import argparse
from pathlib import Path
from typing import Dict, List

from tqdm import tqdm

from langocc.files import existing_file, one_line_errors
from langocc.teachers import ClipTextEncoder, Vocabulary, write_text_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--weights', help='file or folder of weights (default: the environment\'s '
                        'LANGOCC_CLIP_WEIGHTS)')
    parser.add_argument('--pretrained', help="instead of --weights: open_clip's name of a training "
                        "in the Hugging Face cache, for instance 'openai'")
    parser.add_argument('--model', default='ViT-B-16', help="open_clip's name (default: ViT-B-16); "
                        "OpenAI's own weights in a file: ViT-B-16-quickgelu")
    parser.add_argument('--templates', default='clip85', help="'clip85' (the published 85; "
                        "default), 'photo', 'plain' or a file with one sentence a line")
    parser.add_argument('--vocabulary', nargs='*', default=[], help='vocabulary files or names')
    parser.add_argument('--words', nargs='*', default=[], help='words')
    parser.add_argument('--words-file', help='a text file with one word or phrase a line')
    parser.add_argument('--out', required=True, help='.npz file to write')
    parser.add_argument('--device', default='cpu', help="'cpu' (default), 'cuda' ...")
    args = parser.parse_args()
    if not (args.vocabulary or args.words or args.words_file):
        parser.error('nothing to embed: give --vocabulary, --words or --words-file')
    if Path(args.out).suffix != '.npz':
        parser.error(f'--out {args.out}: expected a .npz file')
    return args


def word_sets(args: argparse.Namespace) -> Dict[str, List[str]]:
    """Set -> words, each set without repetitions."""
    sets = {Vocabulary(name).path.stem: list(Vocabulary(name).prompts) for name in args.vocabulary}
    words = list(args.words)
    if args.words_file:
        lines = Path(existing_file(args.words_file, 'words')).read_text(encoding='utf-8')
        words += [line.strip() for line in lines.splitlines() if line.strip()]
    if words:
        sets['words'] = list(dict.fromkeys(words))
    return sets


def fill_cache(encoder: ClipTextEncoder, sets: Dict[str, List[str]]) -> None:
    """Embeds all words, some at a time, with a progress bar."""
    words = list(dict.fromkeys(word for names in sets.values() for word in names))
    at_once = max(1, encoder.chunk_size // len(encoder.templates))
    with tqdm(total=len(words), unit='word', disable=None) as bar:
        for start in range(0, len(words), at_once):
            encoder.encode(words[start:start + at_once])
            bar.update(len(words[start:start + at_once]))


def main() -> None:
    args = parse_args()
    sets = word_sets(args)
    encoder = ClipTextEncoder(args.weights, args.model, args.templates, pretrained=args.pretrained,
                              cache=True, device=args.device)
    fill_cache(encoder, sets)
    path = write_text_file(args.out, sets, encoder)
    print(f'{encoder.name} from {encoder.weights}, {len(encoder.templates)} templates')
    for name, words in sets.items():
        print(f'  {name}: {len(words)} x {encoder.embed_dims}')
    print(f'wrote {path}, {path.with_suffix(".json").name} and '
          f'{path.with_suffix(".encoder.json").name}')


if __name__ == '__main__':
    with one_line_errors('embed_text', ValueError, ImportError):
        main()
