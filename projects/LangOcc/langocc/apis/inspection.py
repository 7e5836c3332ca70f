"""How well codecs keep a teacher's features: numbers and pictures on the user's own images.

Codecs are fitted on some images and judged on others. Cosines are between a cell's feature as the
teacher computed it, float32, and as it comes out of the codec.

Legend: P cells, E embedding, (h, w) size of a map. Pictures are (H, W, 3) uint8 RGB arrays.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..feature_store import FeatureStore
from ..teachers import Vocabulary
from ..teachers.dense_teacher import read_image
from ..visualization.feature_colors import FeatureBasis, feature_colors, fit_feature_basis
from ..visualization.pictures import picture_grid, resize_picture, with_caption
from .extraction_codecs import CodecRequest, fit_codec, rows_of_maps
from .extraction_images import ImageItem, MapSource
from .extraction_pipeline import compute_batches

_GAP = 6  # pixels between pictures
_LOW = 1.  # percentile reported beside the mean


@dataclass
class Column:
    """One way to keep features.

    Attributes:
        name: of the codec; 'store' for what lies in a store.
        row_bytes: bytes a vector.
        restore: an image and its map (E, h, w) -> the map as it comes back.
    """
    name: str
    row_bytes: int
    restore: Callable[[ImageItem, Tensor], Tensor]


@dataclass
class Inspection:
    """What was found.

    Attributes:
        rows: a row for each codec, see :func:`judge`.
        maps: token -> name ('teacher' and the columns) -> (E, h, w), of the images shown.
        images: the images shown.
        notes: what the rows lack, in words.
        facts: what was looked at, as JSON values.
    """
    rows: List[Dict[str, Any]]
    maps: Dict[str, Dict[str, Tensor]]
    images: List[ImageItem]
    notes: List[str] = field(default_factory=list)
    facts: Dict[str, Any] = field(default_factory=dict)


def inspect_codecs(source: MapSource, images: Sequence[ImageItem], codecs: Sequence[str],
                   vocabulary: Optional[Vocabulary] = None, count: int = 8, fit_images: int = 16,
                   show: int = 6, seed: int = 0, reducer: Optional[str] = None) -> Inspection:
    """Codecs fitted on some images and judged on others, drawn at random.

    Args:
        source: what makes the maps.
        images: to draw from.
        codecs: names, see :class:`~langocc.apis.extraction_codecs.CodecRequest`.
        vocabulary: see :func:`fidelity`.
        count: images judged.
        fit_images: images fitted on; fewer where there are not enough for both.
        show: images whose maps are kept for a picture.
        seed: of the choice.
        reducer: file of the codec 'reducer'.

    Raises:
        ValueError: fewer than two images, an unknown codec, or an image that cannot be read.
    """
    for name in codecs:
        CodecRequest(name, reducer if name == 'reducer' else None)
    if len(images) < 2 or count < 1 or fit_images < 1:
        raise ValueError(f'{len(images)} images, {count} to judge and {fit_images} to fit on: '
                         f'expected two at least, and one at least of each')
    drawn = draw_images(images, count + fit_images, seed)
    judged = drawn[:max(1, min(count, len(drawn) // 2))]
    fitted = drawn[len(judged):]
    columns = fitted_columns(codecs, compute_maps(source, fitted), seed=seed, reducer=reducer)
    found = judge(columns, judged, compute_maps(source, judged), vocabulary, show)
    found.facts.update(fit_images=len(fitted), seed=seed, teacher=source.describe())
    return found


def inspect_store(source: MapSource, root: Union[str, Path], images: Sequence[ImageItem],
                  vocabulary: Optional[Vocabulary] = None, count: int = 8, show: int = 6,
                  seed: int = 0) -> Inspection:
    """What lies in a store beside its teacher's maps, computed anew; arguments as above.

    Raises:
        ValueError: the store is of another teacher (names what differs), or has none of the images.
    """
    store = FeatureStore(root, expected=dict(description=source.describe()))
    drawn = draw_images(_stored(store, images), count, seed)
    found = judge([store_column(store)], drawn, compute_maps(source, drawn), vocabulary, show)
    found.facts.update(seed=seed, teacher=source.describe(), store_bytes=store.file_bytes)
    return found


def show_store(root: Union[str, Path], images: Sequence[ImageItem], show: int = 6, seed: int = 0
               ) -> Inspection:
    """Maps of a store without a teacher to compare with."""
    store = FeatureStore(root)
    drawn = draw_images(_stored(store, images), show, seed)
    maps = {item.token: dict(store=store.map(item.token)) for item in drawn}
    facts = dict(images=len(drawn), seed=seed, store_bytes=store.file_bytes,
                 teacher=store.manifest.description)
    return Inspection([], maps, drawn, ['no teacher was named: pictures alone'], facts)


def _stored(store: FeatureStore, images: Sequence[ImageItem]) -> List[ImageItem]:
    found = [item for item in images if item.token in store]
    if not found:
        raise ValueError(f'feature store {store.root} with {len(store)} items has none of the '
                         f'{len(images)} images')
    return found


def draw_images(images: Sequence[ImageItem], count: int, seed: int) -> List[ImageItem]:
    """``count`` images (all where there are fewer) drawn at random, in random order."""
    order = np.random.default_rng(seed).permutation(len(images))[:count]
    return [images[index] for index in order]


def compute_maps(source: MapSource, images: Sequence[ImageItem], workers: int = 2) -> List[Tensor]:
    """Maps (E, h, w) float32 on the CPU, one an image.

    Raises:
        ValueError: an image cannot be read; names all of them.
    """
    maps, broken = [], []
    for batch in compute_batches(source, [[item] for item in images], workers):
        maps += list(batch.maps.cpu())
        broken += [message for _, message in batch.broken]
    if broken:
        raise ValueError('; '.join(broken))
    return maps


def fitted_columns(names: Sequence[str], maps: Sequence[Tensor], rows_per_image: int = 1024,
                   seed: int = 0, reducer: Optional[str] = None) -> List[Column]:
    """Codecs by name, fitted on maps.

    Args:
        names: see :func:`fit_codec`.
        maps: (E, h, w) each.
        rows_per_image: cells of each map that are fitted on, drawn at random.
        seed: of that.
        reducer: file of the codec 'reducer'.
    """
    rows = rows_of_maps(maps, rows_per_image, np.random.default_rng(seed))
    return [codec_column(name, fit_codec(name, rows, rows.shape[1], reducer)) for name in names]


def codec_column(name: str, codec: Any) -> Column:
    """What a codec makes of maps."""
    def restore(_: ImageItem, values: Tensor) -> Tensor:
        rows = values.flatten(1).T.contiguous()
        return codec.decode(codec.encode(rows)).T.reshape(values.shape)
    return Column(name, codec.row_bytes, restore)


def store_column(store: FeatureStore) -> Column:
    """What lies in a store."""
    return Column('store', store.codec.row_bytes, lambda item, _: store.map(item.token))


def fidelity(maps: Sequence[Tensor], restored: Sequence[Tensor],
             vocabulary: Optional[Vocabulary] = None) -> Dict[str, float]:
    """How near restored maps are to the teacher's.

    Args:
        maps: (E, h, w) each, unit or zero per cell.
        restored: as ``maps``.
        vocabulary: with text embeddings of E values; None leaves ``class_agreement`` out.

    Returns:
        ``mean_cosine``, ``p1_cosine`` (1 % of the cells are worse) and ``class_agreement`` (share
        of cells whose nearest prompt stands for the same class), over the cells with a feature.

    Raises:
        ValueError: maps of other shapes than those they are compared with, or no feature at all.
    """
    cosines, same = [], []
    for before, after in zip(maps, restored, strict=True):
        if before.shape != after.shape:
            raise ValueError(f'the teacher makes a map {tuple(before.shape)} of an image, restored '
                             f'is {tuple(after.shape)}')
        truth, found = before.flatten(1).T, after.flatten(1).T
        known = (truth != 0).any(dim=1)
        truth, found = truth[known], found[known]
        cosines.append(F.cosine_similarity(truth.double(), found.double(), dim=1))
        if vocabulary is not None:
            same.append(vocabulary.classify(truth) == vocabulary.classify(found))
    cosines = torch.cat(cosines).numpy()
    if not len(cosines):
        raise ValueError(f'{len(maps)} maps of the teacher hold zeros alone')
    row = dict(mean_cosine=float(cosines.mean()), p1_cosine=float(np.percentile(cosines, _LOW)))
    if vocabulary is not None:
        row['class_agreement'] = float(torch.cat(same).double().mean())
    return row


def fitting_vocabulary(vocabulary: Optional[Vocabulary], embed_dims: int
                       ) -> Tuple[Optional[Vocabulary], List[str]]:
    """The vocabulary if its text lies in a space as wide as the features'; else None and why."""
    if vocabulary is None:
        return None, ['class agreement: no vocabulary with text embeddings was given']
    width = vocabulary.text_embeds.shape[1]
    if width != embed_dims:
        return None, [f'class agreement: text embeddings have {width} values, the features '
                      f'{embed_dims}']
    return vocabulary, []


def judge(columns: Sequence[Column], images: Sequence[ImageItem], maps: Sequence[Tensor],
          vocabulary: Optional[Vocabulary] = None, show: int = 6) -> Inspection:
    """All columns on the same images.

    Args:
        columns: what to judge.
        images: images, and
        maps: the teacher's maps of them.
        vocabulary: see :func:`fidelity`; one of another width is left out with a note.
        show: images whose maps are kept for a picture.

    Returns:
        Rows with ``codec``, ``bytes_per_vector`` and what :func:`fidelity` gives.
    """
    vocabulary, notes = fitting_vocabulary(vocabulary, maps[0].shape[0])
    kept = {item.token: dict(teacher=values) for item, values in zip(images[:show], maps)}
    rows = []
    for column in columns:
        restored = [column.restore(item, values) for item, values in zip(images, maps)]
        rows.append(dict(codec=column.name, bytes_per_vector=column.row_bytes,
                         **fidelity(maps, restored, vocabulary)))
        for item, values in zip(images[:show], restored):
            kept[item.token][column.name] = values
    facts = dict(images=len(images), cells=sum(values[0].numel() for values in maps))
    return Inspection(rows, kept, list(images[:show]), notes, facts)


def draw_sheet(images: Sequence[ImageItem], maps: Mapping[str, Mapping[str, Tensor]],
               captions: Optional[Mapping[str, str]] = None, width: int = 320) -> np.ndarray:
    """Images beside their maps in colours: one row an image, one column a codec.

    The three main directions of all features of the first column are red, green and blue in every
    map of the sheet, so equal colours are equal features.

    Args:
        images: images, one row each.
        maps: token -> name -> (E, h, w); every image has the same names.
        captions: name -> line above its maps; default the name.
        width: pixels of one picture.

    Returns:
        A picture.
    """
    names = list(maps[images[0].token])
    basis = fit_feature_basis(torch.cat(
        [maps[item.token][names[0]].flatten(1).T for item in images]).numpy())
    rows = []
    for item in images:
        photo = resize_picture(read_image(item.path).permute(1, 2, 0).numpy(), width)
        cells = [with_caption(photo, f'{item.camera} {item.token[:12]}')]
        for name in names:
            picture = map_picture(maps[item.token][name], basis, photo.shape[:2])
            cells.append(with_caption(picture, (captions or {}).get(name, name)))
        rows.append(cells)
    return picture_grid(rows, _GAP)


def map_picture(values: Tensor, basis: FeatureBasis, size: Tuple[int, int]) -> np.ndarray:
    """A map (E, h, w) in colours, (H, W, 3); every cell is a block of one colour."""
    colors = feature_colors(values.permute(1, 2, 0).numpy(), basis)
    return np.array(Image.fromarray(colors).resize(size[::-1], Image.Resampling.NEAREST))
