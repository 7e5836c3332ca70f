#!/usr/bin/env python
"""Ask a trained model for words: ``python tools/query.py CONFIG CHECKPOINT --words car "person"``.

Writes, for each sample, ``<token>.npz`` (similarity and relevancy of every occupied voxel to every
word) and, for each word, a coloured point cloud (.ply) and a picture: the cameras with the rendered
relevancy over them, and the voxels from above and in 3D, with what is labelled so outlined.

Similarity is the cosine of feature and word. It is high for any word (text embeddings lie in a
narrow cone), so colours show relevancy: 1 / (1 + exp(-100 (cosine of the word - highest cosine of
the vocabulary's words of other classes))). Above 0.5 the word fits better than any other class. A
model without a vocabulary has cosines in one range for all words of the call.
"""
import argparse
from typing import List, Sequence

from mmengine.config import Config, DictAction

from langocc.apis import OccInferencer, QueryResult
from langocc.engine import merge_options
from langocc.files import existing_file, one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--words', nargs='+', required=True,
                        help='names in the text-embedding file, which lists the nearest to an '
                        'unknown one; any text where CLIP\'s weights are (LANGOCC_CLIP_WEIGHTS)')
    parser.add_argument('--samples', nargs='+', default=['0'],
                        help='sample tokens or indices in the test data set (default: 0)')
    parser.add_argument('--out-dir', default='queries', help='folder of the results')
    parser.add_argument('--device', help="'cpu', 'cuda:0' ... (default: a GPU where there is one)")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(existing_file(args.config, 'config'))
    existing_file(args.checkpoint, 'checkpoint')
    merge_options(cfg, args.cfg_options, also_read=('text_encoder',))
    inferencer = OccInferencer(cfg, args.checkpoint, args.device)
    inferencer.embed(args.words)
    samples = [int(sample) if sample.isdigit() else sample for sample in args.samples]
    for sample in samples:
        inferencer.find(sample)  # all of them, before the first is asked
    for sample in samples:
        results = inferencer([sample], words=args.words, out_dir=args.out_dir)
        print('\n'.join(report(results['predictions'][0], results['visualization'][0])))


def report(result: QueryResult, files: Sequence) -> List[str]:
    lines = [f'sample {result.token}: {len(result.voxel_indices)} occupied voxels']
    for index, word in enumerate(result.words):
        values = result.similarity[:, index]
        if len(values):
            best = values.argmax()
            lines.append(f'  {word!r}: highest cosine {values[best]:.3f} at voxel '
                         f'{result.voxel_indices[best].tolist()}')
            if result.relevancy is not None:
                lines[-1] += (f'; fits better than the words of other classes at '
                              f'{(result.relevancy[:, index] > 0.5).sum()} voxels')
    return [*lines, *(f'  {file}' for file in files)]


if __name__ == '__main__':
    with one_line_errors('query', KeyError, ValueError, OSError, ImportError):
        main()
