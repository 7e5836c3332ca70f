"""Pictures of answers to words: cameras, voxels from above and in 3D, and where the labels are.

All words have one scale: relevancy in [0, 1] (:mod:`~langocc.apis.relevancy`), or without a
vocabulary the cosine, over one range for all words of the query.

Legend: K words, U occupied voxels, h, w rows and columns of a camera's map, X, Y, Z grid cells.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

import numpy as np
from mmengine.logging import MMLogger
from PIL import Image

from ..datasets.transforms.loading import LoadOccGTFromFile
from ..visualization import (
    CLASS_NAMES, SIMILARITY_COLORMAP, colour_bar, draw_values_bev, draw_voxels_3d,
    label_camera_views, legend, overlay_heat, picture_grid, resize_picture, similarity_colors,
    with_caption
)
from ..visualization.sample_pictures import note, optional_file

if TYPE_CHECKING:
    from .query import QueryResult

TRUTH_COLOR = (0, 215, 255)  # unlike any of the similarities'
_TRUTH_WIDTH = 240  # columns of the maps that labels are cast into
_ALPHA = 0.7  # of the heat where a ray is opaque
_GLASS = 0.4  # of labelled voxels in 3D, before those that the model has


@dataclass
class QueryTruth:
    """Where the labels are.

    Attributes:
        semantics: (X, Y, Z) Occ3D classes.
        cameras: camera -> (h, w) uint8, the class of the first labelled voxel; 17 without one.
    """
    semantics: np.ndarray
    cameras: Dict[str, np.ndarray]


def read_truth(result: QueryResult) -> Optional[QueryTruth]:
    """The labels of a result's sample; None, and a warning, where there are none on its grid."""
    info = result.info
    if not info or not result.word_classes or not optional_file(
            info.get('occ_path'), 'occupancy labels', info):
        return None
    try:
        labels = LoadOccGTFromFile(result.grid.grid_shape)(dict(info))['gt_occ']
    except (KeyError, ValueError, OSError) as error:
        MMLogger.get_current_instance().warning(f'query pictures without labels: {error}')
        return None
    place = labels.metainfo.get('point_cloud_range')
    if place is not None and not np.allclose(place, result.grid.point_cloud_range, atol=1e-4):
        MMLogger.get_current_instance().warning(
            f'query pictures without labels: they span {place}, the model '
            f'{result.grid.point_cloud_range}')
        return None
    semantics = labels.semantics.numpy()
    maps = label_camera_views(semantics, result.grid, info, _TRUTH_WIDTH)
    return QueryTruth(semantics, {name: view.classes for name, view in maps.items()})


def shown_values(result: QueryResult) -> np.ndarray:
    """(U, K) what colours mean: relevancy, or the cosine without a vocabulary."""
    return result.similarity if result.relevancy is None else result.relevancy


def color_limits(result: QueryResult) -> Tuple[float, float]:
    """Values of the darkest and the brightest colour, the same for all words of a result."""
    if result.relevancy is not None:
        return 0., 1.
    values = result.similarity[np.isfinite(result.similarity)]
    if not len(values):
        return 0., 1.
    low, high = np.percentile(values, [5, 99.5])
    return float(low), float(max(high, low + 1e-6))


def draw_query(result: QueryResult, index: int, truth: Optional[QueryTruth] = None,
               width: int = 480) -> np.ndarray:
    """Cameras with a word's heat over them, above the voxels from above and in 3D.

    Args:
        result: answers of one sample.
        index: of the word.
        truth: outlines voxels labelled as the word's class.
        width: of a camera, pixels.
    """
    word = result.words[index]
    pictures = [with_caption(_camera(result, index, name, truth, width), name)
                for name in result.cameras]
    rows = [pictures[i:i + 3] for i in range(0, len(pictures), 3)]
    above, behind = f"'{word}' from above (x up, y left)", f"'{word}' from behind"
    rows.append([with_caption(_from_above(result, index, truth, width), above),
                 with_caption(_from_behind(result, index, truth, 2 * width),
                              f'{behind} (box in the middle: the car with the cameras)')])
    return picture_grid([*rows, *([line] for line in _key(result, index, truth, 3 * width))])


def _key(result: QueryResult, index: int, truth: Optional[QueryTruth], width: int
         ) -> List[np.ndarray]:
    """What the colours of a word's picture mean."""
    low, high = color_limits(result)
    if result.relevancy is None:
        scale = 'cosine, one scale for all words of the query'
    else:
        scale = 'relevancy; 0.5: fits as well as the best word of any other class'
    lines = [colour_bar(width, round(low, 3), round(high, 3), scale, SIMILARITY_COLORMAP)]
    word = result.words[index]
    if truth is not None:
        label = result.word_classes[index]
        text = f"labelled '{CLASS_NAMES[label]}', class of '{word}' in the vocabulary"
        if (truth.semantics == label).any():
            lines.append(legend([f'{text}: outlined, and like glass in 3D where the model has no '
                                 'voxel'],
                                [TRUTH_COLOR], width))
        else:
            lines.append(note(f'No voxel is {text}', width))
    if result.relevancy is not None:
        wins = int((result.relevancy[:, index] > 0.5).sum())
        lines.append(note(f"'{word}' fits better than the words of all other classes at {wins} of "
                          f'{len(result.relevancy)} occupied voxels', width))
    return lines


def _camera(result: QueryResult, index: int, name: str, truth: Optional[QueryTruth], width: int
            ) -> np.ndarray:
    heat = (result.cameras if result.relevancy is None else result.camera_relevancy)[name][index]
    low, high = color_limits(result)
    image = resize_picture(np.asarray(Image.open(result.images[name]).convert('RGB')), width)
    picture = overlay_heat(image, heat, _ALPHA * result.opacities[name], low, high)
    if truth is None:
        return picture
    return _outline(picture, truth.cameras[name] == result.word_classes[index])


def _from_above(result: QueryResult, index: int, truth: Optional[QueryTruth], width: int
                ) -> np.ndarray:
    values, occupied = _volume(result, index)
    picture = resize_picture(draw_values_bev(values, occupied, result.grid, *color_limits(result)),
                             width)
    if truth is None:
        return picture
    labelled = (truth.semantics == result.word_classes[index]).any(2)
    return _outline(picture, labelled[::-1, ::-1])


def _from_behind(result: QueryResult, index: int, truth: Optional[QueryTruth], width: int
                 ) -> np.ndarray:
    """Occupied voxels by value; labelled ones that are not occupied like blue glass before them."""
    values, occupied = _volume(result, index)
    colors = similarity_colors(values, *color_limits(result))
    picture = draw_voxels_3d(occupied, colors, result.grid)
    if truth is not None:
        missed = (truth.semantics == result.word_classes[index]) & ~occupied
        colors = np.where(missed[..., None], np.array(TRUTH_COLOR, np.uint8), colors)
        missed_too = draw_voxels_3d(occupied | missed, colors, result.grid)
        picture = (picture * (1 - _GLASS) + missed_too * _GLASS).round().astype(np.uint8)
    return resize_picture(picture, width)


def _volume(result: QueryResult, index: int) -> Tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) values of a word, nan where nothing is, and what is occupied."""
    values = np.full(result.grid.grid_shape, np.nan, dtype=np.float32)
    values[tuple(result.voxel_indices.T)] = shown_values(result)[:, index]
    return values, np.isfinite(values)


def _outline(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the border of what a mask (h, w) over the whole of it covers."""
    size = (picture.shape[1], picture.shape[0])
    inside = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    padded = np.pad(inside, 2)  # the picture's edge is a border, too
    shifts = [padded[2 + dy:padded.shape[0] - 2 + dy, 2 + dx:padded.shape[1] - 2 + dx]
              for dy in (-2, 0, 2) for dx in (-2, 0, 2)]
    border = inside & ~np.logical_and.reduce(shifts)
    picture = picture.copy()
    picture[border] = TRUTH_COLOR
    return picture
