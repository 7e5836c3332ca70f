"""Text queries against a voxel field: numbers for every occupied voxel, and pictures.

Legend: K words, U occupied voxels, N cameras, P pixels, E embedding.
"""
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from voxelrender import VoxelGrid

from ..files import atomic_write
from ..models.heads import LangOccHead
from ..models.voxel_field import VoxelField
from ..teachers import TextEncoder
from ..visualization import (
    camera_rays, colour_bar, draw_values_3d, draw_values_bev, overlay_heat, picture_grid,
    resize_picture, save_picture, similarity_colors, with_caption, write_ply
)
from ..visualization.palette import SIMILARITY_COLORMAP
from .language_index import LanguageIndex, index_field

# Letters of a word in the name of its files; file systems take 255 bytes, a token has 32.
_LONGEST_NAME = 40


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
    """
    token: str
    words: Tuple[str, ...]
    grid: VoxelGrid
    voxel_indices: np.ndarray
    similarity: np.ndarray
    classes: np.ndarray
    cameras: Dict[str, np.ndarray]
    images: Dict[str, str]

    @classmethod
    def from_index(cls, index: LanguageIndex, words: Union[str, Sequence[str]]) -> 'QueryResult':
        """Answers of an index: voxels only, no camera is rendered."""
        words = (words, ) if isinstance(words, str) else tuple(words)
        return cls(token=index.token, words=words, grid=index.grid,
                   voxel_indices=index.voxel_indices, similarity=index.similarity(words),
                   classes=index.classes, cameras={}, images={})


def query_field(head: LangOccHead, field: VoxelField, words: Sequence[str], info: dict,
                text_encoder: Optional[TextEncoder], width: int = 120) -> QueryResult:
    """Ask batch item 0 of a field for words, its voxels and, where there are words, its cameras.

    Args:
        head: the head that made the field.
        field: the field, in the key ego frame without augmentation.
        words: K; none asks for occupancy and classes only.
        info: the sample's info (calibration and image files).
        text_encoder: embeds the words.
        width: columns of the rendered maps.
    """
    index = index_field(head, field, 0, info['token'], text_encoder)
    result = QueryResult.from_index(index, words)
    if not words:
        return result
    text = index.embed(words)
    cameras = info['camera_names']
    return replace(
        result, images={name: info['images'][name]['img_path'] for name in cameras},
        cameras={name: render_similarity(head, field, text, info, name, width)
                 for name in cameras})


@torch.no_grad()
def render_similarity(head: LangOccHead, field: VoxelField, text: Tensor, info: dict, camera: str,
                      width: int) -> np.ndarray:
    """(K, h, w) cosine of rendered features with ``text`` (K, E) on a pixel grid of a camera."""
    rays, shape = camera_rays(info, camera, width)
    rendered = head.render(field, [rays.to(field.feats.device)], ('lang',))
    cosine = F.normalize(rendered.outputs['lang'], dim=-1) @ text.t()
    cosine = torch.where(rendered.opacities[:, None] > 0.05, cosine, cosine.new_tensor(np.nan))
    return cosine.t().reshape(-1, *shape).cpu().numpy()


def save_query(result: QueryResult, out_dir: str) -> List[Path]:
    """Write a result: one .npz for the sample; a .ply and a picture for each word.

    Returns:
        The files.
    """
    folder = Path(out_dir)
    archive = folder / f'{result.token}.npz'
    with atomic_write(archive) as temporary:
        np.savez_compressed(
            temporary, words=np.array(result.words), voxel_indices=result.voxel_indices,
            similarity=result.similarity, classes=result.classes,
            point_cloud_range=np.array(result.grid.point_cloud_range),
            voxel_size=np.array(result.grid.voxel_size))
    files = [archive]
    for index, name in enumerate(_file_names(result.words)):
        stem = folder / f'{result.token}_{name}'
        files += [stem.with_name(f'{stem.name}{suffix}') for suffix in ('.ply', '.png')]
        _save_points(files[-2], result, index)
        save_picture(files[-1], draw_query(result, index))
    return files


def _file_names(words: Sequence[str]) -> List[str]:
    """Words as parts of file names: any text in, each name once."""
    names: List[str] = []
    for word in words:
        plain = re.sub(r'[^\w-]+', '_', word).strip('_')[:_LONGEST_NAME] or 'word'
        count = sum(name == plain or name.startswith(f'{plain}~') for name in names)
        names.append(f'{plain}~{count + 1}' if count else plain)
    return names


def _limits(values: np.ndarray) -> Tuple[float, float]:
    """Range of the colours: text similarities live in a narrow band, so each word gets its own."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0., 1.
    low, high = np.percentile(values, [5, 99.5])
    return float(low), float(max(high, low + 1e-6))


def _save_points(path: Path, result: QueryResult, index: int) -> None:
    low = np.array(result.grid.point_cloud_range[:3])
    points = low + (result.voxel_indices + 0.5) * np.array(result.grid.voxel_size)
    similarity = result.similarity[:, index]
    write_ply(path, points, colors=similarity_colors(similarity, *_limits(similarity)),
              values={'similarity': similarity, 'class': result.classes})


def draw_query(result: QueryResult, index: int, width: int = 480) -> np.ndarray:
    """Cameras with rendered similarity over them, above the voxels from above and in 3D."""
    values = np.full(result.grid.grid_shape, np.nan, dtype=np.float32)
    values[tuple(result.voxel_indices.T)] = result.similarity[:, index]
    occupied = np.isfinite(values)
    low, high = _limits(result.similarity[:, index])
    pictures = []
    for name, maps in result.cameras.items():
        image = np.asarray(Image.open(result.images[name]).convert('RGB'))
        heat = overlay_heat(image, maps[index], low=low, high=high)
        pictures.append(with_caption(resize_picture(heat, width), name))
    rows = [pictures[i:i + 3] for i in range(0, len(pictures), 3)]
    bev = draw_values_bev(values, occupied, result.grid, low=low, high=high)
    view = draw_values_3d(values, occupied, result.grid, low=low, high=high)
    word = result.words[index]
    rows.append([with_caption(resize_picture(bev, width), f"'{word}' from above (x up, y left)"),
                 with_caption(resize_picture(view, 2 * width), f"'{word}' from behind the car")])
    rows.append([colour_bar(width, low, high, 'cosine similarity', SIMILARITY_COLORMAP)])
    return picture_grid(rows)
