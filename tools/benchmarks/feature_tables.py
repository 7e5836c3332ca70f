"""What codecs cost and keep: bytes on real images, cosines, classes, retrieval.

Legend: E embedding, (h, w) size of a map, P points.
"""
from pathlib import Path
from typing import Dict, List

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .feature_case import NUSCENES_IMAGES, SEED, FeatureCase
from .feature_read import CODECS
from .progress import say

_ROWS_PER_IMAGE = 512
_FIT_SHARE = 1 / 3  # of the images; the others are judged
_LARGE = 28 * 50  # cells; of larger maps one image of a key frame's six is enough for a size
_GB = 1e9


def benchmark_size(case: FeatureCase, folder: Path) -> List[Dict]:
    """Bytes that stores of real images take, and all of nuScenes at as much an image."""
    from langocc.apis.extraction_codecs import fit_codec, needs_features, rows_of_maps
    rows = []
    for map_size in case.size.map_sizes:
        count = case.size.images if map_size[0] * map_size[1] <= _LARGE else 6
        images, source = case.spread_images(count), case.probabilities(map_size)
        for name in CODECS:
            say(f'size: {name}, {map_size[0]} x {map_size[1]} cells, {len(images)} images')
            sample = rows_of_maps((source.maps([item], [None])[0] for item in images),
                                  _ROWS_PER_IMAGE, np.random.default_rng(SEED)
                                  ) if needs_features(name) else None
            codec = fit_codec(name, sample, source.embed_dims)
            root = folder / f'size-{name}-{map_size[0]}'
            rows.append(dict(name=f'{name} {map_size[0]}x{map_size[1]}', codec=name,
                             map_size=list(map_size), row_bytes=codec.row_bytes,
                             **measured_size(root, codec, source, images)))
    return rows


def measured_size(root: Path, codec, source, images: List) -> Dict[str, float]:
    """A store of images is written and its files are weighed."""
    from langocc.feature_store import FeatureWriter
    with FeatureWriter(root, codec, source.describe()) as writer:
        for item in images:
            writer.write(item.token, source.maps([item], [None])[0])
    items = sum(path.stat().st_size for path in (root / 'parts').iterdir())
    fixed = sum(path.stat().st_size for path in root.iterdir() if path.is_file())
    return dict(images=len(images), bytes_per_image=items / len(images), fixed_bytes=fixed,
                nuscenes_gb=(items / len(images) * NUSCENES_IMAGES + fixed) / _GB)


def benchmark_codecs(case: FeatureCase, folder: Path, device: str) -> List[Dict]:
    """A row for each teacher and codec; fitted on a third of the images, judged on the others.

    The probabilities' rows have ``teacher_ap``, the 2D teacher's mean average precision at LiDAR
    points (x 100) when it is read from decoded maps, of the key frames that the images are of; the
    row 'fp32' is the teacher itself. A random ViT's features are in no text space.
    """
    rows = teacher_rows(case, 'probabilities', case.probabilities(case.size.map_sizes[0]),
                        case.key_frame_images(case.size.images))
    return rows + teacher_rows(case, 'random ViT', case.random_vit(folder / 'vit', device),
                               case.spread_images(case.size.vit_images))


def teacher_rows(case: FeatureCase, name: str, source, images: List) -> List[Dict]:
    """Rows of one teacher."""
    from langocc.apis.inspection import compute_maps, fitted_columns, judge
    in_text_space = name == 'probabilities'
    say(f'codecs: {len(images)} images of the teacher {name}')
    maps = compute_maps(source, images)
    say(f'codecs: fitting {", ".join(CODECS)} to {name}')
    order = np.random.default_rng(SEED).permutation(len(images)).tolist()
    fitted, judged = np.split(order, [round(_FIT_SHARE * len(images))])
    columns = fitted_columns(CODECS, [maps[i] for i in fitted], _ROWS_PER_IMAGE, SEED)
    found = judge(columns, [images[i] for i in judged], [maps[i] for i in judged],
                  case.vocabulary if in_text_space else None, show=0)
    rows = [dict(row, name=f'{name} {row["codec"]}', teacher=name, fitted_images=len(fitted),
                 judged_images=len(judged)) for row in found.rows]
    if in_text_space:
        scores = [retrieval_score(case, {item.token: values for item, values in zip(images, maps)})]
        for column in columns:
            say(f'codecs: retrieval from {column.name}')
            scores.append(retrieval_score(case, {item.token: column.restore(item, values)
                                                 for item, values in zip(images, maps)}))
        rows.insert(0, dict(name=f'{name} fp32', teacher=name, codec='fp32',
                            bytes_per_vector=4 * source.embed_dims))
        rows = [dict(row, teacher_ap=score) for row, score in zip(rows, scores)]
    return rows


def retrieval_score(case: FeatureCase, maps: Dict[str, Tensor]) -> float:
    """Mean over queries of the average precision x 100 at visible LiDAR points inside the grid.

    Args:
        case: the case.
        maps: token -> (E, h, w); key frames of which an image is missing are left out.
    """
    from langocc.datasets.retrieval_benchmark import lidar_in_ego, load_queries
    from langocc.evaluation.retrieval import mean_of, score_query, teacher_features
    from langocc.occ3d import OCC3D_RANGE
    teacher, box = maps_teacher(maps), np.array(OCC3D_RANGE)
    queries, rows = load_queries(case.root / 'retrieval_benchmark'), []
    for index in range(len(case.dataset)):
        info = case.dataset.get_data_info(index)
        if not all(info['images'][name]['sample_data_token'] in maps
                   for name in info['camera_names']):
            continue
        points = lidar_in_ego(info)
        in_range = ((points > box[:3]) & (points < box[3:])).all(axis=1)
        feats = teacher_features(teacher, info, info['camera_names'])
        for query in queries:
            if query.token == info['token']:
                cosines = (feats @ case.text.encode([query.words])[0]).numpy()
                rows.append(score_query(query, in_range, cosines))
    return mean_of(rows, 'visible')


def maps_teacher(maps: Dict[str, Tensor]):
    """A teacher of maps in memory, token -> (E, h, w)."""
    from langocc.teachers import Teacher
    from langocc.teachers.sampling import sample_map

    class MapsTeacher(Teacher):
        """Reads maps."""
        embed_dims = next(iter(maps.values())).shape[0]

        def features(self, info, camera, pixels):
            image = info['images'][camera]
            values = sample_map(maps[image['sample_data_token']].numpy(), np.asarray(pixels),
                                (image['width'], image['height']))
            return F.normalize(torch.from_numpy(values), dim=1)

    return MapsTeacher()
