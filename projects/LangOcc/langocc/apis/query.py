"""Text queries against a voxel field: numbers for every occupied voxel and for cameras' rays.

Legend: K words, U occupied voxels; h, w rows and columns of a camera's map; E embedding.
"""
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voxelrender import VoxelGrid

from ..files import atomic_write
from ..models.heads import LangOccHead
from ..models.voxel_field import VoxelField
from ..teachers import TextEncoder
from ..visualization import camera_rays, save_picture, similarity_colors, write_ply
from .language_index import LanguageIndex, index_field
from .query_pictures import color_limits, draw_query, read_truth, shown_values

# Letters of a word in the name of its files; file systems take 255 bytes, a token has 32.
_LONGEST_NAME = 40
# Rays on which less of the light is stopped meet nothing.
_LEAST_OPACITY = 0.05


@dataclass
class QueryResult:
    """Answers of one sample.

    Attributes:
        token: sample.
        words: K words.
        grid: grid of the field.
        voxel_indices: (U, 3) x, y, z index of every occupied voxel.
        similarity: (U, K) cosine of voxel feature and text embedding.
        classes: (U,) uint8 class under the model's vocabulary.
        cameras: camera name -> (K, h, w) rendered cosine on a coarse pixel grid of its image, nan
            where the ray meets nothing.
        images: camera name -> image file.
        relevancy: (U, K) in [0, 1], the words against those of other classes of the vocabulary,
            see :mod:`~langocc.apis.relevancy`; None without a vocabulary.
        word_classes: K Occ3D classes, those of the vocabulary's nearest prompts; empty without one.
        camera_relevancy: as ``cameras``; empty without a vocabulary.
        opacities: camera name -> (h, w) in [0, 1].
        info: the sample's info, where cameras were rendered; pictures take its labels.
    """
    token: str
    words: Tuple[str, ...]
    grid: VoxelGrid
    voxel_indices: np.ndarray
    similarity: np.ndarray
    classes: np.ndarray
    cameras: Dict[str, np.ndarray]
    images: Dict[str, str]
    relevancy: Optional[np.ndarray] = None
    word_classes: Tuple[int, ...] = ()
    camera_relevancy: Dict[str, np.ndarray] = field(default_factory=dict)
    opacities: Dict[str, np.ndarray] = field(default_factory=dict)
    info: Mapping = field(default_factory=dict)

    @classmethod
    def from_index(cls, index: LanguageIndex, words: Union[str, Sequence[str]]) -> 'QueryResult':
        """Answers of an index: voxels only, no camera is rendered."""
        words = (words, ) if isinstance(words, str) else tuple(words)
        result = cls(token=index.token, words=words, grid=index.grid,
                     voxel_indices=index.voxel_indices, similarity=index.similarity(words),
                     classes=index.classes, cameras={}, images={})
        if not words or index.contrast is None:
            return result
        classes = index.contrast.classes_of(index.embed(words)).tolist()
        return replace(result, relevancy=index.relevancy(words), word_classes=tuple(classes))


def query_field(head: LangOccHead, field: VoxelField, words: Sequence[str], info: dict,
                text_encoder: Optional[TextEncoder], width: int = 120) -> QueryResult:
    """Ask batch item 0 of a field for words, its voxels and, where there are words, its cameras.

    Args:
        head: the head that made the field.
        field: the field, in the key ego frame without augmentation.
        words: K; none asks for occupancy and classes only.
        info: the sample's info (calibration, image files, labels' file).
        text_encoder: embeds the words.
        width: columns of the rendered maps.
    """
    index = index_field(head, field, 0, info['token'], text_encoder)
    result = QueryResult.from_index(index, words)
    if not words:
        return result
    text, names = index.embed(words), info['camera_names']
    result = replace(result, info=info,
                     images={name: info['images'][name]['img_path'] for name in names})
    for name in names:
        feats, opacities = render_language(head, field, info, name, width)
        unmet = opacities <= _LEAST_OPACITY

        def as_maps(values: np.ndarray) -> np.ndarray:
            return np.where(unmet, np.nan, values.T.reshape(-1, *unmet.shape)).astype(np.float32)

        result.cameras[name] = as_maps((feats @ text.t()).cpu().numpy())
        result.opacities[name] = opacities
        if index.contrast is not None:
            result.camera_relevancy[name] = as_maps(index.contrast.relevancy(feats, text))
    return result


@torch.no_grad()
def render_language(head: LangOccHead, field: VoxelField, info: dict, camera: str, width: int
                    ) -> Tuple[Tensor, np.ndarray]:
    """Unit rendered features (h * w, E) and opacities (h, w) on a pixel grid of a camera."""
    rays, shape = camera_rays(info, camera, width)
    rendered = head.render(field, [rays.to(field.feats.device)], ('lang',))
    feats = F.normalize(rendered.outputs['lang'].float(), dim=-1)
    return feats, rendered.opacities.float().cpu().numpy().reshape(shape)


def save_query(result: QueryResult, out_dir: str) -> List[Path]:
    """Write a result: one .npz for the sample; a .ply and a picture for each word.

    Returns:
        The files.
    """
    folder = Path(out_dir)
    archive = folder / f'{result.token}.npz'
    more = {} if result.relevancy is None else dict(relevancy=result.relevancy)
    with atomic_write(archive) as temporary:
        np.savez_compressed(
            temporary, words=np.array(result.words), voxel_indices=result.voxel_indices,
            similarity=result.similarity, classes=result.classes,
            point_cloud_range=np.array(result.grid.point_cloud_range),
            voxel_size=np.array(result.grid.voxel_size), **more)
    files, truth = [archive], read_truth(result)
    for index, name in enumerate(_file_names(result.words)):
        stem = folder / f'{result.token}_{name}'
        files += [stem.with_name(f'{stem.name}{suffix}') for suffix in ('.ply', '.png')]
        _save_points(files[-2], result, index)
        save_picture(files[-1], draw_query(result, index, truth))
    return files


def _file_names(words: Sequence[str]) -> List[str]:
    """Words as parts of file names: any text in, each name once."""
    names: List[str] = []
    for word in words:
        plain = re.sub(r'[^\w-]+', '_', word).strip('_')[:_LONGEST_NAME] or 'word'
        count = sum(name == plain or name.startswith(f'{plain}~') for name in names)
        names.append(f'{plain}~{count + 1}' if count else plain)
    return names


def _save_points(path: Path, result: QueryResult, index: int) -> None:
    low = np.array(result.grid.point_cloud_range[:3])
    points = low + (result.voxel_indices + 0.5) * np.array(result.grid.voxel_size)
    colors = similarity_colors(shown_values(result)[:, index], *color_limits(result))
    values = {'similarity': result.similarity[:, index], 'class': result.classes}
    if result.relevancy is not None:
        values['relevancy'] = result.relevancy[:, index]
    write_ply(path, points, colors=colors, values=values)
