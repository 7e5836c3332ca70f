"""Fit the linear map of the reduced recipes.

The paper's map, on a vocabulary's text embeddings:

    python tools/fit_reducer.py --text-embeds DATA/text_embeds/clip_vit_b16.npz \
        --vocabulary pandaset_cityscapes --dims 128 --out work_dirs/reducer.safetensors

A PCA basis of image features (not centred: langocc/teachers/pca.py says why), of a feature store,
of a folder of maps, or of a config's teacher at its training images; --text-embeds then only tells
how many features keep their nearest prompt:

    python tools/fit_reducer.py --from-features STORE --dims 128 --out work_dirs/pca.safetensors
    python tools/fit_reducer.py --from-teacher CONFIG --dims 128 --out work_dirs/pca.safetensors
"""
import argparse
import hashlib
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from langocc.files import existing_file, one_line_errors
from langocc.teachers import Reducer, TextEmbeddings, Vocabulary, fit_pca, fit_reducer, moments_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--from-features', metavar='FOLDER',
                        help='feature store, or maps (E, h, w) in .npy or .npz files')
    source.add_argument('--from-teacher', metavar='CONFIG',
                        help='config with a teacher, asked at its training images')
    parser.add_argument('--text-embeds', nargs='+',
                        help='.npz file(s) with text embeddings and the names beside them')
    parser.add_argument('--vocabulary', help='vocabulary file or name; default: every name in the '
                        'text embeddings')
    parser.add_argument('--dims', type=int, default=128, help='dimensions kept (default: 128)')
    parser.add_argument('--out', required=True, help='.safetensors file to write')
    parser.add_argument('--images', type=int, default=1000,
                        help='images at most, drawn at random (default: 1000)')
    parser.add_argument('--cells', type=int, default=500,
                        help='features of each at most, drawn at random (default: 500)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if not (args.from_features or args.from_teacher or args.text_embeds):
        parser.error('give --text-embeds, --from-features or --from-teacher')
    if args.images < 1 or args.cells < 1:
        parser.error('--images and --cells must be at least 1')
    return args


def read_text(args: argparse.Namespace) -> Tuple[Tensor, Tuple[str, ...], Dict[str, Any]]:
    """Embeddings (K, E), their prompts, and what they are."""
    text = TextEmbeddings(args.text_embeds)
    vocabulary = Vocabulary(args.vocabulary, text) if args.vocabulary else None
    prompts = vocabulary.prompts if vocabulary else text.words
    facts = dict(text_embeds={path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                              for path in text.files},
                 vocabulary=vocabulary.path.stem if vocabulary else None, prompts=list(prompts))
    return text.encode(prompts), prompts, facts


def fit_on_text(args: argparse.Namespace) -> Reducer:
    embeds, prompts, facts = read_text(args)
    reducer, history = fit_reducer(embeds, args.dims, seed=args.seed, metadata=facts)
    cosines = (reducer.restore(reducer.reduce(embeds)) * embeds).sum(dim=1)
    print(f'{len(prompts)} prompts, {embeds.shape[1]} -> {args.dims} dimensions, '
          f'{len(history) - 1} steps: loss {history[0]:.4f} -> {min(history):.4f}')
    worst = int(torch.argmin(cosines))
    print(f'cosine to the original: mean {cosines.mean():.4f}, lowest {cosines[worst]:.4f} '
          f'({prompts[worst]!r})')
    return reducer


def fit_on_features(args: argparse.Namespace) -> Reducer:
    from langocc.apis.feature_rows import TeacherPixels, draw_rows, open_features, split_images
    text = read_text(args)[0] if args.text_embeds else None
    if args.from_features:
        source = open_features(args.from_features)
    else:
        source = TeacherPixels.from_config(existing_file(args.from_teacher, 'config'))
    rng = np.random.default_rng(args.seed)
    fitted, checked = split_images(source, args.images, rng)
    rows = draw_rows(source, tqdm(fitted, unit='image', disable=None), args.cells, rng)
    facts = dict(source.describe(), images_fitted=len(fitted), cells=args.cells, seed=args.seed)
    reducer = fit_pca(moments_of(rows), args.dims, facts)
    facts = reducer.metadata
    print(f'{facts["num_features"]} features of {len(fitted)} images, {reducer.embed_dims} -> '
          f'{args.dims} dimensions: {100 * facts["energy"]:.2f} % of their length squared, '
          f'{100 * facts["explained_variance"]:.2f} % of their variance about the mean')
    report_check(reducer, torch.cat(list(draw_rows(source, checked, args.cells, rng))).float(),
                 f'{len(checked)} {"of these" if checked is fitted else "other"} images', text)
    return reducer


def report_check(reducer: Reducer, feats: Tensor, where: str, text: Optional[Tensor]) -> None:
    feats = torch.nn.functional.normalize(feats[(feats != 0).any(dim=1)], dim=1)
    reduced = reducer.reduce(feats)
    cosines = (reducer.restore(reduced) * feats).sum(dim=1)
    print(f'cosine to the original, {where}: mean {cosines.mean():.4f}, 1 % lie under '
          f'{np.quantile(cosines.numpy(), 0.01):.4f}')
    if text is not None:
        same = (feats @ text.T).argmax(1) == (reduced @ reducer.reduce(text).T).argmax(1)
        print(f'{100 * same.float().mean():.1f} % keep the nearest of {len(text)} prompts')


def main() -> None:
    args = parse_args()
    on_features = args.from_features or args.from_teacher
    reducer = fit_on_features(args) if on_features else fit_on_text(args)
    reducer.save(args.out)
    print(f'wrote {Path(args.out)}')


if __name__ == '__main__':
    with one_line_errors('fit_reducer', ValueError):
        main()
