"""What codecs cost downstream, on the embedded world of tools/make_synthetic.py.

Codecs are fitted on images of its training streets; scores are of streets never seen. The 2D
teacher is the world's own (text embeddings of the classes seen, with a segmenter's errors); read
back from each codec it is scored as a 2D baseline is: retrieval at LiDAR points, and the class of
the nearest prompt against the points' labels.

Needs langocc and the synthetic data.

Legend: E embedding, (h, w) size of a map, P points.
"""
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import torch
from torch import Tensor

from .feature_case import SEED, FeatureSize
from .feature_read import CODECS
from .feature_tables import maps_teacher
from .progress import say
from .whole_case import ROOT

CONFIG = ROOT / 'configs' / '_base_' / 'datasets' / 'synthetic_occ.py'
REDUCER = 'reducer'
_ROWS_PER_IMAGE = 512


@dataclass
class Score:
    """What is counted of one codec.

    Attributes:
        maps, restored: of the images whose cosines are asked.
        queries: rows of :func:`~langocc.evaluation.retrieval.score_query`.
        points: labelled points that a camera sees.
        right: those whose nearest prompt is of the labelled class.
    """
    maps: List[Tensor] = field(default_factory=list)
    restored: List[Tensor] = field(default_factory=list)
    queries: List[dict] = field(default_factory=list)
    points: int = 0
    right: int = 0


class EmbeddedCase:
    """The embedded world and its teacher, as the synthetic recipes have them.

    Args:
        root: folder of tools/make_synthetic.py; None takes SYNTHETIC_ROOT, or data/synthetic.

    Raises:
        FileNotFoundError: no such data.
    """

    def __init__(self, root: Optional[str]):
        from mmdet3d.registry import DATASETS, TASK_UTILS
        from mmengine.config import Config
        from mmengine.registry import init_default_scope

        import langocc  # noqa: F401
        init_default_scope('mmdet3d')
        if root is not None:
            os.environ['SYNTHETIC_ROOT'] = str(root)
        config = Config.fromfile(CONFIG)
        self.root = Path(config.data_root)
        if not self.root.is_dir():
            raise FileNotFoundError(f'no synthetic data at {self.root}: tools/make_synthetic.py '
                                    f'makes them; name their folder by --synthetic')
        self.reducer = Path(config.reducer_file)
        self.fitted, self.scored = (DATASETS.build(dict(
            config[f'{split}_dataloader'].dataset, pipeline=[], test_mode=True))
            for split in ('train', 'val'))
        self.teacher = TASK_UTILS.build(config.teacher)
        self.vocabulary = TASK_UTILS.build(config.vocabulary)
        self.text = TASK_UTILS.build(config.text_encoder)

    def maps(self, info: dict) -> Dict[str, Tensor]:
        """Token -> (E, h, w) unit map of every image of a key frame, at the teacher's own cells."""
        from langocc.apis.extraction_images import ImageItem, SampledMaps
        found = {}
        for camera in info['camera_names']:
            record = info['images'][camera]
            item = ImageItem(record['sample_data_token'], camera, record)
            source = SampledMaps(self.teacher, self.map_size(item.token), {})
            found[item.token] = source.maps([item], [None])[0]
        return found

    def map_size(self, token: str) -> tuple:
        """(h, w) of the stored probabilities."""
        with np.load(self.root / 'teacher_probs' / f'{token}.npz') as archive:
            return archive['probs'].shape[1:]

    def columns(self, images: int):
        """Codecs, fitted on about ``images`` images, all of some training frames."""
        from langocc.apis.inspection import fitted_columns
        maps = [values for info in spread(self.fitted, images // 6 or 1)
                for values in self.maps(info).values()]
        names = [*CODECS, REDUCER] if self.reducer.is_file() else list(CODECS)
        return fitted_columns(names, maps, _ROWS_PER_IMAGE, SEED, str(self.reducer)), len(maps)

    def labels(self, info: dict, count: int) -> np.ndarray:
        """(P,) class of every LiDAR point by its label; -1 where it has none."""
        from langocc.datasets.label_source import LidarLabelSource, read_lidarseg
        return LidarLabelSource().table[read_lidarseg(info, count)]


def spread(dataset, count: int) -> List[dict]:
    """``count`` key frames (all where there are fewer), evenly over the data set."""
    count = min(count, len(dataset))
    return [dataset.get_data_info(index * len(dataset) // count) for index in range(count)]


def benchmark_embedded(size: FeatureSize, root: Optional[str]) -> List[Dict]:
    """A row for each codec; the row 'fp32' is the teacher itself."""
    from langocc.apis.inspection import Column, fidelity
    from langocc.datasets.retrieval_benchmark import load_queries
    from langocc.evaluation.retrieval import mean_of
    case = EmbeddedCase(root)
    say('embedded: fitting codecs on training streets')
    columns, fitted = case.columns(size.embedded_fit_images)
    columns.insert(0, Column('fp32', 4 * case.text.embed_dims, lambda _, values: values))
    queries = load_queries(case.root / 'retrieval_benchmark')
    scores = {column.name: Score() for column in columns}
    frames = spread(case.scored, size.embedded_frames)
    for number, info in enumerate(frames):
        say(f'embedded: key frame {number + 1} of {len(frames)}')
        maps = case.maps(info)
        asked = [query for query in queries if query.token == info['token']]
        for column in columns:
            score_frame(case, info, maps, {token: column.restore(None, values)
                                           for token, values in maps.items()},
                        asked, scores[column.name])
    return [dict(name=f'embedded {column.name}', codec=column.name,
                 bytes_per_vector=column.row_bytes,
                 **fidelity(scores[column.name].maps, scores[column.name].restored,
                            case.vocabulary),
                 teacher_ap=mean_of(scores[column.name].queries, 'visible'),
                 class_accuracy=scores[column.name].right / scores[column.name].points,
                 fitted_images=fitted, frames=len(frames), points=scores[column.name].points)
            for column in columns]


def score_frame(case: EmbeddedCase, info: dict, maps: Dict[str, Tensor],
                restored: Dict[str, Tensor], queries: List, score: Score) -> None:
    """Counts one key frame of one codec.

    Args:
        case: the world.
        info: the key frame.
        maps: token -> (E, h, w), the teacher's.
        restored: the same as the codec gives them back.
        queries: of this key frame.
        score: what is counted.
    """
    from langocc.datasets.retrieval_benchmark import lidar_in_ego
    from langocc.evaluation.retrieval import score_query, teacher_features
    from langocc.occ3d import OCC3D_RANGE
    camera = info['camera_names'][len(score.maps) % len(info['camera_names'])]
    token = info['images'][camera]['sample_data_token']  # cosines: another camera each frame
    score.maps.append(maps[token])
    score.restored.append(restored[token])
    points, box = lidar_in_ego(info), np.array(OCC3D_RANGE)
    in_range = ((points > box[:3]) & (points < box[3:])).all(axis=1)
    feats = teacher_features(maps_teacher(restored), info, info['camera_names'])
    for query in queries:
        cosines = (feats @ case.text.encode([query.words])[0]).numpy()
        score.queries.append(score_query(query, in_range, cosines))
    labels = torch.from_numpy(case.labels(info, len(points)))
    counted = torch.from_numpy(in_range) & (feats != 0).any(dim=1) & (labels >= 0)
    score.points += int(counted.sum())
    score.right += int((case.vocabulary.classify(feats[counted]) == labels[counted]).sum())
