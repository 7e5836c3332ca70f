#!/usr/bin/env python
"""Dense 2D teacher features of a data set's images, into a feature store.

    python tools/extract_features.py CONFIG --out data/nuscenes/features
    python tools/extract_features.py --infos a_infos_train.json a_infos_val.json --data-root DIR \
        --teacher maskclip --weights FILE --input-size 448 800 --out STORE
    torchrun --nproc-per-node 8 tools/extract_features.py CONFIG --out STORE   (or srun)

Started again after an interruption, with any number of processes, it goes on where it was: what is
in the store stays. Size and time are projected from the first images before the others follow;
--dry-run stops there and writes nothing. Training reads the store by
dict(type='StoreTeacher', root=STORE). Exit status: 0 done; 1 images could not be read (they are
named, all others are done; put right and start again); 2 an argument or a file is wrong.
"""
import argparse
import sys

from langocc.apis.extraction import ExtractionOptions, extract_features, rank_of
from langocc.apis.extraction_arguments import add_source_arguments, read_source, read_source_images
from langocc.apis.extraction_codecs import CODEC_NAMES, RECOMMENDED_CODEC, CodecRequest
from langocc.feature_store import FeatureStore
from langocc.files import one_line_errors


def parse_args() -> argparse.Namespace:
    default, codec = ExtractionOptions(), CodecRequest()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source_arguments(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the store')
    parser.add_argument('--codec', default=RECOMMENDED_CODEC, help=f'one of {list(CODEC_NAMES)}, '
                        'another number than 64 included; pq32: 32 bytes (default: %(default)s)')
    parser.add_argument('--reducer', metavar='FILE', help='of tools/fit_reducer.py, for --codec '
                        'reducer')
    parser.add_argument('--fit-images', type=int, default=codec.num_images, metavar='N',
                        help='images that a codec is fitted on (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=codec.seed, help='of their choice')
    parser.add_argument('--batch-size', type=int, default=default.batch_size, metavar='N')
    parser.add_argument('--workers', type=int, default=default.workers, metavar='N',
                        help='threads that read images (default: %(default)s)')
    parser.add_argument('--max-broken', type=int, default=default.max_broken, metavar='N',
                        help='give up after more unreadable images (default: %(default)s)')
    parser.add_argument('--dry-run', action='store_true', help='only project size and time')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    rank, world = rank_of()
    codec = CodecRequest(args.codec, args.reducer, args.fit_images, seed=args.seed)
    options = ExtractionOptions(args.batch_size, args.workers, max_broken=args.max_broken)
    prefix = f'[{rank}] ' if world > 1 else ''
    images = read_source_images(args)
    report = extract_features(
        read_source(args), images, args.out, codec, rank, world, options, args.dry_run,
        say=lambda line: print(f'{prefix}{line}', flush=True))
    if args.dry_run:
        return 0
    store = FeatureStore(args.out)
    done = sum(item.token in store for item in images)
    print(f'{prefix}{report.images:,} images written, {report.images_per_second:.3g} images/s, '
          f'teacher {report.teacher_share:.0%} of the time; {args.out} has {done:,} of '
          f'{len(images):,} images now, {store.file_bytes:,} bytes', flush=True)
    for line in report.broken:
        print(f'{prefix}not readable: {line}', file=sys.stderr)
    return 1 if report.broken else 0


if __name__ == '__main__':
    with one_line_errors('extract_features', ValueError, OSError, ImportError):
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit('extract_features: interrupted; start it again to go on')
