"""What the cameras of a sample see, one column a camera, prediction above truth.

Every ``draw_`` function takes a sample and the pixels that its picture spans, and gives None where
the sample has nothing to show.

Legend: h, w rows and columns of a camera's map. Pictures are (H, W, 3) uint8 RGB arrays.
"""
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from ..occ3d import FREE_CLASS
from .camera_maps import CameraMaps, RigMaps, ring_order
from .feature_colors import FeatureBasis, feature_colors, fit_color_basis, fit_feature_basis
from .palette import (
    CLASS_NAMES, DISTANCE_COLORMAP, class_colors, distance_colors, map_colors, present_classes
)
from .pictures import class_legend, colour_bar, legend, picture_grid, resize_picture, text_block
from .sample_pictures import CAPTION, GAP, SamplePictures, tight, titled

_MARGIN = 112  # pixels left of the cameras, for what a row shows
_OPACITY_COLORMAP = 'viridis'


def draw_cameras(sample: SamplePictures, width: int) -> np.ndarray:
    """The original images."""
    size = _column(sample, width)
    row = [resize_picture(sample.images[name], size) for name in ring_order(sample.info)]
    return _table(sample, 'Input cameras, from left to right around the car',
                  [('images', row)], width)


def draw_distances(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    """Distance along the ray to what is met, in colours from near to far."""
    def paint(maps: CameraMaps, backdrop: np.ndarray) -> np.ndarray:
        met = np.isfinite(maps.distances)
        return _over(backdrop, distance_colors(maps.distances, 0., sample.far), met, False)

    bar = colour_bar(width // 2, 0., sample.far, 'm along the ray; dark image: nothing met',
                     DISTANCE_COLORMAP)
    return _compared(sample, 'Distance', paint, width, bar)


def draw_opacities(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    """How much of the light is stopped; None without a rendered prediction."""
    if not sample.rendered:
        return None  # all or nothing: the distances show it

    def paint(maps: CameraMaps, backdrop: np.ndarray) -> np.ndarray:
        return _over(backdrop, map_colors(maps.opacities, 0., 1., _OPACITY_COLORMAP),
                     np.ones_like(maps.opacities), True)

    bar = colour_bar(width // 2, 0., 1., 'share of the light that is stopped', _OPACITY_COLORMAP)
    return _compared(sample, 'Opacity', paint, width, bar)


def draw_classes(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    """Classes in Occ3D's colours, as transparent as the ray is."""
    def paint(maps: CameraMaps, backdrop: np.ndarray) -> np.ndarray:
        alpha = maps.opacities * (maps.classes != FREE_CLASS)
        return _over(backdrop, class_colors(maps.classes), alpha, False)

    present = _present(sample.predicted_maps or {}, sample.true_maps or {})
    return _compared(sample, 'Classes', paint, width,
                     class_legend(np.array(present, np.int64), width - _MARGIN - GAP))


def draw_features(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    """Directions of language features as colours; None without language.

    With a vocabulary the colours are those of classes (:func:`fit_color_basis` of their text
    embeddings), the same in every picture, and mixed where features are between; truth shows each
    labelled voxel as the text embedding of its class. Without one the colours are directions of the
    features met, and there is no truth to show.
    """
    maps = sample.predicted_maps or {}
    met = [item.feats[item.classes != FREE_CLASS] for item in maps.values()
           if item.feats is not None]
    if not met or not sum(map(len, met)):
        return None
    names, size = ring_order(sample.info), _column(sample, width)

    def row(basis: FeatureBasis) -> Tuple[str, List[np.ndarray]]:
        return sample.source, [
            _over(_backdrop(sample, name, size), feature_colors(_unit(maps[name].feats), basis),
                  maps[name].opacities, True) for name in names]

    texts = maps[names[0]].class_feats
    if texts is None:
        basis = fit_feature_basis(_unit(np.concatenate(met)))
        return _table(sample, 'Language features, their three main directions as red, green, blue '
                      '(one basis for all cameras)', [row(basis)], width)
    present = _present(maps, sample.true_maps or {})
    basis, colors = _class_features_colors(texts)
    rows = [row(basis)]
    if sample.true_maps is not None:
        rows.append(('truth:\ntext of\nthe label', [
            _over(_backdrop(sample, name, size), colors[sample.true_maps[name].classes],
                  sample.true_maps[name].opacities, False) for name in names]))
    key = legend([CLASS_NAMES[index] for index in present], colors[list(present)],
                 width - _MARGIN - GAP)
    return _table(sample, "Language features in the colours of the classes whose text they equal, "
                  'mixed between them; right where both rows agree', rows, width, key)


def _class_features_colors(texts: np.ndarray) -> Tuple[FeatureBasis, np.ndarray]:
    """The basis that gives classes their colours, and the colours (18, 3) it gives.

    Args:
        texts: (K, E), nan for a class without a word, which is mid-grey.
    """
    known = np.flatnonzero(np.isfinite(texts).all(1))
    basis = fit_color_basis(texts[known], class_colors(known))
    colors = np.full((FREE_CLASS + 1, 3), 128, np.uint8)
    colors[known] = feature_colors(texts[known], basis)
    return basis, colors


def draw_rgb(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    """Rendered colour above the images; None without a colour decoder."""
    maps = sample.predicted_maps or {}
    if not maps or any(item.rgb is None for item in maps.values()):
        return None
    size, names = _column(sample, width), ring_order(sample.info)
    rendered = [_resize((maps[name].rgb * 255).round().astype(np.uint8), size, True)
                for name in names]
    images = [resize_picture(sample.images[name], size) for name in names]
    return _table(sample, 'Colour', [(sample.source, rendered), ('images', images)], width)


def _compared(sample: SamplePictures, title: str,
              paint: Callable[[CameraMaps, np.ndarray], np.ndarray], width: int,
              key: np.ndarray) -> Optional[np.ndarray]:
    """Predicted maps above true ones, with a key below; None where there is neither."""
    size, rows = _column(sample, width), []
    for label, maps in ((sample.source, sample.predicted_maps),
                        ('truth:\nlabelled\nvoxels', sample.true_maps)):
        if maps is not None:
            rows.append((label, [paint(maps[name], _backdrop(sample, name, size))
                                 for name in ring_order(sample.info)]))
    return _table(sample, title, rows, width, key) if rows else None


def _table(sample: SamplePictures, title: str, rows: Sequence[Tuple[str, List[np.ndarray]]],
           width: int, key: Optional[np.ndarray] = None) -> np.ndarray:
    """Rows of one picture a camera under the cameras' names, each with a label at the left."""
    names = [text_block(name, (_column(sample, width), CAPTION + 6), CAPTION - 2)
             for name in ring_order(sample.info)]
    lines = [[text_block('', (_MARGIN, 1)), *names]]
    for label, pictures in rows:
        height = max(picture.shape[0] for picture in pictures)
        lines.append([text_block(label, (_MARGIN, height), CAPTION), *pictures])
    if key is not None:
        lines.append([text_block('', (_MARGIN, 1)), key])
    return titled(tight(picture_grid(lines, GAP)), title, width)


def _present(*rigs: RigMaps) -> Tuple[int, ...]:
    """Occupied classes in any map."""
    classes = [item.classes.ravel() for maps in rigs for item in maps.values()]
    return present_classes(np.concatenate(classes) if classes else np.zeros(0, np.uint8))


def _column(sample: SamplePictures, width: int) -> int:
    """Pixels of a camera in a table."""
    count = len(sample.info['camera_names'])
    return max((width - _MARGIN - count * GAP) // count, 1)


def _backdrop(sample: SamplePictures, camera: str, width: int) -> np.ndarray:
    """The camera's image, dark and bluish, unlike any class, for what lies over it."""
    image = resize_picture(sample.images[camera], width).astype(float).mean(-1, keepdims=True)
    return (0.3 * image + [14, 20, 36]).round().astype(np.uint8)


def _over(backdrop: np.ndarray, colors: np.ndarray, alpha: np.ndarray, smooth: bool) -> np.ndarray:
    """Colours (h, w, 3) over a picture, as far as ``alpha`` (h, w) in [0, 1] says."""
    height, width = backdrop.shape[:2]
    colors = _resize(colors, width, smooth, height)
    alpha = _resize((alpha * 255).round().astype(np.uint8), width, smooth, height) / 255.
    return (backdrop * (1 - alpha[..., None]) + colors * alpha[..., None]).round().astype(np.uint8)


def _resize(values: np.ndarray, width: int, smooth: bool, height: Optional[int] = None
            ) -> np.ndarray:
    """uint8 picture or map at another size; not smoothed where colours are names."""
    height = height or max(round(values.shape[0] * width / values.shape[1]), 1)
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.array(Image.fromarray(values).resize((width, height), method))


def _unit(feats: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(feats, axis=-1, keepdims=True)
    return feats / np.maximum(lengths, 1e-12)
