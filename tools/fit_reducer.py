"""Fit the linear map of the reduced recipes on a vocabulary's text embeddings.

    python tools/fit_reducer.py --text-embeds DATA/text_embeds/clip_vit_b16.npz \
        --vocabulary pandaset_cityscapes --dims 128 --out work_dirs/reducer.safetensors
"""
import argparse
import hashlib
from pathlib import Path

import torch

from langocc.files import one_line_errors
from langocc.teachers import TextEmbeddings, Vocabulary, fit_reducer


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--text-embeds', required=True, nargs='+',
                        help='.npz file(s) with text embeddings and the names beside them')
    parser.add_argument('--vocabulary', help='vocabulary file or name; default: every name in the '
                        'text embeddings')
    parser.add_argument('--dims', type=int, default=128, help='dimensions kept (default: 128)')
    parser.add_argument('--out', required=True, help='.safetensors file to write')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    text = TextEmbeddings(args.text_embeds)
    vocabulary = Vocabulary(args.vocabulary, text) if args.vocabulary else None
    prompts = vocabulary.prompts if vocabulary else text.words
    embeds = text.encode(prompts)
    metadata = dict(
        text_embeds={path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                     for path in text.files},
        vocabulary=vocabulary.path.stem if vocabulary else None, prompts=list(prompts))
    reducer, history = fit_reducer(embeds, args.dims, seed=args.seed, metadata=metadata)
    reducer.save(args.out)
    cosines = (reducer.restore(reducer.reduce(embeds)) * embeds).sum(dim=1)
    print(f'{len(prompts)} prompts, {embeds.shape[1]} -> {args.dims} dimensions, '
          f'{len(history) - 1} steps: loss {history[0]:.4f} -> {min(history):.4f}')
    worst = int(torch.argmin(cosines))
    print(f'cosine to the original: mean {cosines.mean():.4f}, lowest {cosines[worst]:.4f} '
          f'({prompts[worst]!r})')
    print(f'wrote {Path(args.out)}')


if __name__ == '__main__':
    with one_line_errors('fit_reducer', ValueError):
        main()
