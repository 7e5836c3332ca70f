"""Small benchmarks in POP-3D's layout."""
import numpy as np


def write_benchmark(root, queries, name='retrieval_anns_all.csv'):
    """Write (token, split, words, labels (P,), indices of visible points) tuples; returns root."""
    lines = []
    for folder in ('annotations', 'matching_points'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (token, split, words, labels, matching) in enumerate(queries):
        files = (f'annotations/{token}_{number}__retrieval.npy',
                 f'matching_points/{token}_{number}__points.npy')
        np.save(root / files[0], np.asarray(labels, np.uint8))
        np.save(root / files[1], np.asarray(matching, np.uint32))
        lines.append(';'.join((token, split, *files, words)))
    (root / name).write_text('\n'.join(lines) + '\n')
    return root
